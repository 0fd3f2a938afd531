//! The evaluation of elementwise operations.

use std::f64::consts::PI;

use super::value::{Data, Value, width, wrap};
use crate::graph::{BinaryOp, Comparison, Reduction, UnaryOp};
use crate::shape::DType;

/// Applies an operation of one operand.
pub(super) fn unary(op: UnaryOp, x: &Value) -> Value {
    let shape = x.shape().clone();
    match x.data() {
        Data::Float(elements) => {
            if op == UnaryOp::IsFinite {
                let finite = elements.iter().map(|x| x.is_finite() as i128).collect();
                return Value::new(shape.with_dtype(DType::Pred), Data::Integer(finite));
            }
            let f: fn(f64) -> f64 = match op {
                UnaryOp::Abs => f64::abs,
                UnaryOp::Negate => |x| -x,
                UnaryOp::Sign => |x| if x == 0.0 || x.is_nan() { x } else { x.signum() },
                UnaryOp::Floor => f64::floor,
                UnaryOp::Exp => f64::exp,
                UnaryOp::Log => f64::ln,
                UnaryOp::Log1p => f64::ln_1p,
                UnaryOp::Tanh => f64::tanh,
                UnaryOp::Sqrt => f64::sqrt,
                UnaryOp::Rsqrt => |x| 1.0 / x.sqrt(),
                UnaryOp::Erf => erf,
                UnaryOp::Not | UnaryOp::IsFinite => unsupported(op.name(), shape.dtype),
            };
            Value::new(shape, Data::Float(elements.iter().map(|&x| f(x)).collect()))
        }
        Data::Integer(elements) => {
            let f: fn(i128) -> i128 = match op {
                UnaryOp::Abs => i128::abs,
                UnaryOp::Negate => |x| -x,
                UnaryOp::Sign => i128::signum,
                UnaryOp::Not => |x| !x,
                UnaryOp::Floor
                | UnaryOp::Exp
                | UnaryOp::Log
                | UnaryOp::Log1p
                | UnaryOp::Tanh
                | UnaryOp::Sqrt
                | UnaryOp::Rsqrt
                | UnaryOp::Erf
                | UnaryOp::IsFinite => unsupported(op.name(), shape.dtype),
            };
            let results = elements.iter().map(|&x| wrap(shape.dtype, f(x))).collect();
            Value::new(shape, Data::Integer(results))
        }
    }
}

/// Converts to another element type: the identity between floats; float to integer truncates and saturates, as Rust's
/// `as` does; anything to pred tests for non-zero.
pub(super) fn convert(x: &Value, dtype: DType) -> Value {
    let data = match x.data() {
        Data::Float(elements) if dtype.is_float() => Data::Float(elements.clone()),
        Data::Float(elements) if dtype == DType::Pred => {
            Data::Integer(elements.iter().map(|&x| (x != 0.0) as i128).collect())
        }
        Data::Float(elements) => {
            let saturate = |x: f64| match dtype {
                DType::U8 => x as u8 as i128,
                DType::U16 => x as u16 as i128,
                DType::S32 => x as i32 as i128,
                DType::U32 => x as u32 as i128,
                _ => x as u64 as i128,
            };
            Data::Integer(elements.iter().map(|&x| saturate(x)).collect())
        }
        Data::Integer(elements) if dtype.is_float() => Data::Float(elements.iter().map(|&x| x as f64).collect()),
        Data::Integer(elements) if dtype == DType::Pred => {
            Data::Integer(elements.iter().map(|&x| (x != 0) as i128).collect())
        }
        Data::Integer(elements) => Data::Integer(elements.iter().map(|&x| wrap(dtype, x)).collect()),
    };
    Value::new(x.shape().with_dtype(dtype), data)
}

/// Applies an operation of two operands of equal shape.
pub(super) fn binary(op: BinaryOp, x: &Value, y: &Value) -> Value {
    let shape = x.shape().clone();
    let data = match (x.data(), y.data()) {
        (Data::Float(x), Data::Float(y)) => {
            let f: fn(f64, f64) -> f64 = match op {
                BinaryOp::Add => |x, y| x + y,
                BinaryOp::Subtract => |x, y| x - y,
                BinaryOp::Multiply => |x, y| x * y,
                BinaryOp::Divide => |x, y| x / y,
                BinaryOp::Remainder => |x, y| x % y,
                BinaryOp::Power => f64::powf,
                BinaryOp::Maximum => maximum,
                BinaryOp::Minimum => |x, y| -maximum(-x, -y),
                BinaryOp::And | BinaryOp::Or | BinaryOp::Xor | BinaryOp::ShiftLeft | BinaryOp::ShiftRightLogical => {
                    unsupported(op.name(), shape.dtype)
                }
            };
            Data::Float(x.iter().zip(y).map(|(&x, &y)| f(x, y)).collect())
        }
        (Data::Integer(x), Data::Integer(y)) => {
            let width = width(shape.dtype);
            let mask = (1i128 << width) - 1;
            let f: &dyn Fn(i128, i128) -> i128 = match op {
                BinaryOp::Add => &|x, y| x + y,
                BinaryOp::Subtract => &|x, y| x - y,
                BinaryOp::Multiply => &i128::wrapping_mul,
                // HLO defines the quotient of a division by zero as all ones and the remainder as the dividend.
                BinaryOp::Divide => &|x, y| if y == 0 { -1 } else { x / y },
                BinaryOp::Remainder => &|x, y| if y == 0 { x } else { x % y },
                BinaryOp::Maximum => &i128::max,
                BinaryOp::Minimum => &i128::min,
                BinaryOp::And => &|x, y| x & y,
                BinaryOp::Or => &|x, y| x | y,
                BinaryOp::Xor => &|x, y| x ^ y,
                // HLO defines a shift by the width or more as 0. A negative count is a large unsigned count.
                BinaryOp::ShiftLeft => &|x, y| if (0..width as i128).contains(&y) { x << y } else { 0 },
                BinaryOp::ShiftRightLogical => {
                    &|x, y| if (0..width as i128).contains(&y) { (x & mask) >> y } else { 0 }
                }
                BinaryOp::Power => unsupported(op.name(), shape.dtype),
            };
            Data::Integer(x.iter().zip(y).map(|(&x, &y)| wrap(shape.dtype, f(x, y))).collect())
        }
        _ => unsupported(op.name(), shape.dtype),
    };
    Value::new(shape, data)
}

pub(super) fn compare(direction: Comparison, x: &Value, y: &Value) -> Value {
    fn all<T: PartialOrd>(direction: Comparison, x: &[T], y: &[T]) -> Vec<i128> {
        let holds: fn(&T, &T) -> bool = match direction {
            Comparison::Eq => |x, y| x == y,
            Comparison::Ne => |x, y| x != y,
            Comparison::Lt => |x, y| x < y,
            Comparison::Le => |x, y| x <= y,
            Comparison::Gt => |x, y| x > y,
            Comparison::Ge => |x, y| x >= y,
        };
        x.iter().zip(y).map(|(x, y)| holds(x, y) as i128).collect()
    }
    let results = match (x.data(), y.data()) {
        (Data::Float(x), Data::Float(y)) => all(direction, x, y),
        (Data::Integer(x), Data::Integer(y)) => all(direction, x, y),
        _ => unsupported("compare", x.shape().dtype),
    };
    Value::new(x.shape().with_dtype(DType::Pred), Data::Integer(results))
}

pub(super) fn select(predicate: &Value, on_true: &Value, on_false: &Value) -> Value {
    fn choose<T: Copy>(predicate: &[i128], on_true: &[T], on_false: &[T]) -> Vec<T> {
        let pairs = on_true.iter().zip(on_false);
        predicate.iter().zip(pairs).map(|(&p, (&t, &f))| if p != 0 { t } else { f }).collect()
    }
    let predicate = predicate.integers();
    let data = match (on_true.data(), on_false.data()) {
        (Data::Float(t), Data::Float(f)) => Data::Float(choose(predicate, t, f)),
        (Data::Integer(t), Data::Integer(f)) => Data::Integer(choose(predicate, t, f)),
        _ => unsupported("select", on_true.shape().dtype),
    };
    Value::new(on_true.shape().clone(), data)
}

/// Returns the binary operation of a reduction.
pub(super) fn reducer(reduction: Reduction) -> BinaryOp {
    match reduction {
        Reduction::Sum => BinaryOp::Add,
        Reduction::Max => BinaryOp::Maximum,
        Reduction::Min => BinaryOp::Minimum,
        Reduction::And => BinaryOp::And,
        Reduction::Or => BinaryOp::Or,
    }
}

/// Returns the larger value; NaN if either is, unlike `f64::max`.
pub(super) fn maximum(x: f64, y: f64) -> f64 {
    if x.is_nan() || y.is_nan() { f64::NAN } else { x.max(y) }
}

/// Computes the error function to about 10⁻¹⁵ by the series 2/√π · exp(−x²) · Σ 2ⁿ x²ⁿ⁺¹ / (2n+1)!! (DLMF 7.6.2), whose
/// terms have one sign. From |x| = 6 on, |erf x| is 1 in f64.
fn erf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x.abs() >= 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-17 * sum.abs() {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    2.0 / PI.sqrt() * (-x * x).exp() * sum
}

fn unsupported(op: &str, dtype: DType) -> ! {
    unreachable!("the shape rule of {op} excludes {dtype} operands")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference values are from NIST's Digital Library of Mathematical Functions and Abramowitz & Stegun, table 7.1.
    #[test]
    fn erf_matches_tabulated_values() {
        for (x, expected) in [
            (0.0, 0.0),
            (0.1, 0.112_462_916_018_284_9),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (3.0, 0.999_977_909_503_001_4),
        ] {
            assert!((erf(x) - expected).abs() < 1e-15, "erf({x}) = {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
    }
}
