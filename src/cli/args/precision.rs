//! The values of `--precision`.

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::task::Precision;

impl ValueEnum for Precision {
    fn value_variants<'a>() -> &'a [Self] {
        &[Precision::F32, Precision::Bf16, Precision::F64]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Precision::F32 => PossibleValue::new("f32").help("All values in f32"),
            Precision::Bf16 => {
                PossibleValue::new("bf16").help("Matmul inputs in bf16, accumulation and weights in f32")
            }
            Precision::F64 => PossibleValue::new("f64").help("All values in f64, where the device supports it"),
        })
    }
}
