//! The result of an evaluation on held-out examples.

use crate::task::Ratio;

/// The ratios of a task over held-out examples.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The number of held-out examples.
    pub examples: u64,
    ratios: Vec<(Ratio, f64)>,
}

impl Evaluation {
    /// Divides `sums`, the numerators of `ratios` and then their denominators, over `examples` examples.
    pub fn new(ratios: &[Ratio], sums: &[f64], examples: u64) -> Evaluation {
        let (numerators, denominators) = sums.split_at(ratios.len());
        let ratios = ratios.iter().zip(numerators).map(|(ratio, sum)| (*ratio, sum / denominators[ratio.denominator]));
        // A label that no example has gives 0/0, an undefined ratio.
        Evaluation { examples, ratios: ratios.filter(|(_, value)| !value.is_nan()).collect() }
    }

    /// Returns the ratio `name`; NaN if no example has its label.
    pub fn value(&self, name: &str) -> f64 {
        self.ratios.iter().find(|(ratio, _)| ratio.name == name).map_or(f64::NAN, |(_, value)| *value)
    }

    /// Returns names and values for the metrics files.
    pub fn scalars(&self) -> Vec<(&'static str, f64)> {
        let mut scalars: Vec<_> = self.ratios.iter().map(|(ratio, value)| (ratio.name, *value)).collect();
        scalars.push(("examples", self.examples as f64));
        scalars
    }

    /// Formats the ratios: `MLM loss 6.4250, MLM accuracy 14.10 %`.
    pub fn to_text(&self) -> String {
        let values =
            self.ratios.iter().map(|(ratio, value)| format!("{} {}", ratio.label, format_ratio(ratio, *value)));
        values.collect::<Vec<_>>().join(", ")
    }

    /// Formats the change from `self` to `last`: `MLM loss 9.0430 to 6.4250, MLM accuracy 0.00 % to 14.10 %`.
    pub fn to_text_with(&self, last: &Evaluation) -> String {
        let change = |(ratio, to): &(Ratio, f64)| {
            let from = format_ratio(ratio, self.value(ratio.name));
            format!("{} {from} to {}", ratio.label, format_ratio(ratio, *to))
        };
        last.ratios.iter().map(change).collect::<Vec<_>>().join(", ")
    }
}

fn format_ratio(ratio: &Ratio, value: f64) -> String {
    if ratio.in_loss { format!("{value:.4}") } else { format!("{:.2} %", 100.0 * value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_without_a_denominator_are_left_out() {
        let ratios = [
            Ratio { name: "a_loss", label: "A loss", denominator: 0, in_loss: true },
            Ratio { name: "a_accuracy", label: "A accuracy", denominator: 0, in_loss: false },
            Ratio { name: "b_loss", label: "B loss", denominator: 1, in_loss: true },
        ];
        let first = Evaluation::new(&ratios, &[6.0, 0.0, 0.0, 2.0, 0.0], 2);
        let last = Evaluation::new(&ratios, &[3.0, 1.0, 0.0, 2.0, 0.0], 2);
        assert_eq!(last.scalars(), [("a_loss", 1.5), ("a_accuracy", 0.5), ("examples", 2.0)]);
        assert_eq!(last.to_text(), "A loss 1.5000, A accuracy 50.00 %");
        assert_eq!(first.to_text_with(&last), "A loss 3.0000 to 1.5000, A accuracy 0.00 % to 50.00 %");
        assert!(last.value("b_loss").is_nan());
    }
}
