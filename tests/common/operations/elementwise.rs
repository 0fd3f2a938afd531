//! Cases of elementwise operations, constants and iotas.

use lambert::shape::{DType, HostTensor, Shape};

use super::{Case, any_bits, case, uniform, values};

const FLOATS: [DType; 4] = [DType::F32, DType::BF16, DType::F16, DType::F64];
const INTEGERS: [DType; 5] = [DType::S32, DType::U32, DType::U64, DType::U8, DType::U16];

pub fn cases() -> Vec<Case> {
    let mut cases = vec![leaves(), predicates(), is_finite(), convert_some().golden(), convert_all(), bitcasts()];
    for dtype in FLOATS {
        cases.extend([float_unary(dtype), float_binary(dtype), compare_and_select(dtype)]);
    }
    for dtype in INTEGERS {
        cases.extend([integer_binary(dtype), integer_shifts(dtype), compare_and_select(dtype)]);
    }
    for case in &mut cases {
        case.golden |= case.name.ends_with("/f32") || case.name.ends_with("/u32") || !case.name.contains('/');
    }
    cases
}

fn leaves() -> Case {
    case("leaves", vec![uniform(1, DType::F32, &[2, 3], -1.0, 1.0)], |g, x| {
        let mut outputs = vec![x[0]];
        for dtype in DType::ALL {
            outputs.push(g.constant(HostTensor::from_f64(Shape::new(dtype, [2, 2]), &[0.0, 1.0, 1.0, 0.0])));
            if dtype != DType::Pred {
                outputs.push(g.iota(Shape::new(dtype, [2, 3]), 1));
            }
        }
        outputs.push(g.iota(Shape::new(DType::S32, [2, 3]), 0));
        outputs
    })
}

fn float_unary(dtype: DType) -> Case {
    let any = uniform(2, dtype, &[3, 5], -3.0, 3.0);
    let positive = uniform(3, dtype, &[3, 5], 0.1, 4.0);
    case(format!("float-unary/{dtype}"), vec![any, positive], |_, x| {
        let (any, positive) = (x[0], x[1]);
        vec![
            any.abs(),
            -any,
            any.sign(),
            any.floor(),
            any.exp(),
            positive.log(),
            positive.log1p(),
            any.tanh(),
            positive.sqrt(),
            positive.rsqrt(),
            any.erf(),
        ]
    })
}

fn float_binary(dtype: DType) -> Case {
    let x = uniform(4, dtype, &[3, 5], -3.0, 3.0);
    let y = uniform(5, dtype, &[3, 5], 0.5, 2.0);
    case(format!("float-binary/{dtype}"), vec![x, y], |_, x| {
        let (x, y) = (x[0], x[1]);
        vec![x + y, x - y, x * y, x / y, x.rem(y), y.pow(x), x.maximum(y), x.minimum(y)]
    })
}

/// Sums, differences and products that wrap around; some divisors are zero.
fn integer_binary(dtype: DType) -> Case {
    let x = any_bits(6, dtype, &[4, 8]);
    let y = any_bits(7, dtype, &[4, 8]);
    let z = uniform(8, dtype, &[4, 8], 0.0, 4.0);
    case(format!("integer-binary/{dtype}"), vec![x, y, z], |_, x| {
        let (x, y, z) = (x[0], x[1], x[2]);
        let mut outputs = vec![x + y, x - y, x * y, x / y, x / z, x.rem(y), x.rem(z), x.maximum(y), x.minimum(y)];
        outputs.extend([x.and(y), x.or(y), x.xor(y), x.not()]);
        if dtype == DType::S32 {
            outputs.extend([x.abs(), -x, x.sign()]);
        }
        outputs
    })
}

/// Shifts by zero, some, all and more than all bits.
fn integer_shifts(dtype: DType) -> Case {
    let width = 8.0 * dtype.size() as f64;
    let x = any_bits(9, dtype, &[6]);
    let counts = values(dtype, &[0.0, 1.0, 5.0, width - 1.0, width, width + 3.0]);
    case(format!("integer-shifts/{dtype}"), vec![x, counts], |_, x| {
        vec![x[0].shift_left(x[1]), x[0].shift_right_logical(x[1])]
    })
}

fn predicates() -> Case {
    case("predicates", vec![any_bits(10, DType::Pred, &[16]), any_bits(11, DType::Pred, &[16])], |_, x| {
        let (x, y) = (x[0], x[1]);
        vec![x.and(y), x.or(y), x.xor(y), x.not(), x.eq(y), x.ne(y), x.select(y, x.not())]
    })
}

fn is_finite() -> Case {
    let x = values(DType::F32, &[0.0, -1.5, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 3e38]);
    case("is-finite", vec![x], |_, x| vec![x[0].is_finite()])
}

fn compare_and_select(dtype: DType) -> Case {
    let x = uniform(12, dtype, &[3, 5], 0.0, 4.0);
    let mut y = x.to_f64();
    y.iter_mut().step_by(2).for_each(|y| *y = (*y + 1.0).floor());
    if dtype.is_float() {
        y[3] = f64::NAN;
    }
    let y = HostTensor::from_f64(x.shape().clone(), &y);
    case(format!("compare-and-select/{dtype}"), vec![x, y], |_, x| {
        let (x, y) = (x[0], x[1]);
        vec![x.eq(y), x.ne(y), x.lt(y), x.le(y), x.gt(y), x.ge(y), x.lt(y).select(x, y)]
    })
}

fn convert_some() -> Case {
    case("convert", vec![values(DType::F32, &[-2.75, -0.5, 0.0, 0.25, 1.75, 200.0])], |_, x| {
        vec![x[0].convert(DType::BF16), x[0].convert(DType::S32), x[0].convert(DType::BF16).convert(DType::F32)]
    })
}

/// Conversions from every type to every other.
fn convert_all() -> Case {
    let arguments = DType::ALL.map(|dtype| uniform(13, dtype, &[9], 0.0, 5.0)).to_vec();
    case("convert/all", arguments, |_, x| {
        let pairs = x.iter().flat_map(|&x| DType::ALL.map(|dtype| (x, dtype)));
        pairs.filter(|(x, dtype)| x.dtype() != *dtype).map(|(x, dtype)| x.convert(dtype)).collect()
    })
}

fn bitcasts() -> Case {
    let pairs = [
        (DType::F32, DType::U32),
        (DType::F32, DType::S32),
        (DType::F64, DType::U64),
        (DType::BF16, DType::U16),
        (DType::F16, DType::U16),
    ];
    let arguments = pairs.iter().map(|&(float, _)| uniform(14, float, &[7], -9.0, 9.0)).collect();
    case("bitcast-convert", arguments, |_, x| {
        let there = x.iter().zip(pairs).map(|(x, (_, integer))| x.bitcast_convert(integer));
        let and_back = x.iter().zip(pairs).map(|(x, (float, integer))| {
            let bits = x.bitcast_convert(integer);
            bits.xor(bits.filled(1.0)).bitcast_convert(float)
        });
        there.chain(and_back).collect()
    })
}
