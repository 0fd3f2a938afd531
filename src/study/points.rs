//! The combinations of values that a search tries.

use std::collections::BTreeMap;

use anyhow::{bail, ensure};
use serde::{Deserialize, Serialize};

use crate::digest::sha256_hex;
use crate::rng::{Key, Stream};

/// The values of one key to try.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Values {
    /// These values.
    List(Vec<toml::Value>),
    /// Numbers of a range, for random searches.
    Range(NumberRange),
}

/// Numbers from `min` to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NumberRange {
    /// The smallest number.
    pub min: f64,
    /// The largest number.
    pub max: f64,
    /// Whether logarithms are uniform instead of numbers.
    #[serde(default)]
    pub log: bool,
}

/// The search through the space of an optimizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Search {
    /// Every combination.
    #[default]
    Grid,
    /// A number of random combinations.
    Random {
        /// Trials of each optimizer, batch and number of sequences.
        trials: usize,
        /// The seed of the combinations.
        #[serde(default)]
        seed: u64,
    },
}

/// The values to try, by dotted key of the run file, as in `--set`.
pub type Space = BTreeMap<String, Values>;

/// One combination: a value for each key of a space.
pub type Point = BTreeMap<String, toml::Value>;

impl Values {
    /// Checks the values.
    ///
    /// # Errors
    /// If there are none, the range is empty, or a grid has a range.
    pub fn check(&self, search: Search) -> anyhow::Result<()> {
        match self {
            Values::List(values) => ensure!(!values.is_empty(), "requires at least one value, got []"),
            Values::Range(_) if search == Search::Grid => {
                bail!("requires a list of values, got a range; list its values, or set [search] kind = \"random\"")
            }
            Values::Range(NumberRange { min, max, log }) => {
                ensure!(min.is_finite() && max.is_finite() && min < max, "requires min below max, got {min} and {max}");
                ensure!(!log || *min > 0.0, "requires min above 0 with log = true, got {min}");
            }
        }
        Ok(())
    }

    fn random(&self, random: &mut Stream) -> toml::Value {
        let uniform = random.uniform();
        match self {
            Values::List(values) => values[((uniform * values.len() as f64) as usize).min(values.len() - 1)].clone(),
            Values::Range(NumberRange { min, max, log: false }) => {
                toml::Value::Float(round(min + uniform * (max - min)))
            }
            Values::Range(NumberRange { min, max, log: true }) => {
                toml::Value::Float(round(min * (max / min).powf(uniform)))
            }
        }
    }
}

/// Rounds to four digits: hyper-parameters are known no better, and stay readable.
fn round(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

/// Returns the combinations of `space` that `search` tries, in the order of the keys. A random search draws them from its seed and
/// the optimizer's `name`, so another optimizer in the file changes none.
pub fn points(name: &str, space: &Space, search: Search) -> Vec<Point> {
    match search {
        Search::Grid => grid(space),
        Search::Random { trials, seed } => {
            let name = u64::from_str_radix(&sha256_hex(name.as_bytes())[..16], 16).unwrap_or_default();
            let mut random = Key((name >> 32) as u32, name as u32).fold_in(seed).stream();
            let draw =
                |random: &mut Stream| space.iter().map(|(key, values)| (key.clone(), values.random(random))).collect();
            (0..trials).map(|_| draw(&mut random)).collect()
        }
    }
}

fn grid(space: &Space) -> Vec<Point> {
    let mut points = vec![Point::new()];
    for (key, values) in space {
        // Ranges are refused when the file is read.
        let Values::List(values) = values else { continue };
        let with = |point: &Point, value: &toml::Value| {
            let mut point = point.clone();
            point.insert(key.clone(), value.clone());
            point
        };
        points = points.iter().flat_map(|point| values.iter().map(|value| with(point, value))).collect();
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(text: &str) -> Space {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_grid_has_every_combination() {
        let space = space("'phase.1.learning_rate' = [0.1, 0.2, 0.4]\n'optimizer.beta2' = [0.9, 0.99]");
        let points = points("lamb", &space, Search::Grid);
        let rates: Vec<String> = points
            .iter()
            .map(|point| format!("{} {}", point["optimizer.beta2"], point["phase.1.learning_rate"]))
            .collect();
        assert_eq!(rates, ["0.9 0.1", "0.9 0.2", "0.9 0.4", "0.99 0.1", "0.99 0.2", "0.99 0.4"]);
    }

    #[test]
    fn a_random_search_covers_its_range_and_is_repeatable() {
        let space = space("'phase.1.learning_rate' = { min = 0.001, max = 0.1, log = true }\n'seed' = [1, 2]");
        let search = |seed| Search::Random { trials: 200, seed };
        let drawn = points("lamb", &space, search(3));
        let rates: Vec<f64> = drawn.iter().map(|point| point["phase.1.learning_rate"].as_float().unwrap()).collect();
        assert!(rates.iter().all(|rate| (0.001..=0.1).contains(rate)));
        let below_the_middle = rates.iter().filter(|rate| **rate < 0.01).count();
        assert!((70..130).contains(&below_the_middle), "{below_the_middle} of 200 in the lower half of the logarithms");
        assert_eq!(drawn, points("lamb", &space, search(3)));
        assert_ne!(drawn, points("lars", &space, search(3)));
        assert_ne!(drawn, points("lamb", &space, search(4)));
    }

    #[test]
    fn a_range_needs_a_random_search() {
        let values = &space("v = { min = 1.0, max = 2.0 }")["v"];
        assert!(values.check(Search::Grid).unwrap_err().to_string().contains("kind = \"random\""));
        values.check(Search::Random { trials: 1, seed: 0 }).unwrap();
        let empty = Values::Range(NumberRange { min: 2.0, max: 2.0, log: false });
        assert!(empty.check(Search::Random { trials: 1, seed: 0 }).is_err());
    }
}
