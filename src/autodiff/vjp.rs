//! The vector-Jacobian product (VJP) of every operation: from the cotangents of the results to those of the operands.
//!
//! The rules are one match, in the order and under the headings of [`Op`]. In the formulas `x`, `y`,
//! `z` are the operands in order, `out` is the result, `ct` its cotangent, and – marks an operand without a cotangent.
//!
//! | operation | cotangents of the operands |
//! |---|---|
//! | abs | `ct · sign(x)` |
//! | negate | `−ct` |
//! | exponential | `ct · out` |
//! | log | `ct / x` |
//! | log-plus-one | `ct / (1 + x)` |
//! | tanh | `ct · (1 − out²)` |
//! | sqrt | `ct / (2 out)` |
//! | rsqrt | `−½ ct · out³` |
//! | erf | `ct · 2/√π · exp(−x²)` |
//! | convert | `ct`, converted back |
//! | add, subtract | `ct`, `±ct` |
//! | multiply | `ct · y`, `ct · x` |
//! | divide | `ct / y`, `−ct · out / y` |
//! | remainder | `ct`, `−ct · trunc(x/y)` |
//! | power | `ct · y · x^(y−1)`, `ct · out · log x` |
//! | maximum | `ct` where `x > y`, `ct/2` where equal; the converse |
//! | minimum | `ct` where `x < y`, `ct/2` where equal; the converse |
//! | select | –, `ct` where `x`, `ct` where not `x` |
//! | reshape | `ct` in x's dimensions |
//! | transpose | `ct` by the inverse permutation |
//! | broadcast | the sum of `ct` over the added dimensions |
//! | concatenate | each operand's slice of `ct` |
//! | slice | `ct` padded with zeros to x's dimensions |
//! | pad | the elements of `ct` that x fills; the sum of all others |
//! | reduce (sum) | `ct`, broadcast |
//! | reduce (max, min) | `ct / n` where `x = out`, with n the number of such elements |
//! | dot | `ct · yᵀ`, `xᵀ · ct`, each rounded to its operand's type unless the operand is a weight |
//! | convolution | `ct` convolved with the reversed `y`; `x` convolved with `ct`; see `convolution.rs` |
//! | reduce-window (sum) | each element of `ct` added to all elements of its window |
//! | reduce-window (max, min) | each element of `ct` added to the first element of its window that attains the extremum |
//! | select-and-scatter | panics: it is the derivative of a maximum over windows |
//! | reverse | `ct`, reversed |
//! | dynamic-slice | zeros, updated with `ct` at the same starts |
//! | dynamic-update-slice | `ct` with zeros in the window; the window of `ct` |
//! | gather | `ct` scatter-added into zeros at the same (clamped) indices, – |
//! | scatter (add) | `ct`, –, `ct` gathered at the same indices where in bounds |
//! | get-tuple-element, opt-barrier | `ct` |
//! | all-reduce (sum) | the all-reduce of `ct` |
//! | all-reduce (max, min) | the all-reduce of `ct`, divided by n, where `x = out`, with n the number of such replicas |
//! | all-gather | the reduce-scatter of `ct` |
//! | reduce-scatter | the all-gather of `ct` |
//! | scan | the scan of the body's cotangents in the opposite direction |
//! | composite | the composite's own derivative |
//! | while | panics: take gradients inside the body |
//! | all others | none: the operation is piecewise constant, not floating-point, or a leaf |
//!
//! If several operands attain a maximum or minimum, they share the cotangent evenly, in binary
//! operations, reductions and all-reduces; of a window, the first one takes it, as in other frameworks. A collective of several operands has one result, and one optional cotangent,
//! for each.

use std::f64::consts::PI;

use super::{ForwardValues, convolution};
use crate::graph::{
    BinaryOp, Composite, DotDimensions, GatherDimensions, Node, NodeId, Op, Reduction, ScatterDimensions, Tensor,
    UnaryOp, WindowDimension, span,
};
use crate::shape::{DType, HostTensor, Shape};

/// One application of a rule: the node and the cotangents of its results.
pub(super) struct Rule<'a, 'g> {
    pub id: NodeId,
    pub node: &'a Node,
    /// The cotangent of each result that the loss depends on; at least one is present.
    pub of_results: Vec<Option<Tensor<'g>>>,
    /// Marks the nodes whose cotangents are wanted.
    pub depends: &'a [bool],
    pub forward: &'a mut ForwardValues<'g>,
}

impl<'g> Rule<'_, 'g> {
    /// Returns one cotangent for each operand; None where the derivative is zero or the operand is not floating-point.
    pub fn cotangents(&mut self) -> Vec<Option<Tensor<'g>>> {
        let ct = self.cotangent();
        match &self.node.op {
            // ---- elementwise, one operand ----
            Op::Unary(UnaryOp::Abs) => one(ct * self.x().sign()),
            Op::Unary(UnaryOp::Negate) => one(-ct),
            Op::Unary(UnaryOp::Exp) => one(ct * self.out()),
            Op::Unary(UnaryOp::Log) => one(ct / self.x()),
            Op::Unary(UnaryOp::Log1p) => one(ct / (1.0 + self.x())),
            Op::Unary(UnaryOp::Tanh) => one(ct * (1.0 - self.out().square())),
            Op::Unary(UnaryOp::Sqrt) => one(0.5 * ct / self.out()),
            Op::Unary(UnaryOp::Rsqrt) => {
                let out = self.out();
                one(-0.5 * ct * (out * out.square()))
            }
            Op::Unary(UnaryOp::Erf) => one(ct * (2.0 / PI.sqrt() * (-self.x().square()).exp())),
            Op::Convert { .. } => match self.shape_of(0).dtype {
                dtype if dtype.is_float() => one(ct.convert(dtype)),
                _ => vec![None],
            },

            // ---- elementwise, two operands ----
            Op::Binary(BinaryOp::Add) => two(ct, ct),
            Op::Binary(BinaryOp::Subtract) => two(ct, -ct),
            Op::Binary(BinaryOp::Multiply) => two(ct * self.y(), ct * self.x()),
            Op::Binary(BinaryOp::Divide) => {
                let y = self.y();
                two(ct / y, -(ct * self.out() / y))
            }
            // out = x − trunc(x/y) · y
            Op::Binary(BinaryOp::Remainder) => {
                let ratio = self.x() / self.y();
                two(ct, -(ct * ratio.sign() * ratio.abs().floor()))
            }
            // The second is 0 where x is 0: the limit of x^y · log x for x → 0 and y > 0.
            Op::Binary(BinaryOp::Power) => {
                let (x, y) = (self.x(), self.y());
                let log = x.eq(x.filled(0.0)).select(x.filled(1.0), x).log();
                two(ct * y * x.pow(y - 1.0), ct * self.out() * log)
            }
            Op::Binary(BinaryOp::Maximum) => {
                let (x, y) = (self.x(), self.y());
                two(share(x.gt(y), x.eq(y), ct), share(y.gt(x), x.eq(y), ct))
            }
            Op::Binary(BinaryOp::Minimum) => {
                let (x, y) = (self.x(), self.y());
                two(share(x.lt(y), x.eq(y), ct), share(y.lt(x), x.eq(y), ct))
            }

            // ---- compare and select ----
            Op::Select => {
                let (predicate, zero) = (self.x(), ct.filled(0.0));
                vec![None, Some(predicate.select(ct, zero)), Some(predicate.select(zero, ct))]
            }

            // ---- shape ----
            Op::Reshape { .. } => one(ct.reshape(&self.shape_of(0).dims)),
            Op::Transpose { permutation } => one(ct.transpose(&inverse(permutation))),
            Op::Broadcast { dims, broadcast_dimensions } => {
                let added: Vec<usize> = (0..dims.len()).filter(|d| !broadcast_dimensions.contains(d)).collect();
                one(wide(ct).reduce_sum(&added).convert(ct.dtype()))
            }
            Op::Concatenate { dimension } => {
                let mut start = 0;
                let slices = (0..self.node.inputs.len()).map(|i| {
                    let limit = start + self.shape_of(i).dims[*dimension];
                    let slice = ct.slice_in(*dimension, start, limit);
                    start = limit;
                    Some(slice)
                });
                slices.collect()
            }
            Op::Slice { starts, strides, .. } => {
                let (x, slice) = (self.shape_of(0), ct.dims());
                let spans: Vec<usize> = slice.iter().zip(strides).map(|(&n, &stride)| span(n, stride)).collect();
                // After an empty slice, the high padding covers the whole operand.
                let low: Vec<usize> = starts.iter().zip(&slice).map(|(&s, &n)| if n == 0 { 0 } else { s }).collect();
                let high: Vec<usize> = (0..x.rank()).map(|i| x.dims[i] - low[i] - spans[i]).collect();
                let interior: Vec<usize> = strides.iter().map(|stride| stride - 1).collect();
                one(ct.pad(self.scalar_zero(), &low, &high, &interior))
            }
            Op::Pad { low, interior, .. } => {
                let strides: Vec<usize> = interior.iter().map(|gap| gap + 1).collect();
                let x = self.shape_of(0);
                let limits: Vec<usize> = (0..x.rank()).map(|i| low[i] + span(x.dims[i], strides[i])).collect();
                let filled = ct.slice(low, &limits, &strides);
                two(filled, (wide(ct).sum() - wide(filled).sum()).convert(ct.dtype()))
            }

            // ---- reduce ----
            Op::Reduce { reduction, dimensions } => {
                let x = self.shape_of(0);
                let kept: Vec<usize> = (0..x.rank()).filter(|d| !dimensions.contains(d)).collect();
                match reduction {
                    Reduction::Sum => one(ct.broadcast(&x.dims, &kept)),
                    Reduction::Max | Reduction::Min => {
                        let operand = self.x();
                        let attained = operand.eq(self.out().broadcast(&x.dims, &kept));
                        let n = attained.convert(ct.dtype()).reduce_sum(dimensions);
                        one(attained.select((ct / n).broadcast(&x.dims, &kept), operand.filled(0.0)))
                    }
                    Reduction::And | Reduction::Or => vec![None],
                }
            }

            // ---- dot ----
            Op::DotGeneral { dimensions, dtype } => {
                let (x, y) = (self.x(), self.y());
                // The backward dots have the operand and accumulation types of the forward dot.
                let (for_x, for_y) = dot(x, y, ct.convert(x.dtype()), dimensions, *dtype);
                two(self.rounded(0, for_x), self.rounded(1, for_y))
            }

            // ---- windows ----
            Op::Convolution(convolution) => {
                let (x, y) = (self.x(), self.y());
                // As with dot, the backward convolutions have the operand and accumulation types of the forward one.
                let ct = ct.convert(x.dtype());
                let dims = x.dims();
                let sizes: Vec<usize> = convolution.dimensions.input_spatial.iter().map(|&d| dims[d]).collect();
                let for_x = convolution::of_input(ct, y, convolution, &sizes);
                let for_y = convolution::of_kernel(ct, x, convolution);
                two(self.rounded(0, for_x), self.rounded(1, for_y))
            }
            Op::ReduceWindow { reduction, window } => match reduction {
                Reduction::Sum => one(spread_over_windows(ct, window, &self.shape_of(0).dims)),
                Reduction::Max => one(self.x().select_and_scatter(ct, window)),
                Reduction::Min => one((-self.x()).select_and_scatter(ct, window)),
                Reduction::And | Reduction::Or => vec![None],
            },
            Op::SelectAndScatter { .. } => panic!(
                "{} = {} (scope {:?}) lies between the loss and a requested gradient, and has no derivative: it is itself the \
                 derivative of a maximum over windows",
                self.id,
                self.node.op.name(),
                self.node.scope
            ),
            Op::Reverse { dimensions } => one(ct.reverse(dimensions)),

            // ---- index ----
            Op::DynamicSlice { .. } => {
                let starts = self.inputs_from(1);
                let zeros = self.zeros(0);
                self.first(&[Some(zeros.dynamic_update_slice(ct, &starts))])
            }
            Op::DynamicUpdateSlice => {
                let (starts, update) = (self.inputs_from(2), self.shape_of(1));
                let around = ct.dynamic_update_slice(self.zeros(1), &starts);
                self.first(&[Some(around), Some(ct.dynamic_slice(&starts, &update.dims))])
            }
            Op::Gather(d) => {
                let (operand, indices) = (self.shape_of(0), self.y());
                let last = last_starts(&operand, &d.slice_sizes, &d.start_index_map);
                let last = along_index_vectors(indices, &last, d.index_vector_dim);
                let indices = indices.maximum(indices.filled(0.0)).minimum(last);
                let scatter = ScatterDimensions {
                    update_window_dims: d.offset_dims.clone(),
                    inserted_window_dims: d.collapsed_slice_dims.clone(),
                    scatter_dims_to_operand_dims: d.start_index_map.clone(),
                    index_vector_dim: d.index_vector_dim,
                };
                let updates = wide(ct);
                let zeros = ct.graph().full(0.0, operand.with_dtype(updates.dtype()));
                vec![Some(zeros.scatter_add(indices, updates, scatter).convert(ct.dtype())), None]
            }
            Op::ScatterAdd(d) => {
                let (operand, indices, updates) = (self.shape_of(0), self.y(), self.shape_of(2));
                let mut window = d.update_window_dims.iter().map(|&i| updates.dims[i]);
                let slice_sizes: Vec<usize> = (0..operand.rank())
                    .map(|i| if d.inserted_window_dims.contains(&i) { 1 } else { window.next().unwrap_or(1) })
                    .collect();
                let last = last_starts(&operand, &slice_sizes, &d.scatter_dims_to_operand_dims);
                let last = along_index_vectors(indices, &last, d.index_vector_dim);
                let mut in_range = indices.ge(indices.filled(0.0)).and(indices.le(last));
                if d.index_vector_dim < indices.dims().len() {
                    in_range = in_range.reduce(Reduction::And, &[d.index_vector_dim]);
                }
                let batch: Vec<usize> = (0..updates.rank()).filter(|i| !d.update_window_dims.contains(i)).collect();
                let gather = GatherDimensions {
                    offset_dims: d.update_window_dims.clone(),
                    collapsed_slice_dims: d.inserted_window_dims.clone(),
                    start_index_map: d.scatter_dims_to_operand_dims.clone(),
                    index_vector_dim: d.index_vector_dim,
                    slice_sizes,
                };
                let taken = ct.gather(indices, gather);
                let taken = in_range.broadcast(&updates.dims, &batch).select(taken, taken.filled(0.0));
                vec![Some(ct), None, Some(taken)]
            }

            // ---- control ----
            Op::While { .. } => panic!(
                "{} = {} (scope {:?}) lies between the loss and a requested gradient, and a while has no derivative: \
                 take gradients inside its body",
                self.id,
                self.node.op.name(),
                self.node.scope
            ),
            Op::Scan(scan) => self.scan(scan),
            Op::Composite(composite) => self.composite(composite),
            // The caller assigns it to this element of the tuple.
            Op::GetTupleElement { .. } => one(ct),
            Op::OptimizationBarrier => self.first(&[Some(ct)]),

            // ---- collective, over all replicas ----
            // The loss is the sum of the replicas' losses, so a value that all replicas read has the sum of their cotangents.
            Op::AllReduce { reduction } => match reduction {
                Reduction::Sum => self.map_results(|ct| ct.all_reduce(Reduction::Sum)),
                Reduction::Max | Reduction::Min => {
                    let of_results = self.of_results.clone();
                    let share = |(i, ct): (usize, Option<Tensor<'g>>)| {
                        let ct = ct?;
                        let attained = self.inputs_from(i)[0].eq(self.result(i));
                        let n = attained.convert(ct.dtype()).all_reduce(Reduction::Sum);
                        Some(attained.select(ct.all_reduce(Reduction::Sum) / n, ct.filled(0.0)))
                    };
                    of_results.into_iter().enumerate().map(share).collect()
                }
                Reduction::And | Reduction::Or => vec![None; self.node.inputs.len()],
            },
            Op::AllGather { dimension, replicas } => self.map_results(|ct| ct.reduce_scatter(*dimension, *replicas)),
            Op::ReduceScatter { dimension, replicas } => self.map_results(|ct| ct.all_gather(*dimension, *replicas)),

            // ---- no derivative ----
            // Leaves have no operands; steps and roundings are piecewise constant; the others are not floating-point.
            Op::Parameter { .. }
            | Op::Constant(_)
            | Op::Iota { .. }
            | Op::Unary(UnaryOp::Sign | UnaryOp::Floor | UnaryOp::Not | UnaryOp::IsFinite)
            | Op::BitcastConvert { .. }
            | Op::Binary(
                BinaryOp::And | BinaryOp::Or | BinaryOp::Xor | BinaryOp::ShiftLeft | BinaryOp::ShiftRightLogical,
            )
            | Op::Compare { .. }
            | Op::StopGradient
            | Op::ReplicaId => vec![None; self.node.inputs.len()],
        }
    }

    /// Appends the derivative of a composite.
    fn composite(&mut self, composite: &Composite) -> Vec<Option<Tensor<'g>>> {
        let Some(derivative) = &composite.derivative else {
            panic!(
                "{} = {} (scope {:?}) lies between the loss and a requested gradient, and has no derivative",
                self.id, composite.definition.name, self.node.scope
            )
        };
        let results = self.of_results.len();
        let (cotangents, residuals) = self.of_results.split_at(results - composite.residuals);
        assert!(residuals.iter().all(Option::is_none), "only the derivative reads residuals");
        let cotangents = cotangents.to_vec();
        let mut operands = self.inputs_from(0);
        operands.extend((0..results).map(|index| self.result(index)));
        for (index, cotangent) in cotangents.into_iter().enumerate() {
            let zeros = || operands[self.node.inputs.len() + index].filled(0.0);
            operands.push(cotangent.unwrap_or_else(zeros));
        }
        let graph = operands[0].graph();
        // By its nodes, a derivative without a kernel shows which operands it reads.
        let found = match derivative.kernel {
            Some(_) => graph.composite(derivative, &operands),
            None => graph.inlined(&derivative.definition, &operands),
        };
        self.first(&found.into_iter().map(Some).collect::<Vec<_>>())
    }

    /// Returns the forward value of a node.
    pub(super) fn read(&mut self, id: NodeId) -> Tensor<'g> {
        let cotangent = self.cotangent();
        self.forward.read(id, self.node.recomputed, cotangent)
    }

    /// Returns the forward value of the first operand.
    fn x(&mut self) -> Tensor<'g> {
        self.read(self.node.inputs[0])
    }

    /// Returns the forward value of the second operand.
    fn y(&mut self) -> Tensor<'g> {
        self.read(self.node.inputs[1])
    }

    /// Returns the forward values of the operands from number `start` on.
    fn inputs_from(&mut self, start: usize) -> Vec<Tensor<'g>> {
        let inputs = &self.node.inputs[start..];
        inputs.iter().map(|&input| self.read(input)).collect()
    }

    /// Rounds the cotangent of operand number `input` to the operand's type, unless the operand is a weight: its gradient,
    /// a sum over all rows, is not rounded.
    fn rounded(&self, input: usize, cotangent: Tensor<'g>) -> Tensor<'g> {
        let is_weight = self.forward.weight[self.node.inputs[input].index()];
        if is_weight { cotangent } else { cotangent.convert(self.shape_of(input).dtype) }
    }

    /// Returns the forward value of the result.
    fn out(&mut self) -> Tensor<'g> {
        self.read(self.id)
    }

    /// Returns the forward value of result number `index`.
    fn result(&mut self, index: usize) -> Tensor<'g> {
        let out = self.out();
        match self.of_results.len() {
            1 => out,
            _ => out.graph().add(Op::GetTupleElement { index }, &[out]),
        }
    }

    /// Returns the cotangent of the result, or of the first result that has one.
    fn cotangent(&self) -> Tensor<'g> {
        self.of_results
            .iter()
            .flatten()
            .next()
            .copied()
            .expect("the loss depends on the node of every rule that is applied")
    }

    /// Applies a collective to the cotangent of each result.
    fn map_results(&self, collective: impl Fn(Tensor<'g>) -> Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        self.of_results.iter().map(|ct| ct.map(&collective)).collect()
    }

    fn shape_of(&self, input: usize) -> Shape {
        self.cotangent().graph().tensor(self.node.inputs[input]).shape()
    }

    /// Returns zeros of the shape of operand number `input`.
    fn zeros(&self, input: usize) -> Tensor<'g> {
        self.cotangent().graph().full(0.0, self.shape_of(input))
    }

    fn scalar_zero(&self) -> Tensor<'g> {
        self.cotangent().graph().scalar(0.0, self.cotangent().dtype())
    }

    /// Extends `cotangents` by None for the remaining operands, such as the starts of a dynamic slice.
    fn first(&self, cotangents: &[Option<Tensor<'g>>]) -> Vec<Option<Tensor<'g>>> {
        let mut all = cotangents.to_vec();
        all.resize(self.node.inputs.len(), None);
        all
    }
}

fn one(cotangent: Tensor<'_>) -> Vec<Option<Tensor<'_>>> {
    vec![Some(cotangent)]
}

fn two<'g>(x: Tensor<'g>, y: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
    vec![Some(x), Some(y)]
}

/// Converts to f32 at least: long sums in bf16 or f16 lose their small terms.
fn wide(x: Tensor<'_>) -> Tensor<'_> {
    if x.dtype().size() < DType::F32.size() { x.convert(DType::F32) } else { x }
}

/// Returns `ct` where the operand alone attains the extremum, `ct`/2 where both do, zero elsewhere.
fn share<'g>(alone: Tensor<'g>, both: Tensor<'g>, ct: Tensor<'g>) -> Tensor<'g> {
    alone.select(ct, both.select(0.5 * ct, ct.filled(0.0)))
}

/// Adds each element of `ct` to all elements, in `dims`, of its window.
fn spread_over_windows<'g>(ct: Tensor<'g>, window: &[WindowDimension], dims: &[usize]) -> Tensor<'g> {
    let none = vec![0; window.len()];
    let interior: Vec<usize> = window.iter().map(|window| window.stride - 1).collect();
    let spread = ct.pad(ct.graph().scalar(0.0, ct.dtype()), &none, &none, &interior);
    let transposed =
        window.iter().zip(dims).map(|(window, &n)| WindowDimension { base_dilation: 1, ..window.transposed(n) });
    spread.reduce_window(Reduction::Sum, &transposed.collect::<Vec<_>>())
}

fn inverse(permutation: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; permutation.len()];
    permutation.iter().enumerate().for_each(|(i, &p)| inverse[p] = i);
    inverse
}

/// Returns the cotangents of `x` and `y` for `out = dot(x, y)`. `ct` has the operands' type, the results have the
/// accumulation type.
fn dot<'g>(x: Tensor<'g>, y: Tensor<'g>, ct: Tensor<'g>, d: &DotDimensions, dtype: DType) -> (Tensor<'g>, Tensor<'g>) {
    // `out` has the batch dimensions, then the free dimensions of x, then those of y.
    let batch: Vec<usize> = (0..d.lhs_batch.len()).collect();
    let x = Operand { tensor: x, batch: &d.lhs_batch, contracting: &d.lhs_contracting };
    let y = Operand { tensor: y, batch: &d.rhs_batch, contracting: &d.rhs_contracting };
    let (rank, middle) = (ct.dims().len(), batch.len() + x.free().len());
    let ct_x: Vec<usize> = (batch.len()..middle).collect();
    let ct_y: Vec<usize> = (middle..rank).collect();
    let for_x = x.cotangent(Operand { tensor: ct, batch: &batch, contracting: &ct_y }, y, Side::Left, dtype);
    let for_y = y.cotangent(Operand { tensor: ct, batch: &batch, contracting: &ct_x }, x, Side::Right, dtype);
    (for_x, for_y)
}

/// The position of an operand in its dot.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Left,
    Right,
}

/// An operand of a dot, with the dimensions that the dot pairs with those of the other operand.
#[derive(Clone, Copy)]
struct Operand<'a, 'g> {
    tensor: Tensor<'g>,
    batch: &'a [usize],
    contracting: &'a [usize],
}

impl<'g> Operand<'_, 'g> {
    /// Returns the dimensions that are neither batch nor contracting; the result has them.
    fn free(&self) -> Vec<usize> {
        (0..self.tensor.dims().len()).filter(|i| !self.batch.contains(i) && !self.contracting.contains(i)).collect()
    }

    /// Returns the cotangent of this operand in its own order of dimensions: `ct` contracted with `other` over the free
    /// dimensions of `other`.
    ///
    /// The result of the backward dot has the batch dimensions, then the free dimensions of its two operands in order.
    /// The operands are ordered so that no transposition is needed if that is possible: the gradient of a weight has the
    /// weight's layout, whether that is `[in, out]` or `[out, in]`. If both orders need a transposition, `ct` takes the
    /// position of this operand.
    fn cotangent(&self, ct: Operand<'_, 'g>, other: Operand<'_, 'g>, side: Side, dtype: DType) -> Tensor<'g> {
        let free = self.free();
        // The contracted dimensions are free in the backward dot, in the order of the other operand. For each of them,
        // the dimension of this operand:
        let mut pairs: Vec<(usize, usize)> =
            other.contracting.iter().copied().zip(self.contracting.iter().copied()).collect();
        pairs.sort_unstable();
        let contracted: Vec<usize> = pairs.into_iter().map(|(_, mine)| mine).collect();
        let ct_left = [self.batch, &free, &contracted].concat();
        let ct_right = [self.batch, &contracted, &free].concat();

        let dimensions = DotDimensions {
            lhs_batch: ct.batch.to_vec(),
            lhs_contracting: ct.contracting.to_vec(),
            rhs_batch: other.batch.to_vec(),
            rhs_contracting: other.free(),
        };
        if ct_left.is_sorted() || (side == Side::Left && !ct_right.is_sorted()) {
            ct.tensor.dot_general(other.tensor, dimensions, dtype).transpose(&inverse(&ct_left))
        } else {
            other.tensor.dot_general(ct.tensor, dimensions.swapped(), dtype).transpose(&inverse(&ct_right))
        }
    }
}

/// Returns, for each component of an index vector, the last start at which a window fits the operand.
fn last_starts(operand: &Shape, window: &[usize], map: &[usize]) -> Vec<f64> {
    map.iter().map(|&i| (operand.dims[i] - window[i]) as f64).collect()
}

/// Broadcasts one value for each component of the index vectors to the shape of `indices`.
fn along_index_vectors<'g>(indices: Tensor<'g>, values: &[f64], index_vector_dim: usize) -> Tensor<'g> {
    match indices.dims().get(index_vector_dim) {
        // Without a dimension for the components, the vectors have one.
        None => indices.filled(values[0]),
        Some(&n) => {
            let vector = HostTensor::from_f64(Shape::new(indices.dtype(), [n]), values);
            indices.graph().constant(vector).broadcast_like(indices, &[index_vector_dim])
        }
    }
}
