//! The fraction of tokens that is masked in a phase.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

/// The fraction of tokens that is masked in a phase: a number, or `{ from, to }`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum MaskingRate {
    /// The same fraction in the whole phase.
    Constant(f64),
    /// A fraction that changes linearly with the examples of the phase.
    Ramp {
        /// The fraction in the first example.
        from: f64,
        /// The fraction behind the last example.
        to: f64,
    },
}

impl MaskingRate {
    /// Returns the fraction in the first example, and that behind the last one if it differs.
    pub fn ends(self) -> (f64, Option<f64>) {
        match self {
            MaskingRate::Constant(rate) => (rate, None),
            MaskingRate::Ramp { from, to } => (from, Some(to)),
        }
    }
}

/// Describes the fraction: `30 %`, or `30 % to 15 %`.
impl fmt::Display for MaskingRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ends() {
            (rate, None) => write!(f, "{:.0} %", 100.0 * rate),
            (from, Some(to)) => write!(f, "{:.0} % to {:.0} %", 100.0 * from, 100.0 * to),
        }
    }
}

/// Reads a number or a table. An untagged enum would not say which key of the table is wrong.
impl<'de> Deserialize<'de> for MaskingRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrTable)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    from: f64,
    to: f64,
}

struct NumberOrTable;

impl<'de> Visitor<'de> for NumberOrTable {
    type Value = MaskingRate;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, or { from, to }")
    }

    fn visit_f64<E>(self, rate: f64) -> Result<MaskingRate, E> {
        Ok(MaskingRate::Constant(rate))
    }

    fn visit_i64<E>(self, rate: i64) -> Result<MaskingRate, E> {
        Ok(MaskingRate::Constant(rate as f64))
    }

    fn visit_u64<E>(self, rate: u64) -> Result<MaskingRate, E> {
        Ok(MaskingRate::Constant(rate as f64))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<MaskingRate, A::Error> {
        let Table { from, to } = Table::deserialize(MapAccessDeserializer::new(map))?;
        Ok(MaskingRate::Ramp { from, to })
    }
}
