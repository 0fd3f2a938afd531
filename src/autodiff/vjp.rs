//! The vector-Jacobian product of every operation: from the cotangent of the result, `ct`, to those of the operands. (A
//! collective of several operands has as many results, each with a cotangent of its own or none.)
//!
//! The line above each rule is its formula, with `x`, `y`, `z` for the operands in order and `out` for the result. One
//! match, in the order and under the headings of `graph/op.rs`; what has no derivative is listed once, at the end.
//!
//! Where a maximum or minimum is attained several times, the attaining operands share the cotangent evenly: in the
//! binary operations, in the reductions and over replicas alike.

use std::f64::consts::PI;

use super::ForwardValues;
use crate::graph::{
    BinaryOp, DotDimensions, GatherDimensions, Node, NodeId, Op, Reduction, ScatterDimensions, Tensor, UnaryOp,
};
use crate::shape::{DType, HostTensor, Shape};

/// One application of a rule: the node and the cotangent of its result.
pub(super) struct Rule<'a, 'g> {
    pub id: NodeId,
    pub node: &'a Node,
    /// The cotangents of the results, where the loss depends on them: at least on one.
    pub of_results: Vec<Option<Tensor<'g>>>,
    pub forward: &'a mut ForwardValues<'g>,
}

impl<'g> Rule<'_, 'g> {
    /// One cotangent for each operand; None where the derivative is zero or the operand is not floating-point.
    pub fn cotangents(&mut self) -> Vec<Option<Tensor<'g>>> {
        let ct = self.cotangent();
        match &self.node.op {
            // ---- elementwise, one operand ----
            // ct · sign(x)
            Op::Unary(UnaryOp::Abs) => one(ct * self.x().sign()),
            // −ct
            Op::Unary(UnaryOp::Negate) => one(-ct),
            // ct · out
            Op::Unary(UnaryOp::Exp) => one(ct * self.out()),
            // ct / x
            Op::Unary(UnaryOp::Log) => one(ct / self.x()),
            // ct / (1 + x)
            Op::Unary(UnaryOp::Log1p) => one(ct / (1.0 + self.x())),
            // ct · (1 − out²)
            Op::Unary(UnaryOp::Tanh) => one(ct * (1.0 - self.out().square())),
            // ct / (2 out)
            Op::Unary(UnaryOp::Sqrt) => one(0.5 * ct / self.out()),
            // −½ ct · out³
            Op::Unary(UnaryOp::Rsqrt) => {
                let out = self.out();
                one(-0.5 * ct * (out * out.square()))
            }
            // ct · 2/√π · exp(−x²)
            Op::Unary(UnaryOp::Erf) => one(ct * (2.0 / PI.sqrt() * (-self.x().square()).exp())),
            // ct, converted back
            Op::Convert { .. } => match self.shape_of(0).dtype {
                dtype if dtype.is_float() => one(ct.convert(dtype)),
                _ => vec![None],
            },

            // ---- elementwise, two operands ----
            // ct, ct
            Op::Binary(BinaryOp::Add) => two(ct, ct),
            // ct, −ct
            Op::Binary(BinaryOp::Subtract) => two(ct, -ct),
            // ct · y, ct · x
            Op::Binary(BinaryOp::Multiply) => two(ct * self.y(), ct * self.x()),
            // ct / y, −ct · out / y
            Op::Binary(BinaryOp::Divide) => {
                let y = self.y();
                two(ct / y, -(ct * self.out() / y))
            }
            // out = x − trunc(x/y) · y, hence ct, −ct · trunc(x/y)
            Op::Binary(BinaryOp::Remainder) => {
                let ratio = self.x() / self.y();
                two(ct, -(ct * ratio.sign() * ratio.abs().floor()))
            }
            // ct · y · x^(y−1), ct · out · log x; the second is 0 where x is 0, as lim x→0 of x^y · log x for y > 0
            Op::Binary(BinaryOp::Power) => {
                let (x, y) = (self.x(), self.y());
                let log = x.eq(x.filled(0.0)).select(x.filled(1.0), x).log();
                two(ct * y * x.pow(y - 1.0), ct * self.out() * log)
            }
            // ct where x > y, ct/2 where equal; and the converse
            Op::Binary(BinaryOp::Maximum) => {
                let (x, y) = (self.x(), self.y());
                two(share(x.gt(y), x.eq(y), ct), share(y.gt(x), x.eq(y), ct))
            }
            // ct where x < y, ct/2 where equal; and the converse
            Op::Binary(BinaryOp::Minimum) => {
                let (x, y) = (self.x(), self.y());
                two(share(x.lt(y), x.eq(y), ct), share(y.lt(x), x.eq(y), ct))
            }

            // ---- compare and select ----
            // –, ct where x, ct where not x
            Op::Select => {
                let (predicate, zero) = (self.x(), ct.filled(0.0));
                vec![None, Some(predicate.select(ct, zero)), Some(predicate.select(zero, ct))]
            }

            // ---- shape ----
            // ct in x's dimensions
            Op::Reshape { .. } => one(ct.reshape(&self.shape_of(0).dims)),
            // ct by the inverse permutation
            Op::Transpose { permutation } => one(ct.transpose(&inverse(permutation))),
            // the sum of ct over the dimensions that were added
            Op::Broadcast { dims, broadcast_dimensions } => {
                let added: Vec<usize> = (0..dims.len()).filter(|d| !broadcast_dimensions.contains(d)).collect();
                one(wide(ct).reduce_sum(&added).convert(ct.dtype()))
            }
            // each operand's part of ct
            Op::Concatenate { dimension } => {
                let mut start = 0;
                let parts = (0..self.node.inputs.len()).map(|i| {
                    let limit = start + self.shape_of(i).dims[*dimension];
                    let part = ct.slice_in(*dimension, start, limit);
                    start = limit;
                    Some(part)
                });
                parts.collect()
            }
            // ct put back where it was taken, zeros around and between
            Op::Slice { starts, strides, .. } => {
                let (x, slice) = (self.shape_of(0), ct.dims());
                let spans: Vec<usize> = slice.iter().zip(strides).map(|(&n, &stride)| span(n, stride)).collect();
                // An empty slice leaves the whole operand to the high padding.
                let low: Vec<usize> = starts.iter().zip(&slice).map(|(&s, &n)| if n == 0 { 0 } else { s }).collect();
                let high: Vec<usize> = (0..x.rank()).map(|i| x.dims[i] - low[i] - spans[i]).collect();
                let interior: Vec<usize> = strides.iter().map(|stride| stride - 1).collect();
                one(ct.pad(self.scalar_zero(), &low, &high, &interior))
            }
            // ct where the operand's elements went; the sum of ct everywhere else
            Op::Pad { low, interior, .. } => {
                let strides: Vec<usize> = interior.iter().map(|gap| gap + 1).collect();
                let x = self.shape_of(0);
                let limits: Vec<usize> = (0..x.rank()).map(|i| low[i] + span(x.dims[i], strides[i])).collect();
                let kept = ct.slice(low, &limits, &strides);
                two(kept, (wide(ct).sum() - wide(kept).sum()).convert(ct.dtype()))
            }

            // ---- reduce ----
            Op::Reduce { reduction, dimensions } => {
                let x = self.shape_of(0);
                let kept: Vec<usize> = (0..x.rank()).filter(|d| !dimensions.contains(d)).collect();
                match reduction {
                    // ct, repeated
                    Reduction::Sum => one(ct.broadcast(&x.dims, &kept)),
                    // ct / n where x = out, with n the number of such elements
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
            // ct · yᵀ, xᵀ · ct
            Op::DotGeneral { dimensions, dtype } => {
                let (x, y) = (self.x(), self.y());
                // The backward dots have the forward one's operand and accumulation types.
                let (for_x, for_y) = dot(x, y, ct.convert(x.dtype()), dimensions, *dtype);
                two(for_x, for_y)
            }

            // ---- index ----
            // ct written into zeros at the same starts
            Op::DynamicSlice { .. } => {
                let starts = self.inputs_from(1);
                let zeros = self.zeros(0);
                self.first(&[Some(zeros.dynamic_update_slice(ct, &starts))])
            }
            // ct without the window, the window of ct
            Op::DynamicUpdateSlice => {
                let (starts, update) = (self.inputs_from(2), self.shape_of(1));
                let around = ct.dynamic_update_slice(self.zeros(1), &starts);
                self.first(&[Some(around), Some(ct.dynamic_slice(&starts, &update.dims))])
            }
            // ct added into zeros at the same (clamped) indices, –
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
            // ct, –, ct gathered at the same indices where they were in range
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
            // ct; that it is for one element of the tuple, the caller knows
            Op::GetTupleElement { .. } => one(ct),
            // ct; what the value waits for gets nothing
            Op::OptimizationBarrier => self.first(&[Some(ct)]),

            // ---- collective, over all replicas ----
            // The loss is the sum of the replicas' losses: what all replicas read gets all replicas' cotangents.
            Op::AllReduce { reduction } => match reduction {
                // Σ ct
                Reduction::Sum => self.exchanged(|ct| ct.all_reduce(Reduction::Sum)),
                // Σ ct / n where x = out, with n the number of such replicas
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
            // Σ ct, this replica's slice
            Op::AllGather { dimension, replicas } => self.exchanged(|ct| ct.reduce_scatter(*dimension, *replicas)),
            // the replicas' ct, joined
            Op::ReduceScatter { dimension, replicas } => self.exchanged(|ct| ct.all_gather(*dimension, *replicas)),

            // ---- no derivative ----
            // Leaves have no operands; steps and roundings are flat; the others are not floating-point, or say so.
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

    fn read(&mut self, id: NodeId) -> Tensor<'g> {
        let cotangent = self.cotangent();
        self.forward.read(id, self.node.recomputed, cotangent)
    }

    /// The first operand's forward value.
    fn x(&mut self) -> Tensor<'g> {
        self.read(self.node.inputs[0])
    }

    /// The second operand's forward value.
    fn y(&mut self) -> Tensor<'g> {
        self.read(self.node.inputs[1])
    }

    /// The forward values of the operands from number `start` on.
    fn inputs_from(&mut self, start: usize) -> Vec<Tensor<'g>> {
        let inputs = &self.node.inputs[start..];
        inputs.iter().map(|&input| self.read(input)).collect()
    }

    /// The result's forward value.
    fn out(&mut self) -> Tensor<'g> {
        self.read(self.id)
    }

    /// The forward value of result number `index`.
    fn result(&mut self, index: usize) -> Tensor<'g> {
        let out = self.out();
        match self.of_results.len() {
            1 => out,
            _ => out.graph().add(Op::GetTupleElement { index }, &[out]),
        }
    }

    /// The cotangent of the result; of several, the first that there is.
    fn cotangent(&self) -> Tensor<'g> {
        self.of_results.iter().flatten().next().copied().expect("a rule is applied where the loss depends on the node")
    }

    /// The cotangents of the results, each put through a collective.
    fn exchanged(&self, collective: impl Fn(Tensor<'g>) -> Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        self.of_results.iter().map(|ct| ct.map(&collective)).collect()
    }

    fn shape_of(&self, input: usize) -> Shape {
        self.cotangent().graph().tensor(self.node.inputs[input]).shape()
    }

    /// Zeros of the shape of operand number `input`.
    fn zeros(&self, input: usize) -> Tensor<'g> {
        self.cotangent().graph().full(0.0, self.shape_of(input))
    }

    fn scalar_zero(&self) -> Tensor<'g> {
        self.cotangent().graph().scalar(0.0, self.cotangent().dtype())
    }

    /// `cotangents` for the first operands, none for the others (the starts of a dynamic slice).
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

/// In f32 at least: long sums in bf16 or f16 lose what they add.
fn wide(x: Tensor<'_>) -> Tensor<'_> {
    if x.dtype().size() < DType::F32.size() { x.convert(DType::F32) } else { x }
}

/// `ct` where the operand alone attains the extremum, half of it where both do, zero elsewhere.
fn share<'g>(alone: Tensor<'g>, both: Tensor<'g>, ct: Tensor<'g>) -> Tensor<'g> {
    alone.select(ct, both.select(0.5 * ct, ct.filled(0.0)))
}

fn inverse(permutation: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; permutation.len()];
    permutation.iter().enumerate().for_each(|(i, &p)| inverse[p] = i);
    inverse
}

/// From the first of `n` elements that lie `stride` apart to the last, both counted.
fn span(n: usize, stride: usize) -> usize {
    if n == 0 { 0 } else { (n - 1) * stride + 1 }
}

/// The cotangents of `x` and `y`, of the accumulation type, for `out = dot(x, y)` and `ct` of the operands' type.
fn dot<'g>(x: Tensor<'g>, y: Tensor<'g>, ct: Tensor<'g>, d: &DotDimensions, dtype: DType) -> (Tensor<'g>, Tensor<'g>) {
    // `out` has the batch dimensions, then x's free ones, then y's.
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

/// Where an operand stands in its dot.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Left,
    Right,
}

/// An operand of a dot, with the dimensions of it that the dot pairs with the other's.
#[derive(Clone, Copy)]
struct Operand<'a, 'g> {
    tensor: Tensor<'g>,
    batch: &'a [usize],
    contracting: &'a [usize],
}

impl<'g> Operand<'_, 'g> {
    /// The dimensions that pass into the result.
    fn free(&self) -> Vec<usize> {
        (0..self.tensor.dims().len()).filter(|i| !self.batch.contains(i) && !self.contracting.contains(i)).collect()
    }

    /// The cotangent of this operand in its own order of dimensions: `ct` with the `other` operand over the other's free
    /// dimensions.
    ///
    /// The backward dot leaves the batch dimensions, then the free ones of its two operands in their order. Of the two
    /// orders the one is taken that needs no transposition: the gradient of a weight comes as the weight is, whether
    /// that is `[in, out]` or `[out, in]`. If both need one, `ct` stands where this operand stood.
    fn cotangent(&self, ct: Operand<'_, 'g>, other: Operand<'_, 'g>, side: Side, dtype: DType) -> Tensor<'g> {
        let free = self.free();
        // What was contracted is free here, in the other operand's order: this operand's dimension for each.
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

/// The last start, for each component of an index vector, at which a window still fits the operand.
fn last_starts(operand: &Shape, window: &[usize], map: &[usize]) -> Vec<f64> {
    map.iter().map(|&i| (operand.dims[i] - window[i]) as f64).collect()
}

/// One value for each component of the index vectors, in the shape of `indices`.
fn along_index_vectors<'g>(indices: Tensor<'g>, values: &[f64], index_vector_dim: usize) -> Tensor<'g> {
    match indices.dims().get(index_vector_dim) {
        // Without a dimension of their own the vectors have one component.
        None => indices.filled(values[0]),
        Some(&n) => {
            let vector = HostTensor::from_f64(Shape::new(indices.dtype(), [n]), values);
            indices.graph().constant(vector).broadcast_like(indices, &[index_vector_dim])
        }
    }
}
