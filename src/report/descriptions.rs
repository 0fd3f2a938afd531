//! Descriptions of the reported scalars, with their units, for TensorBoard's plots.

use super::goodput::GOODPUT;

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

/// Returns the meaning of the scalar `name` in lines of the kind `kind` of a metrics file; none for names that have no description.
pub fn description(kind: &str, name: &str) -> Option<String> {
    match (kind, name) {
        (GOODPUT, "starts") => Some("number of starts of the run".to_owned()),
        (GOODPUT, "seconds") => Some("wall time of all starts in seconds".to_owned()),
        (GOODPUT, share) => Some(format!("share of the wall time of all starts: {}", share.replace('_', " "))),
        _ => of_metric(name),
    }
}

fn of_metric(name: &str) -> Option<String> {
    if let Some(of) = name.strip_suffix("_baseline").and_then(of_metric) {
        return Some(format!("{of}; of a model that knows only the label frequencies of the same examples"));
    }
    if let Some(of) = name.strip_prefix("ema_").and_then(of_metric) {
        return Some(format!("{of}; of the exponential moving average of the weights"));
    }
    DESCRIPTIONS.iter().find(|(own, _)| *own == name).map(|(_, text)| (*text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::goodput::{EVALUATION, START, TRAIN};

    #[test]
    fn descriptions_depend_on_the_kind_and_cover_baselines() {
        let norm = "global L2 norm of the gradients before clipping";
        assert_eq!(description(TRAIN, "grad_norm").unwrap(), norm);
        let of = |name| description(EVALUATION, name).unwrap();
        let baseline = of("mlm_loss_baseline");
        assert!(baseline.starts_with(&of("mlm_loss")) && baseline.contains("label frequencies"), "{baseline}");
        assert_eq!((description(TRAIN, "unheard_of"), description(TRAIN, "unheard_of_baseline")), (None, None));
        assert_ne!(description(GOODPUT, "compiling"), description(START, "compiling"), "a share, and seconds");
    }
}
