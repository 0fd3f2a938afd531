//! [`Scan`]: a computation applied to the slices of stacked arrays, one after the other.
//!
//! A scan is a loop with a structure that [`autodiff`](crate::autodiff) can reverse, unlike [`Op::While`], as which it runs on
//! a device ([`expanded`](super::expanded)).

use std::sync::Arc;

use super::{Computation, Graph, Op, ShapeError, Tensor};
use crate::shape::Shape;

/// The attributes of [`Op::Scan`].
///
/// The operands are constants, which every iteration reads; carried values, which each iteration passes on to the next; and
/// stacked arrays, of which iteration i reads the slice i of the first dimension. The results are the carried values after the
/// last iteration, and stacked outputs, whose slice i is from iteration i.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scan {
    /// (constants, carried values, slices) → (carried values, slices of the outputs).
    pub body: Arc<Computation>,
    /// The number of carried values.
    pub carried: usize,
    /// The number of stacked operands.
    pub stacked: usize,
    /// The number of iterations, at least 1: the first dimension of stacked arrays.
    pub length: usize,
    /// The iterations run from the last slice to the first.
    pub reverse: bool,
}

/// The operands of a scan; or the parameters of its body, where `stacked` are the slices.
#[derive(Clone, Debug)]
pub struct ScanInputs<T> {
    /// Values that every iteration reads.
    pub constants: Vec<T>,
    /// Values before the first iteration, or before this one.
    pub carried: Vec<T>,
    /// Arrays that have a slice for each iteration, or the slices of this one.
    pub stacked: Vec<T>,
}

/// The results of a scan; or those of its body, where `stacked` are slices.
#[derive(Clone, Debug)]
pub struct ScanOutputs<T> {
    /// Values after the last iteration, or after this one; of the same shapes as before it.
    pub carried: Vec<T>,
    /// Arrays that have a slice from each iteration, or the slices from this one.
    pub stacked: Vec<T>,
}

impl<T: Clone> ScanInputs<T> {
    /// Returns all operands, in order.
    pub fn all(&self) -> Vec<T> {
        [&self.constants[..], &self.carried, &self.stacked].concat()
    }
}

impl<T: Clone> ScanOutputs<T> {
    /// Returns all results, in order.
    pub fn all(&self) -> Vec<T> {
        [&self.carried[..], &self.stacked].concat()
    }
}

impl Scan {
    /// Splits a list that has an element for each operand.
    pub fn inputs<T: Clone>(&self, all: &[T]) -> ScanInputs<T> {
        let (constants, rest) = all.split_at(all.len() - self.carried - self.stacked);
        let (carried, stacked) = rest.split_at(self.carried);
        ScanInputs { constants: constants.to_vec(), carried: carried.to_vec(), stacked: stacked.to_vec() }
    }

    /// Splits a list that has an element for each result.
    pub fn outputs<T: Clone>(&self, all: &[T]) -> ScanOutputs<T> {
        let (carried, stacked) = all.split_at(self.carried);
        ScanOutputs { carried: carried.to_vec(), stacked: stacked.to_vec() }
    }

    /// Returns the number of the slice that iteration `iteration` reads and writes.
    pub fn slice(&self, iteration: usize) -> usize {
        if self.reverse { self.length - 1 - iteration } else { iteration }
    }

    /// Returns the shapes of the results for operands of the shapes `inputs`.
    ///
    /// # Errors
    /// If the operands, or the results of the body, do not have the shapes that the body's parameters require.
    pub(super) fn result_shapes(&self, inputs: &[&Shape]) -> Result<Vec<Shape>, ShapeError> {
        let refuse = |requires: &str, got: String| {
            Err(ShapeError { op: Op::Scan(self.clone()).name(), requires: requires.to_string(), got })
        };
        let list = |shapes: &[Shape]| shapes.iter().map(Shape::to_string).collect::<Vec<_>>().join(" and ");
        let [parameters, results] = [self.body.parameter_shapes(), self.body.output_shapes()]
            .map(|shapes| shapes.into_iter().cloned().collect::<Vec<Shape>>());
        if self.length == 0 {
            return refuse("at least 1 iteration", "0".to_string());
        }
        if parameters.len() < self.carried + self.stacked || results.len() < self.carried {
            let got = format!("{} parameters and {} results", parameters.len(), results.len());
            return refuse("a body with a parameter for each operand and a result for each carried value", got);
        }
        let mut required = self.inputs(&parameters);
        if results[..self.carried] != required.carried[..] {
            let requires = format!("body results of the carried values' shapes ({})", list(&required.carried));
            return refuse(&requires, list(&results[..self.carried]));
        }
        required.stacked = self.stacked_shapes(&required.stacked);
        let (found, required): (Vec<Shape>, _) = (inputs.iter().map(|&shape| shape.clone()).collect(), required.all());
        if found != required {
            return refuse(&format!("operands of the shapes {}", list(&required)), list(&found));
        }
        let mut results = self.outputs(&results);
        results.stacked = self.stacked_shapes(&results.stacked);
        Ok(results.all())
    }

    pub(super) fn stacked_shapes(&self, slices: &[Shape]) -> Vec<Shape> {
        slices.iter().map(|slice| Shape::new(slice.dtype, [&[self.length], &slice.dims[..]].concat())).collect()
    }
}

impl Graph {
    /// Appends a scan of `length` iterations and returns its results.
    ///
    /// The closure gets a graph of its own with the parameters of the body. A value from outside must be an operand.
    #[track_caller]
    pub fn scan<'g>(
        &'g self,
        name: &str,
        length: usize,
        inputs: &ScanInputs<Tensor<'g>>,
        body: impl for<'b> FnOnce(&ScanInputs<Tensor<'b>>) -> ScanOutputs<Tensor<'b>>,
    ) -> ScanOutputs<Tensor<'g>> {
        let graph = Graph::new(name);
        let parameters = |kind: &str, tensors: &[Tensor<'_>], skipped: usize| -> Vec<Tensor<'_>> {
            let of = |(i, tensor): (usize, &Tensor<'_>)| {
                let shape = tensor.shape();
                graph.parameter(format!("{kind}.{i}"), Shape::new(shape.dtype, &shape.dims[skipped..]))
            };
            tensors.iter().enumerate().map(of).collect()
        };
        let parameters = ScanInputs {
            constants: parameters("constant", &inputs.constants, 0),
            carried: parameters("carried", &inputs.carried, 0),
            stacked: parameters("slice", &inputs.stacked, 1),
        };
        let results = graph.in_scope(self.scope_of_next(), || body(&parameters));
        let (carried, stacked) = (inputs.carried.len(), inputs.stacked.len());
        let body = Arc::new(graph.finish(&results.all()));
        self.add_scan(Scan { body, carried, stacked, length, reverse: false }, inputs)
    }

    /// Appends [`Op::Scan`] and returns its results.
    #[track_caller]
    pub fn add_scan<'g>(&'g self, scan: Scan, inputs: &ScanInputs<Tensor<'g>>) -> ScanOutputs<Tensor<'g>> {
        let tuple = self.add(Op::Scan(scan.clone()), &inputs.all());
        scan.outputs(&self.elements(tuple, scan.body.outputs.len()))
    }

    /// Gives the scan `tuple` a body that has further stacked outputs after those that it had, and returns them.
    ///
    /// # Panics
    /// If `tuple` is not a scan, or the parameters or the first results of the bodies have different shapes.
    #[track_caller]
    pub fn extend_scan<'g>(&'g self, tuple: Tensor<'g>, body: Computation) -> Vec<Tensor<'g>> {
        let Op::Scan(scan) = self.node(tuple.id()).op else { panic!("{} is not a scan", tuple.id()) };
        let before = &scan.body;
        let extends = before.parameter_shapes() == body.parameter_shapes()
            && body.output_shapes().starts_with(&before.output_shapes());
        assert!(extends, "{} requires a body with the parameters and first results of the one it has", tuple.id());
        let (known, count) = (before.outputs.len(), body.outputs.len());
        self.replace(tuple.id(), Op::Scan(Scan { body: Arc::new(body), ..scan }));
        self.elements(tuple, count).split_off(known)
    }
}
