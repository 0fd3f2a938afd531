//! The result of an evaluation on held-out examples.

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    pub examples: u64,
    /// Mean negative log-likelihood of a masked token, in nats.
    pub mlm_loss: f64,
    /// Share of the masked tokens that the model ranks first.
    pub mlm_accuracy: f64,
    /// Of the second segment's label; not a number if the examples are single segments.
    pub nsp_loss: f64,
    pub nsp_accuracy: f64,
}

impl Evaluation {
    /// Names and values, as metrics files have them.
    pub fn scalars(&self) -> Vec<(&'static str, f64)> {
        let mut scalars = vec![("mlm_loss", self.mlm_loss), ("mlm_accuracy", self.mlm_accuracy)];
        if self.of_pairs() {
            scalars.extend([("nsp_loss", self.nsp_loss), ("nsp_accuracy", self.nsp_accuracy)]);
        }
        scalars.push(("examples", self.examples as f64));
        scalars
    }

    /// Whether the examples had a label to predict.
    pub fn of_pairs(&self) -> bool {
        !self.nsp_loss.is_nan()
    }
}
