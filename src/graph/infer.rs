//! The shape rule of every operation: its requirements on the operands and the shape of its result.
//!
//! The documentation of [`Op`] states the rules. Every [`ShapeError`] has the form "*op* requires …, got …".

use super::window::{Mismatch, select_and_scatter_shape, windows_shape};
use super::{BinaryOp, DotDimensions, GatherDimensions, Op, ScatterDimensions, UnaryOp, ValueShape};
use crate::shape::{DType, Shape};

/// The error of operands that violate the shape rule of an operation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{op} requires {requires}, got {got}")]
pub struct ShapeError {
    /// HLO's opcode.
    pub op: &'static str,
    /// The requirement.
    pub requires: String,
    /// The offending shapes or attributes.
    pub got: String,
}

type Result<T, E = ShapeError> = std::result::Result<T, E>;

/// Returns the shape of `op` applied to operands of the shapes `inputs`.
///
/// # Errors
/// If the operands violate the operation's shape rule.
pub fn shape(op: &Op, inputs: &[&ValueShape]) -> Result<ValueShape> {
    let rule = Rule { op: op.name() };
    // Operations with tuple-shaped operands or results come first; all others map arrays to an array.
    match op {
        Op::While { condition, body } => {
            let state = rule.arrays(inputs)?;
            rule.while_state("condition parameters", &condition.parameter_shapes(), &state)?;
            rule.while_state("body parameters", &body.parameter_shapes(), &state)?;
            rule.while_state("body results", &body.output_shapes(), &state)?;
            let result = condition.output_shapes();
            rule.check(result == [&Shape::scalar(DType::Pred)], "a condition with result pred[]", || join(&result))?;
            return Ok(ValueShape::Tuple(state.into_iter().cloned().collect()));
        }
        Op::Scan(scan) => return scan.result_shapes(&rule.arrays(inputs)?).map(ValueShape::Tuple),
        Op::Composite(composite) => return composite.result_shape(&rule.arrays(inputs)?),
        Op::GetTupleElement { index } => {
            return match inputs {
                [ValueShape::Tuple(elements)] if *index < elements.len() => {
                    Ok(ValueShape::Array(elements[*index].clone()))
                }
                _ => {
                    let got: Vec<String> = inputs.iter().map(|shape| shape.to_string()).collect();
                    rule.refuse(format!("a tuple of more than {index} elements"), got.join(" and "))
                }
            };
        }
        Op::AllReduce { .. } | Op::AllGather { .. } if inputs.len() > 1 => {
            let operands = rule.arrays(inputs)?;
            // One reducer computation, of two scalars of one type, serves all operands.
            let same_type = operands.iter().all(|operand| operand.dtype == operands[0].dtype);
            rule.check(same_type || matches!(op, Op::AllGather { .. }), "operands of one type", || join(&operands))?;
            let results = operands.iter().map(|operand| rule.array(op, &[operand]));
            return Ok(ValueShape::Tuple(results.collect::<Result<_>>()?));
        }
        _ => {}
    }
    let inputs = rule.arrays(inputs)?;
    rule.array(op, &inputs).map(ValueShape::Array)
}

struct Rule {
    op: &'static str,
}

impl Rule {
    fn array(&self, op: &Op, inputs: &[&Shape]) -> Result<Shape> {
        use BinaryOp::*;
        use UnaryOp::*;
        match op {
            // ---- leaves ----
            Op::Parameter { shape, .. } => self.operands::<0>(inputs).map(|_| shape.clone()),
            Op::Constant(value) => self.operands::<0>(inputs).map(|_| value.shape().clone()),
            Op::Iota { shape, dimension } => {
                self.operands::<0>(inputs)?;
                self.check(*dimension < shape.rank(), "a dimension of its shape", || {
                    format!("{dimension} of {shape}")
                })?;
                self.check(shape.dtype != DType::Pred, "a numeric type", || shape.to_string())?;
                Ok(shape.clone())
            }

            // ---- elementwise, one operand ----
            Op::Unary(Abs | Negate | Sign) => self.unary(inputs, "a numeric operand", |d| d != DType::Pred),
            Op::Unary(Floor | Exp | Log | Log1p | Tanh | Sqrt | Rsqrt | Erf) => {
                self.unary(inputs, "a floating-point operand", DType::is_float)
            }
            Op::Unary(Not) => self.unary(inputs, "a pred or integer operand", |d| !d.is_float()),
            Op::Unary(IsFinite) => {
                Ok(self.unary(inputs, "a floating-point operand", DType::is_float)?.with_dtype(DType::Pred))
            }
            Op::Convert { dtype } => Ok(self.unary(inputs, "an array", |_| true)?.with_dtype(*dtype)),
            Op::BitcastConvert { dtype } => {
                let requires = "an operand whose elements have the size of the result's";
                Ok(self.unary(inputs, requires, |d| d.size() == dtype.size())?.with_dtype(*dtype))
            }

            // ---- elementwise, two operands ----
            Op::Binary(Add | Subtract | Multiply | Divide | Remainder | Maximum | Minimum) => {
                self.binary(inputs, "numeric operands", |d| d != DType::Pred)
            }
            Op::Binary(Power) => self.binary(inputs, "floating-point operands", DType::is_float),
            Op::Binary(And | Or | Xor) => self.binary(inputs, "pred or integer operands", |d| !d.is_float()),
            Op::Binary(ShiftLeft | ShiftRightLogical) => self.binary(inputs, "integer operands", DType::is_integer),

            // ---- compare and select ----
            Op::Compare { .. } => Ok(self.binary(inputs, "operands", |_| true)?.with_dtype(DType::Pred)),
            Op::Select => {
                let [predicate, on_true, on_false] = self.operands(inputs)?;
                let agree = on_true == on_false && *predicate == on_true.with_dtype(DType::Pred);
                self.check(agree, "a pred and two operands of equal shape", || join(inputs))?;
                Ok(on_true.clone())
            }

            // ---- shape ----
            Op::Reshape { dims } => {
                let [operand] = self.operands(inputs)?;
                let result = Shape::new(operand.dtype, dims.clone());
                self.check(operand.elements() == result.elements(), "as many elements as before", || {
                    format!("{operand} to {result}")
                })?;
                Ok(result)
            }
            Op::Transpose { permutation } => {
                let [operand] = self.operands(inputs)?;
                let mut sorted = permutation.clone();
                sorted.sort_unstable();
                self.check(sorted.into_iter().eq(0..operand.rank()), "a permutation of the dimensions", || {
                    format!("{permutation:?} of {operand}")
                })?;
                Ok(Shape::new(operand.dtype, permutation.iter().map(|&d| operand.dims[d]).collect::<Vec<_>>()))
            }
            Op::Broadcast { dims, broadcast_dimensions } => {
                let [operand] = self.operands(inputs)?;
                let fits = broadcast_dimensions.len() == operand.rank()
                    && broadcast_dimensions.is_sorted_by(|a, b| a < b)
                    && broadcast_dimensions.iter().zip(&operand.dims).all(|(&d, n)| dims.get(d) == Some(n));
                self.check(fits, "increasing dimensions of equal size, one for each of the operand's", || {
                    format!("{operand} to {dims:?} by {broadcast_dimensions:?}")
                })?;
                Ok(Shape::new(operand.dtype, dims.clone()))
            }
            Op::Concatenate { dimension } => self.concatenate(inputs, *dimension),
            Op::Slice { starts, limits, strides } => {
                let [operand] = self.operands(inputs)?;
                let rank = operand.rank();
                let fits = [starts.len(), limits.len(), strides.len()] == [rank; 3]
                    && (0..rank).all(|i| starts[i] <= limits[i] && limits[i] <= operand.dims[i] && strides[i] > 0);
                self.check(fits, "start ≤ limit ≤ size and a stride for every dimension", || {
                    format!("{starts:?}..{limits:?} by {strides:?} of {operand}")
                })?;
                let dims: Vec<usize> = (0..rank).map(|i| (limits[i] - starts[i]).div_ceil(strides[i])).collect();
                Ok(Shape::new(operand.dtype, dims))
            }
            Op::Pad { low, high, interior } => {
                let [operand, value] = self.operands(inputs)?;
                let rank = operand.rank();
                let fits =
                    *value == Shape::scalar(operand.dtype) && [low.len(), high.len(), interior.len()] == [rank; 3];
                self.check(fits, "a scalar of the operand's type and padding for every dimension", || {
                    format!("{} with low {low:?}, high {high:?}, interior {interior:?}", join(inputs))
                })?;
                let dims: Vec<usize> = (0..rank)
                    .map(|i| low[i] + operand.dims[i] + interior[i] * operand.dims[i].saturating_sub(1) + high[i])
                    .collect();
                Ok(Shape::new(operand.dtype, dims))
            }

            // ---- reduce ----
            Op::Reduce { reduction, dimensions } => {
                let [operand] = self.operands(inputs)?;
                self.increasing(dimensions, operand)?;
                self.reducible(*reduction, operand)?;
                let kept = (0..operand.rank()).filter(|d| !dimensions.contains(d)).map(|d| operand.dims[d]);
                Ok(Shape::new(operand.dtype, kept.collect::<Vec<_>>()))
            }

            // ---- dot ----
            Op::DotGeneral { dimensions, dtype } => {
                let [lhs, rhs] = self.operands(inputs)?;
                self.dot(lhs, rhs, dimensions, *dtype)
            }

            // ---- windows ----
            Op::Convolution(convolution) => {
                let [input, kernel] = self.operands(inputs)?;
                self.matched(convolution.result_shape(input, kernel))
            }
            Op::ReduceWindow { reduction, window } => {
                let [operand] = self.operands(inputs)?;
                self.reducible(*reduction, operand)?;
                self.matched(windows_shape(operand, window))
            }
            Op::SelectAndScatter { window } => {
                let [operand, source] = self.operands(inputs)?;
                self.matched(select_and_scatter_shape(operand, source, window))
            }
            Op::Reverse { dimensions } => {
                let [operand] = self.operands(inputs)?;
                self.increasing(dimensions, operand)?;
                Ok(operand.clone())
            }

            // ---- index ----
            Op::DynamicSlice { sizes } => {
                let (operand, starts) = self.with_starts(inputs, 1)?;
                let fits = sizes.len() == operand.rank() && sizes.iter().zip(&operand.dims).all(|(s, d)| s <= d);
                self.check(
                    fits && starts.len() == operand.rank(),
                    "a start and a fitting size for every dimension",
                    || format!("{sizes:?} with {} starts of {operand}", starts.len()),
                )?;
                Ok(Shape::new(operand.dtype, sizes.clone()))
            }
            Op::DynamicUpdateSlice => {
                let (operand, starts) = self.with_starts(inputs, 2)?;
                let update = inputs[1];
                let fits = update.dtype == operand.dtype
                    && update.rank() == operand.rank()
                    && update.dims.iter().zip(&operand.dims).all(|(u, d)| u <= d);
                self.check(
                    fits && starts.len() == operand.rank(),
                    "an update that fits and a start for every dimension",
                    || join(inputs),
                )?;
                Ok(operand.clone())
            }
            Op::Gather(dimensions) => {
                let [operand, indices] = self.operands(inputs)?;
                self.gather(operand, indices, dimensions)
            }
            Op::ScatterAdd(dimensions) => {
                let [operand, indices, updates] = self.operands(inputs)?;
                self.scatter(operand, indices, updates, dimensions)
            }

            // ---- control ----
            Op::While { .. } | Op::Scan(_) | Op::Composite(_) | Op::GetTupleElement { .. } => {
                unreachable!("tuples are handled before arrays")
            }
            Op::OptimizationBarrier => match inputs {
                [first, ..] => Ok((*first).clone()),
                [] => self.refuse("at least 1 operand", "none".to_owned()),
            },
            Op::StopGradient => self.unary(inputs, "an array", |_| true),

            // ---- collective ----
            Op::ReplicaId => self.operands::<0>(inputs).map(|_| Shape::scalar(DType::U32)),
            Op::AllReduce { reduction } => {
                let [operand] = self.operands(inputs)?;
                self.reducible(*reduction, operand)?;
                Ok(operand.clone())
            }
            Op::AllGather { dimension, replicas } => {
                let [operand] = self.operands(inputs)?;
                self.check(*dimension < operand.rank() && *replicas > 0, "a dimension of the operand", || {
                    format!("{dimension} of {operand} over {replicas} replicas")
                })?;
                let mut result = operand.clone();
                result.dims[*dimension] *= replicas;
                Ok(result)
            }
            Op::ReduceScatter { dimension, replicas } => {
                let [operand] = self.operands(inputs)?;
                let fits = *replicas > 0 && operand.dims.get(*dimension).is_some_and(|d| d % replicas == 0);
                self.check(fits, "a dimension that the replicas divide", || {
                    format!("{dimension} of {operand} over {replicas} replicas")
                })?;
                let mut result = operand.clone();
                result.dims[*dimension] /= replicas;
                Ok(result)
            }
        }
    }

    fn concatenate(&self, inputs: &[&Shape], dimension: usize) -> Result<Shape> {
        let requires = "operands of one type that differ in the concatenated dimension only";
        let got = || format!("{} along {dimension}", join(inputs));
        let Some(first) = inputs.first() else { return self.refuse(requires, "none") };
        self.check(dimension < first.rank(), requires, got)?;
        let mut result = (*first).clone();
        for other in &inputs[1..] {
            let mut same = (*other).clone();
            if same.rank() == first.rank() {
                same.dims[dimension] = first.dims[dimension];
            }
            self.check(same == **first, requires, got)?;
            result.dims[dimension] += other.dims[dimension];
        }
        Ok(result)
    }

    fn dot(&self, lhs: &Shape, rhs: &Shape, d: &DotDimensions, dtype: DType) -> Result<Shape> {
        let got = || format!("{lhs} and {rhs} with {d}");
        self.check(lhs.dtype == rhs.dtype && lhs.dtype != DType::Pred, "numeric operands of one type", got)?;
        let within = |batch: &[usize], contracting: &[usize], shape: &Shape| {
            let mut all = [batch, contracting].concat();
            all.sort_unstable();
            all.is_sorted_by(|a, b| a < b) && all.iter().all(|&i| i < shape.rank())
        };
        let distinct = within(&d.lhs_batch, &d.lhs_contracting, lhs) && within(&d.rhs_batch, &d.rhs_contracting, rhs);
        self.check(distinct, "batch and contracting dimensions that are distinct and exist", got)?;
        let paired =
            |l: &[usize], r: &[usize]| l.len() == r.len() && l.iter().zip(r).all(|(&i, &j)| lhs.dims[i] == rhs.dims[j]);
        self.check(paired(&d.lhs_batch, &d.rhs_batch), "batch dimensions of equal size", got)?;
        self.check(paired(&d.lhs_contracting, &d.rhs_contracting), "contracting dimensions of equal size", got)?;
        let free = |shape: &Shape, batch: &[usize], contracting: &[usize]| -> Vec<usize> {
            let bound = |i: &usize| batch.contains(i) || contracting.contains(i);
            (0..shape.rank()).filter(|i| !bound(i)).map(|i| shape.dims[i]).collect()
        };
        let batch: Vec<usize> = d.lhs_batch.iter().map(|&i| lhs.dims[i]).collect();
        let lhs_free = free(lhs, &d.lhs_batch, &d.lhs_contracting);
        let rhs_free = free(rhs, &d.rhs_batch, &d.rhs_contracting);
        Ok(Shape::new(dtype, [batch, lhs_free, rhs_free].concat()))
    }

    fn gather(&self, operand: &Shape, indices: &Shape, d: &GatherDimensions) -> Result<Shape> {
        let got = || format!("{operand} at {indices} with {d}");
        self.index_vectors(indices, d.index_vector_dim, &d.start_index_map, operand, got)?;
        let sliced = d.slice_sizes.len() == operand.rank()
            && d.slice_sizes.iter().zip(&operand.dims).all(|(s, n)| s <= n)
            && d.collapsed_slice_dims.is_sorted_by(|a, b| a < b)
            && d.collapsed_slice_dims.iter().all(|&i| d.slice_sizes.get(i) == Some(&1));
        self.check(sliced, "a fitting slice size for every dimension, 1 where collapsed", got)?;
        let window = (0..operand.rank()).filter(|i| !d.collapsed_slice_dims.contains(i)).map(|i| d.slice_sizes[i]);
        let batch = batch_dims(indices, d.index_vector_dim);
        let dims = interleave(&d.offset_dims, window.collect(), batch);
        match dims {
            Some(dims) => Ok(Shape::new(operand.dtype, dims)),
            None => self.refuse("one increasing offset dimension for each dimension of the slice", got()),
        }
    }

    fn scatter(&self, operand: &Shape, indices: &Shape, updates: &Shape, d: &ScatterDimensions) -> Result<Shape> {
        let got = || format!("{updates} into {operand} at {indices} with {d}");
        self.index_vectors(indices, d.index_vector_dim, &d.scatter_dims_to_operand_dims, operand, got)?;
        self.check(
            operand.dtype == updates.dtype && operand.dtype != DType::Pred,
            "numeric operands of one type",
            got,
        )?;
        let inserted = d.inserted_window_dims.is_sorted_by(|a, b| a < b)
            && d.inserted_window_dims.iter().all(|&i| i < operand.rank());
        self.check(inserted, "increasing inserted dimensions of the operand", got)?;
        let window: Vec<usize> =
            d.update_window_dims.iter().map(|&i| updates.dims.get(i).copied().unwrap_or(0)).collect();
        let sizes: Vec<usize> =
            (0..operand.rank()).filter(|i| !d.inserted_window_dims.contains(i)).map(|i| operand.dims[i]).collect();
        let fits = window.len() == sizes.len() && window.iter().zip(&sizes).all(|(w, size)| w <= size);
        let expected = interleave(&d.update_window_dims, window, batch_dims(indices, d.index_vector_dim));
        self.check(
            fits && expected.as_ref() == Some(&updates.dims),
            "updates of the indices' and the window's size",
            got,
        )?;
        Ok(operand.clone())
    }

    /// Checks the s32 or u32 index vectors of gather and scatter: one component for each element of `map`.
    fn index_vectors(
        &self,
        indices: &Shape,
        index_vector_dim: usize,
        map: &[usize],
        operand: &Shape,
        got: impl Fn() -> String,
    ) -> Result<()> {
        self.check(matches!(indices.dtype, DType::S32 | DType::U32), "s32 or u32 indices", &got)?;
        let components = indices.dims.get(index_vector_dim).copied().unwrap_or(1);
        let in_rank = map.iter().all(|&i| i < operand.rank());
        let fits = index_vector_dim <= indices.rank() && components == map.len() && in_rank;
        self.check(fits, "index vectors with a component for each mapped dimension", got)
    }

    /// Returns the operand of a dynamic slice, and the scalar s32 starts that follow the first `arrays` operands.
    fn with_starts<'s>(&self, inputs: &[&'s Shape], arrays: usize) -> Result<(&'s Shape, Vec<&'s Shape>)> {
        self.check(inputs.len() >= arrays, "its array operands", || join(inputs))?;
        let starts = inputs[arrays..].to_vec();
        self.check(starts.iter().all(|s| **s == Shape::scalar(DType::S32)), "starts of shape s32[]", || join(&starts))?;
        Ok((inputs[0], starts))
    }

    fn reducible(&self, reduction: super::Reduction, operand: &Shape) -> Result<()> {
        use super::Reduction::*;
        let pred = operand.dtype == DType::Pred;
        let fits = match reduction {
            Sum | Max | Min => !pred,
            And | Or => !operand.dtype.is_float(),
        };
        self.check(fits, "a numeric operand for sum, max and min, a pred or integer operand for and and or", || {
            format!("{reduction} of {operand}")
        })
    }

    fn increasing(&self, dimensions: &[usize], operand: &Shape) -> Result<()> {
        let valid = dimensions.is_sorted_by(|a, b| a < b) && dimensions.iter().all(|&d| d < operand.rank());
        self.check(valid, "increasing dimensions of the operand", || format!("{dimensions:?} of {operand}"))
    }

    fn matched(&self, shape: Result<Shape, Mismatch>) -> Result<Shape> {
        shape.or_else(|(requires, got)| self.refuse(requires, got))
    }

    fn unary(&self, inputs: &[&Shape], requires: &str, allowed: impl Fn(DType) -> bool) -> Result<Shape> {
        let [operand] = self.operands(inputs)?;
        self.check(allowed(operand.dtype), requires, || operand.to_string())?;
        Ok(operand.clone())
    }

    fn binary(&self, inputs: &[&Shape], requires: &str, allowed: impl Fn(DType) -> bool) -> Result<Shape> {
        let [lhs, rhs] = self.operands(inputs)?;
        self.check(lhs == rhs, "operands of equal shape", || join(inputs))?;
        self.check(allowed(lhs.dtype), requires, || join(inputs))?;
        Ok(lhs.clone())
    }

    fn operands<'s, const N: usize>(&self, inputs: &[&'s Shape]) -> Result<[&'s Shape; N]> {
        let Ok(operands) = <[&Shape; N]>::try_from(inputs.to_vec()) else {
            return self.refuse(format!("{N} operands"), join(inputs));
        };
        Ok(operands)
    }

    fn arrays<'s>(&self, inputs: &[&'s ValueShape]) -> Result<Vec<&'s Shape>> {
        let array = |shape: &&'s ValueShape| match shape {
            ValueShape::Array(shape) => Ok(shape),
            ValueShape::Tuple(elements) => self.refuse("arrays", format!("a tuple of {} elements", elements.len())),
        };
        inputs.iter().map(array).collect()
    }

    fn while_state(&self, what: &str, found: &[&Shape], state: &[&Shape]) -> Result<()> {
        self.check(found == state, &format!("{what} of the initial state's shapes ({})", join(state)), || join(found))
    }

    fn check(&self, holds: bool, requires: &str, got: impl FnOnce() -> String) -> Result<()> {
        if holds { Ok(()) } else { self.refuse(requires, got()) }
    }

    fn refuse<T>(&self, requires: impl Into<String>, got: impl Into<String>) -> Result<T> {
        Err(ShapeError { op: self.op, requires: requires.into(), got: got.into() })
    }
}

/// Returns the dimensions of `indices` without the one that holds the index vectors.
fn batch_dims(indices: &Shape, index_vector_dim: usize) -> Vec<usize> {
    (0..indices.rank()).filter(|&i| i != index_vector_dim).map(|i| indices.dims[i]).collect()
}

/// Places `window` sizes at the positions `at` and `batch` sizes at the others. Returns None if the positions are not
/// strictly increasing, out of range, or not one for each window size.
fn interleave(at: &[usize], window: Vec<usize>, batch: Vec<usize>) -> Option<Vec<usize>> {
    let rank = window.len() + batch.len();
    let valid = at.len() == window.len() && at.is_sorted_by(|a, b| a < b) && at.iter().all(|&i| i < rank);
    let (mut window, mut batch) = (window.into_iter(), batch.into_iter());
    valid.then(|| (0..rank).filter_map(|i| if at.contains(&i) { window.next() } else { batch.next() }).collect())
}

fn join(shapes: &[&Shape]) -> String {
    match shapes {
        [] => "none".to_string(),
        _ => shapes.iter().map(|s| s.to_string()).collect::<Vec<_>>().join(" and "),
    }
}

#[cfg(test)]
mod tests;
