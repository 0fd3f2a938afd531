//! What each reported scalar means, with its unit: the descriptions of TensorBoard's plots.

/// Names of scalars and their meanings. Shares are between 0 and 1.
const DESCRIPTIONS: &[(&str, &str)] = &[
    // Losses.
    ("loss", "sum of the task's losses, in nats"),
    ("mlm_loss", "masked language model loss, in nats for each masked token"),
    ("nsp_loss", "loss of next-sentence or sentence-order prediction, in nats for each pair"),
    ("classification_loss", "cross-entropy of the classes, in nats for each example"),
    ("token_loss", "cross-entropy of the labels of words, in nats for each word"),
    ("span_loss", "mean cross-entropy of start and end of the answer, in nats for each window"),
    ("mean_squared_error", "mean squared error of the predicted number, in squared units of the label"),
    // Shares of correct predictions and other measures of quality.
    ("mlm_accuracy", "share of masked tokens that are predicted"),
    ("nsp_accuracy", "share of pairs that are classified correctly"),
    ("accuracy", "share of examples that are classified correctly"),
    ("token_accuracy", "share of words with the correct label"),
    ("start_accuracy", "share of windows whose answer starts at the predicted token"),
    ("end_accuracy", "share of windows whose answer ends at the predicted token"),
    ("probe_accuracy", "share of examples that a linear probe on frozen features classifies correctly"),
    ("macro_f1", "mean of the F1 of all classes, between 0 and 1"),
    ("matthews", "Matthews correlation of labels and predictions, between -1 and 1"),
    ("pearson", "Pearson correlation of labels and predictions, between -1 and 1"),
    ("spearman", "Spearman rank correlation of labels and predictions, between -1 and 1"),
    ("f1", "F1 of the predicted entities or answers, between 0 and 1"),
    ("precision", "share of the predicted entities that are correct"),
    ("recall", "share of the entities that are predicted"),
    ("exact_match", "share of questions whose answer is predicted exactly"),
    ("HasAns_f1", "F1 of the answers to questions that have one, between 0 and 1"),
    ("HasAns_exact", "share of questions with an answer that is predicted exactly"),
    ("NoAns_f1", "share of questions without an answer for which none is predicted"),
    ("NoAns_exact", "share of questions without an answer for which none is predicted"),
    ("total", "number of questions"),
    ("HasAns_total", "number of questions with an answer"),
    ("NoAns_total", "number of questions without an answer"),
    ("examples", "number of held-out examples"),
    // The optimizer.
    ("grad_norm", "global L2 norm of the gradients before clipping"),
    ("skipped", "1 if a gradient was not finite, so nothing was updated"),
    ("learning_rate", "learning rate of the update"),
    ("trust_ratio_min", "smallest trust ratio of all parameter tensors"),
    ("trust_ratio_median", "median of the trust ratios of all parameter tensors"),
    ("trust_ratio_max", "largest trust ratio of all parameter tensors"),
    // The position in the run.
    ("phase", "phase of the schedule, from 1"),
    ("epoch", "passes over the examples of the phase"),
    // Time and throughput.
    ("seconds", "duration in seconds"),
    ("compiling", "duration of compilation in seconds"),
    ("sequences_per_second", "training sequences for each second"),
    ("tokens_per_second", "token positions for each second, with padding"),
    ("padding", "share of token positions that hold no token"),
    ("waiting_for_data", "share of the time in which devices waited for a batch"),
];

/// Returns the meaning of the scalar `name` of a metrics file; none for names that have no description.
pub fn description(name: &str) -> Option<String> {
    let of = |name: &str| DESCRIPTIONS.iter().find(|(own, _)| *own == name).map(|(_, text)| *text);
    let baseline = || {
        let text = of(name.strip_suffix("_baseline")?)?;
        Some(format!("{text}; of a model that knows only the label frequencies of the same examples"))
    };
    of(name).map(str::to_owned).or_else(baseline)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_baseline_is_described_as_that_of_its_metric() {
        assert_eq!(description("grad_norm").unwrap(), "global L2 norm of the gradients before clipping");
        let baseline = description("mlm_loss_baseline").unwrap();
        assert!(baseline.starts_with(&description("mlm_loss").unwrap()), "{baseline}");
        assert_eq!((description("unheard_of"), description("unheard_of_baseline")), (None, None));
    }
}
