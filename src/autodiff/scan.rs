//! The derivative of [`Op::Scan`](crate::graph::Op::Scan): a scan in the opposite direction.
//!
//! It carries the cotangents of the carried values from the last iteration to the first, and the sums of the cotangents of the
//! constants. Its stacked outputs are the cotangents of the stacked operands. Both bodies are cut out of one graph, in which
//! the body is differentiated; the values that cross the cut are the [`residuals`](super::residuals).

use super::cotangents;
use super::residuals::residuals;
use super::vjp::Rule;
use crate::graph::{Computation, NodeId, Scan, ScanInputs, ScanOutputs, Tensor};
use crate::shape::{DType, Shape};

/// The body of a scan together with its derivative.
struct Derivative {
    /// The body, with a further stacked output for each residual.
    forward: Computation,
    /// (constants; cotangents of carried values, sums for constants; stacked operands, residuals, cotangents of stacked
    /// outputs) → (cotangents of carried values, sums for constants; cotangents of slices).
    backward: Computation,
    /// The numbers of the constants that the backward body reads.
    constants: Vec<usize>,
    /// The numbers of the stacked operands that the backward body reads.
    stacked: Vec<usize>,
    /// The types of the cotangents of the operands; None where there is none.
    types: ScanInputs<Option<DType>>,
}

/// A scan, and the cotangents outside of its body that are given and wanted.
struct Request<'a> {
    scan: &'a Scan,
    /// Marks the operands whose cotangents are wanted.
    wanted: Vec<bool>,
    /// Marks the operands that are weights.
    weights: Vec<bool>,
    /// The types of the cotangents of the results; None where there is none.
    results: ScanOutputs<Option<DType>>,
}

impl<'g> Rule<'_, 'g> {
    /// Returns the cotangents of the operands of a scan.
    pub(super) fn scan(&mut self, scan: &Scan) -> Vec<Option<Tensor<'g>>> {
        let marks = |marks: &[bool]| self.node.inputs.iter().map(|input| marks[input.index()]).collect();
        let of_results = scan.outputs(&self.of_results);
        let type_of = |ct: &Option<Tensor<'g>>| ct.map(|ct| ct.dtype());
        let request = Request {
            scan,
            wanted: marks(self.depends),
            weights: marks(&self.forward.weight),
            results: scan.outputs(&self.of_results.iter().map(type_of).collect::<Vec<_>>()),
        };
        let Derivative { forward, backward, constants, stacked, types } = request.derivative();

        let tuple = self.read(self.id);
        let graph = tuple.graph();
        let residuals = graph.extend_scan(tuple, forward);
        let operands = scan.inputs(&self.node.inputs);
        let constants: Vec<_> = constants.into_iter().map(|i| self.read(operands.constants[i])).collect();
        let stacked = stacked.into_iter().map(|i| self.read(operands.stacked[i]));
        let stacked: Vec<_> = stacked.chain(residuals).chain(of_results.stacked.into_iter().flatten()).collect();

        let shapes = scan.inputs(&scan.body.parameter_shapes());
        let zeros = |shape: &Shape, dtype| graph.full(0.0, shape.with_dtype(dtype));
        let carried = shapes.carried.iter().zip(&types.carried).zip(of_results.carried);
        let carried = carried.filter_map(|((shape, dtype), ct)| {
            dtype.map(|dtype| ct.map_or_else(|| zeros(shape, dtype), |ct| ct.convert(dtype)))
        });
        let sums =
            shapes.constants.iter().zip(&types.constants).filter_map(|(shape, dtype)| dtype.map(|d| zeros(shape, d)));
        let carried: Vec<_> = carried.chain(sums).collect();

        let (body, reverse) = (backward.into(), !scan.reverse);
        let reversed = Scan { body, carried: carried.len(), stacked: stacked.len(), length: scan.length, reverse };
        let found = graph.add_scan(reversed, &ScanInputs { constants, carried, stacked });
        let (mut of_state, mut of_slices) = (found.carried.into_iter(), found.stacked.into_iter());
        let carried = types.carried.iter().map(|dtype| dtype.and_then(|_| of_state.next())).collect();
        let constants = types.constants.iter().map(|dtype| dtype.and_then(|_| of_state.next())).collect();
        let stacked = types.stacked.iter().map(|dtype| dtype.and_then(|_| of_slices.next())).collect();
        ScanInputs { constants, carried, stacked }.all()
    }
}

impl Request<'_> {
    /// Differentiates the body.
    fn derivative(&self) -> Derivative {
        let shapes = self.scan.inputs(&self.scan.body.parameter_shapes()).carried;
        let given = shapes.iter().zip(&self.results.carried);
        let given = given.map(|(shape, ct)| shape.dtype.is_float().then(|| ct.unwrap_or(shape.dtype)));
        let mut carried: Vec<Option<DType>> = given.collect();
        // An iteration may pass on a cotangent of a wider type than it was given: the next one is then given that type.
        loop {
            let derivative = self.derivative_carrying(&carried);
            if derivative.types.carried == carried {
                return derivative;
            }
            carried = derivative.types.carried;
        }
    }

    /// Differentiates the body for cotangents of carried values of the types `carried`. The types that it passes on are
    /// those or wider; only if they are those, the backward body can be iterated.
    fn derivative_carrying(&self, carried: &[Option<DType>]) -> Derivative {
        let scan = self.scan;
        let graph = scan.body.reopened();
        let tensors = |ids: &[NodeId]| ids.iter().map(|&id| graph.tensor(id)).collect::<Vec<_>>();
        let all = tensors(&scan.body.parameters);
        let (parameters, results) = (scan.inputs(&all), scan.outputs(&tensors(&scan.body.outputs)));
        let parameter = |(like, dtype): (&Tensor<'_>, &Option<DType>)| {
            dtype.map(|dtype| graph.parameter("cotangent", like.shape().with_dtype(dtype)).id())
        };
        let given = ScanOutputs {
            carried: results.carried.iter().zip(carried).map(parameter).collect::<Vec<_>>(),
            stacked: results.stacked.iter().zip(&self.results.stacked).map(parameter).collect(),
        };
        let seeds: Vec<_> = results.all().into_iter().zip(given.all()).collect();
        let seeds: Vec<_> = seeds.into_iter().filter_map(|(result, ct)| Some((result, graph.tensor(ct?)))).collect();

        // A carried value whose initial value needs no cotangent may still depend on a weight in later iterations.
        let constants = parameters.constants.len();
        let is_carried = |i: usize| (constants..constants + scan.carried).contains(&i);
        let asked = |i: usize| all[i].dtype().is_float() && (self.wanted[i] || is_carried(i));
        let asked: Vec<usize> = (0..all.len()).filter(|&i| asked(i)).collect();
        let weights: Vec<_> = asked.iter().filter(|&&i| self.weights[i]).map(|&i| all[i]).collect();
        let wrt: Vec<_> = asked.iter().map(|&i| all[i]).collect();
        let mut found = vec![None; all.len()];
        for (&i, ct) in asked.iter().zip(cotangents(&graph, &seeds, &wrt, &weights)) {
            found[i] = ct;
        }
        let mut found = scan.inputs(&found);
        for ((ct, given), value) in found.carried.iter_mut().zip(&given.carried).zip(&parameters.carried) {
            let Some(given) = given.map(|given| graph.tensor(given).dtype()) else { continue };
            let passed = ct.unwrap_or_else(|| value.filled(0.0));
            *ct =
                Some(if passed.dtype().size() < given.size() || ct.is_none() { passed.convert(given) } else { passed });
        }
        let mut sums = Vec::new();
        for ct in found.constants.iter_mut().flatten() {
            let before = graph.parameter("sum", ct.shape());
            sums.push(before);
            *ct = before + *ct;
        }

        let (of_carried, of_stacked): (Vec<_>, Vec<_>) =
            (given.carried.into_iter().flatten().collect(), given.stacked.into_iter().flatten().collect());
        let (of_carried, of_stacked) = (tensors(&of_carried), tensors(&of_stacked));
        let outputs: Vec<_> =
            [&found.carried[..], &found.constants, &found.stacked].concat().into_iter().flatten().collect();
        let available = [&parameters.constants[..], &parameters.stacked].concat();
        let cut = residuals(&graph, &[&of_carried[..], &sums, &of_stacked].concat(), &available, &outputs);
        let numbers = |of: &[Tensor<'_>]| (0..of.len()).filter(|&i| cut.contains(&of[i].id())).collect::<Vec<_>>();
        let (constants, stacked) = (numbers(&parameters.constants), numbers(&parameters.stacked));
        let saved: Vec<_> = cut.iter().filter(|id| available.iter().all(|t| t.id() != **id)).copied().collect();
        let saved = tensors(&saved);
        let pick = |of: &[Tensor<'_>], numbers: &[usize]| numbers.iter().map(|&i| of[i].id()).collect::<Vec<_>>();
        let (read, slices) =
            (tensors(&pick(&parameters.constants, &constants)), tensors(&pick(&parameters.stacked, &stacked)));
        let inputs = [&read[..], &of_carried, &sums, &slices, &saved, &of_stacked].concat();
        let types = |cts: &[Option<Tensor<'_>>]| cts.iter().map(|ct| ct.map(|ct| ct.dtype())).collect::<Vec<_>>();
        Derivative {
            forward: graph.between(&scan.body.name, &all, &[results.all(), saved].concat()),
            backward: graph.between(&format!("{}.gradients", scan.body.name), &inputs, &outputs),
            constants,
            stacked,
            types: ScanInputs {
                constants: types(&found.constants),
                carried: types(&found.carried),
                stacked: types(&found.stacked),
            },
        }
    }
}
