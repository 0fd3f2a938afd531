//! The shape rule of every operation: what it requires of its operands and what it then yields.
//!
//! Every refusal is one sentence of one form, "*op* requires …, got …", with the offending shapes or numbers.

use super::{DotDimensions, GatherDimensions, Op, ScatterDimensions, ValueShape};
use crate::shape::{DType, Shape};

/// An operation was applied to operands that break its shape rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{op} requires {requires}, got {got}")]
pub struct ShapeError {
    pub op: &'static str,
    pub requires: String,
    pub got: String,
}

type Result<T> = std::result::Result<T, ShapeError>;

/// The shape of `op` applied to operands of the shapes `inputs`.
pub(super) fn shape(op: &Op, inputs: &[&ValueShape]) -> Result<ValueShape> {
    let rule = Rule { op: op.name() };
    // The two operations that tuples touch come first; all others take arrays and yield an array.
    match op {
        Op::While { condition, body } => {
            let state = rule.arrays(inputs)?;
            rule.while_state("condition parameters", &condition.parameter_shapes(), &state)?;
            rule.while_state("body parameters", &body.parameter_shapes(), &state)?;
            rule.while_state("body results", &body.output_shapes(), &state)?;
            let answer = condition.output_shapes();
            rule.check(answer == [&Shape::scalar(DType::Pred)], "a condition that yields pred[]", || join(&answer))?;
            return Ok(ValueShape::Tuple(state.into_iter().cloned().collect()));
        }
        Op::GetTupleElement { index } => {
            return match inputs {
                [ValueShape::Tuple(elements)] if *index < elements.len() => {
                    Ok(ValueShape::Array(elements[*index].clone()))
                }
                _ => rule.refuse(format!("a tuple of more than {index} elements"), format!("{inputs:?}")),
            };
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
            Op::Abs | Op::Negate | Op::Sign => self.unary(inputs, "a numeric operand", |d| d != DType::Pred),
            Op::Floor | Op::Exp | Op::Log | Op::Log1p | Op::Tanh | Op::Sqrt | Op::Rsqrt | Op::Erf => {
                self.unary(inputs, "a floating-point operand", DType::is_float)
            }
            Op::Not => self.unary(inputs, "a pred or integer operand", |d| !d.is_float()),
            Op::IsFinite => {
                Ok(self.unary(inputs, "a floating-point operand", DType::is_float)?.with_dtype(DType::Pred))
            }
            Op::Convert { dtype } => Ok(self.unary(inputs, "an array", |_| true)?.with_dtype(*dtype)),
            Op::BitcastConvert { dtype } => {
                let requires = "an operand whose elements have the size of the result's";
                Ok(self.unary(inputs, requires, |d| d.size() == dtype.size())?.with_dtype(*dtype))
            }

            // ---- elementwise, two operands ----
            Op::Add | Op::Multiply | Op::Subtract | Op::Divide | Op::Remainder | Op::Maximum | Op::Minimum => {
                self.binary(inputs, "numeric operands", |d| d != DType::Pred)
            }
            Op::Power => self.binary(inputs, "floating-point operands", DType::is_float),
            Op::And | Op::Or | Op::Xor => self.binary(inputs, "pred or integer operands", |d| !d.is_float()),
            Op::ShiftLeft | Op::ShiftRightLogical => self.binary(inputs, "integer operands", DType::is_integer),

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
                let known = dimensions.is_sorted_by(|a, b| a < b) && dimensions.iter().all(|&d| d < operand.rank());
                self.check(known, "increasing dimensions of the operand", || format!("{dimensions:?} of {operand}"))?;
                self.reducible(*reduction, operand)?;
                let kept = (0..operand.rank()).filter(|d| !dimensions.contains(d)).map(|d| operand.dims[d]);
                Ok(Shape::new(operand.dtype, kept.collect::<Vec<_>>()))
            }

            // ---- dot ----
            Op::DotGeneral { dimensions, dtype } => {
                let [lhs, rhs] = self.operands(inputs)?;
                self.dot(lhs, rhs, dimensions, *dtype)
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
            Op::While { .. } | Op::GetTupleElement { .. } => unreachable!("tuples are handled before arrays"),
            Op::OptimizationBarrier | Op::StopGradient => self.unary(inputs, "an array", |_| true),

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
        let got = || format!("{lhs} and {rhs} with {d:?}");
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
        let got = || format!("{operand} at {indices} with {d:?}");
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
        let got = || format!("{updates} into {operand} at {indices} with {d:?}");
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
        let room: Vec<usize> =
            (0..operand.rank()).filter(|i| !d.inserted_window_dims.contains(i)).map(|i| operand.dims[i]).collect();
        let fits = window.len() == room.len() && window.iter().zip(&room).all(|(w, r)| w <= r);
        let expected = interleave(&d.update_window_dims, window, batch_dims(indices, d.index_vector_dim));
        self.check(
            fits && expected.as_ref() == Some(&updates.dims),
            "updates of the indices' and the window's size",
            got,
        )?;
        Ok(operand.clone())
    }

    /// The s32 (or u32) index vectors of gather and scatter: one component for each entry of `map`.
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
        let known = map.iter().all(|&i| i < operand.rank());
        let fits = index_vector_dim <= indices.rank() && components == map.len() && known;
        self.check(fits, "index vectors with a component for each mapped dimension", got)
    }

    /// The operand of a dynamic slice, and its scalar s32 starts behind the first `arrays` operands.
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
        self.check(fits, "numbers for sum, max and min, or pred and integers for and, or", || {
            format!("{reduction:?} of {operand}")
        })
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

/// The dimensions of `indices` without the one that holds the index vectors.
fn batch_dims(indices: &Shape, index_vector_dim: usize) -> Vec<usize> {
    (0..indices.rank()).filter(|&i| i != index_vector_dim).map(|i| indices.dims[i]).collect()
}

/// Puts `window` sizes at the (increasing) positions `at` and `batch` sizes at the others; None if the positions are not
/// increasing, out of range, or not one for each window size.
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
