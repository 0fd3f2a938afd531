//! The decay of the learning rate after the warm-up.

use serde::{Deserialize, Serialize};

/// The decay of the learning rate after the warm-up, as a function of the progress from its end (0) to the end of the phase (1).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Decay {
    /// The rate stays at its peak.
    Constant,
    /// Proportional to (1 − progress)^power, from the peak to the rate `end`.
    Polynomial {
        /// The exponent; 1 decays linearly.
        power: f64,
        /// The final learning rate.
        #[serde(default)]
        end: f64,
    },
    /// Half a period of a cosine, from the peak to the rate `end`: (1 + cos(π·progress)) / 2 (arXiv 1608.03983, without restarts).
    Cosine {
        /// The final learning rate.
        #[serde(default)]
        end: f64,
    },
    /// The peak, and then a cooldown to the rate `end`: a trapezoid with the warm-up, also called WSD (warm-up, stable, decay; arXiv
    /// 2404.06395). The constant part can be continued by a longer run.
    Trapezoid {
        /// The share of the steps of the phase that cools down, above 0.
        cooldown: f64,
        /// The shape of the cooldown.
        #[serde(default)]
        shape: Cooldown,
        /// The final learning rate.
        #[serde(default)]
        end: f64,
    },
}

/// The shape of the cooldown of a trapezoid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cooldown {
    /// 1 − progress.
    Linear,
    /// 1 − √progress (arXiv 2405.18392), which falls fast at first; ModernBERT's.
    #[default]
    OneMinusSqrt,
    /// Half a period of a cosine.
    Cosine,
}

impl Cooldown {
    fn factor(self, progress: f64) -> f64 {
        match self {
            Cooldown::Linear => 1.0 - progress,
            Cooldown::OneMinusSqrt => 1.0 - progress.sqrt(),
            Cooldown::Cosine => half_cosine(progress),
        }
    }
}

impl Default for Decay {
    fn default() -> Self {
        Decay::Polynomial { power: 1.0, end: 0.0 }
    }
}

fn half_cosine(progress: f64) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
}

impl Decay {
    /// Returns the learning rate at `progress`, of which 1 is `length` steps in a phase of `steps`.
    pub(super) fn rate(self, peak: f64, progress: f64, length: f64, steps: f64) -> f64 {
        let between = |end: f64, factor: f64| end + (peak - end) * factor;
        match self {
            Decay::Constant => peak,
            Decay::Polynomial { power, end } => between(end, (1.0 - progress).powf(power)),
            Decay::Cosine { end } => between(end, half_cosine(progress)),
            Decay::Trapezoid { cooldown, shape, end } => {
                let share = cooldown * steps / length;
                between(end, shape.factor(((progress - 1.0) / share + 1.0).clamp(0.0, 1.0)))
            }
        }
    }

    /// Checks the values for a phase with this peak, of whose steps the share `warmup` is its warm-up.
    ///
    /// # Errors
    /// The key, what it requires, and its value.
    pub(super) fn check(self, peak: f64, warmup: f64) -> Result<(), (&'static str, String, String)> {
        let (name, end) = match self {
            Decay::Constant => return Ok(()),
            Decay::Polynomial { power, .. } if !(power.is_finite() && power > 0.0) => {
                return Err(("decay.polynomial.power", "a positive number".to_owned(), power.to_string()));
            }
            Decay::Trapezoid { cooldown, .. } if !(cooldown > 0.0 && cooldown <= 1.0 - warmup) => {
                let most = format!("a number above 0 and at most {} (the steps after the warm-up)", 1.0 - warmup);
                return Err(("decay.trapezoid.cooldown", most, cooldown.to_string()));
            }
            Decay::Polynomial { end, .. } => ("decay.polynomial.end", end),
            Decay::Cosine { end } => ("decay.cosine.end", end),
            Decay::Trapezoid { end, .. } => ("decay.trapezoid.end", end),
        };
        if (0.0..=peak).contains(&end) {
            return Ok(());
        }
        Err((name, format!("a rate from 0 to the peak ({peak})"), end.to_string()))
    }

    /// Describes the decay to the end of a phase of `steps` steps: `linear decay to 0 at step 840`.
    pub(super) fn describe(self, steps: &str) -> String {
        match self {
            Decay::Constant => format!("constant to step {steps}"),
            Decay::Polynomial { power: 1.0, end } => format!("linear decay to {} at step {steps}", scientific(end)),
            Decay::Polynomial { power, end } => {
                format!("polynomial decay (power {power}) to {} at step {steps}", scientific(end))
            }
            Decay::Cosine { end } => format!("cosine decay to {} at step {steps}", scientific(end)),
            Decay::Trapezoid { cooldown, shape, end } => {
                let shape = match shape {
                    Cooldown::Linear => "linear",
                    Cooldown::OneMinusSqrt => "1 − √progress",
                    Cooldown::Cosine => "cosine",
                };
                let end = scientific(end);
                format!("constant, and in the last {:.1} % {shape} decay to {end} at step {steps}", 100.0 * cooldown)
            }
        }
    }
}

/// Formats a learning rate in four digits at most: `8e-3`, `7.071e-3`, `0`.
pub(super) fn scientific(rate: f64) -> String {
    if rate == 0.0 {
        return "0".to_owned();
    }
    let text = format!("{rate:.3e}");
    match text.split_once('e') {
        Some((digits, exponent)) => format!("{}e{exponent}", digits.trim_end_matches('0').trim_end_matches('.')),
        None => text,
    }
}
