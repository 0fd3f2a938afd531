//! The result of an evaluation on held-out examples: each metric beside its baseline, and the heads that are no better than
//! theirs.

use comfy_table::CellAlignment;

use super::baselines::Baselines;
use crate::metrics::MetricKind;
use crate::optim::ema;
use crate::output::table;
use crate::task::Ratio;
use crate::units::thousands;

/// A gain over a baseline counts if it exceeds this many standard errors; chance alone gives less in 95 % of cases.
const STANDARD_ERRORS: f64 = 2.0;

/// The name of the head of the averaged weights.
const AVERAGE: &str = "EMA";

/// The name of the head of a probe, which is no part of the model.
pub const PROBE: &str = "probe";

/// A metric of one head over held-out examples.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// The head that the metric measures, such as `NSP`; empty for the only head of a model.
    pub head: String,
    /// The name in metrics files, such as `nsp_accuracy`.
    pub name: String,
    /// The name in tables and messages, such as `NSP accuracy`.
    pub label: String,
    /// The kind.
    pub kind: MetricKind,
    /// The value of the model.
    pub value: f64,
    /// The value of a model that knows only the label frequencies of the same examples.
    pub baseline: Option<f64>,
    /// The number of labels that the metric covers.
    pub labels: f64,
}

impl Metric {
    /// Returns whether the value is better than the baseline by more than chance explains; None without a baseline, and for a
    /// score, in which random answers can be better than the most frequent one.
    ///
    /// With n labels and z = 2 standard errors, a gain counts
    /// * in a loss if it exceeds z²/2n: by Wilks' theorem, 2n times the gain of one parameter that carries no information is
    ///   distributed as χ² with one degree of freedom, even if it was fitted to these labels;
    /// * in a squared error, whose logarithm is twice the loss of a normal distribution, if it exceeds baseline·(1 − e^(−z²/n));
    /// * in a share if it exceeds z·√(p(1−p)/n), p being the baseline;
    /// * in a correlation if it exceeds z/√n.
    ///
    /// A constant answer never passes: its loss is at least the entropy of the labels, its accuracy at most the majority rate.
    pub fn beats_baseline(&self) -> Option<bool> {
        let (z, n, baseline) = (STANDARD_ERRORS, self.labels, self.baseline?);
        let (gain, chance) = match self.kind {
            MetricKind::Loss => (baseline - self.value, z.powi(2) / (2.0 * n)),
            MetricKind::SquaredError => (baseline - self.value, -baseline * (-z.powi(2) / n).exp_m1()),
            MetricKind::Share => (self.value - baseline, z * (baseline * (1.0 - baseline) / n).sqrt()),
            MetricKind::Correlation => (self.value - baseline, z / n.sqrt()),
            MetricKind::Score | MetricKind::Count => return None,
        };
        Some(gain > chance)
    }

    /// Formats `value` in the unit of this metric.
    fn format(&self, value: f64) -> String {
        match self.kind {
            MetricKind::Loss | MetricKind::SquaredError | MetricKind::Correlation => format!("{value:.4}"),
            MetricKind::Share | MetricKind::Score => format!("{:.2} %", 100.0 * value),
            MetricKind::Count => thousands(value as u64),
        }
    }

    /// Formats the difference of the value and `baseline`, with its sign.
    fn format_difference(&self, baseline: f64) -> String {
        let difference = self.value - baseline;
        match self.kind {
            MetricKind::Loss | MetricKind::SquaredError | MetricKind::Correlation => format!("{difference:+.4}"),
            MetricKind::Share | MetricKind::Score => format!("{:+.2} points", 100.0 * difference),
            MetricKind::Count => format!("{difference:+}"),
        }
    }
}

/// The metrics of a model over held-out examples.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The number of held-out examples.
    pub examples: u64,
    metrics: Vec<Metric>,
}

impl Evaluation {
    /// Divides `sums`, the numerators of `ratios` and then their denominators, over `examples` examples, and attaches the
    /// baselines. Ratios with one denominator measure one head, whose name is the common beginning of their labels.
    pub fn new(ratios: &[Ratio], sums: &[f64], baselines: &Baselines, examples: u64) -> Evaluation {
        let (numerators, denominators) = sums.split_at(ratios.len());
        let metric = |(ratio, sum): (&Ratio, &f64)| {
            let labels = denominators[ratio.denominator];
            let of_head = ratios.iter().filter(|other| other.denominator == ratio.denominator);
            // A label that no example has gives 0/0, an undefined ratio.
            (labels > 0.0).then(|| Metric {
                head: common_words(of_head.map(|other| other.label)),
                name: ratio.name.to_owned(),
                label: ratio.label.to_owned(),
                kind: ratio.kind,
                value: sum / labels,
                baseline: baselines.get(ratio.name),
                labels,
            })
        };
        Evaluation { examples, metrics: ratios.iter().zip(numerators).filter_map(metric).collect() }
    }

    /// Appends a metric that is not a ratio of sums.
    pub fn push(&mut self, metric: Metric) {
        self.metrics.push(metric);
    }

    /// Appends the metrics of the averaged weights of the same model, as `ema_mlm_loss` and so on. They have the baselines of the
    /// metrics of the weights, and are not judged by themselves.
    pub fn push_averaged(&mut self, averaged: &Evaluation) {
        let of_average = |metric: &Metric| Metric {
            head: AVERAGE.to_owned(),
            name: ema::metric_name(&metric.name),
            label: format!("{} (EMA)", metric.label),
            baseline: None,
            ..metric.clone()
        };
        self.metrics.extend(averaged.metrics.iter().map(of_average));
    }

    /// Returns the metrics, in the order of reports.
    pub fn metrics(&self) -> &[Metric] {
        &self.metrics
    }

    /// Returns the value of the metric `name`; NaN if no example has its label.
    pub fn value(&self, name: &str) -> f64 {
        self.metrics.iter().find(|metric| metric.name == name).map_or(f64::NAN, |metric| metric.value)
    }

    /// Returns names and values for the metrics files: each metric, its baseline as `<name>_baseline`, and `examples`.
    pub fn scalars(&self) -> Vec<(String, f64)> {
        let of_metric = |metric: &Metric| {
            let baseline = metric.baseline.map(|baseline| (format!("{}_baseline", metric.name), baseline));
            [Some((metric.name.clone(), metric.value)), baseline].into_iter().flatten()
        };
        let examples = ("examples".to_owned(), self.examples as f64);
        self.metrics.iter().flat_map(of_metric).chain([examples]).collect()
    }

    /// Returns the heads that have learned nothing: none of their metrics beats its baseline (see
    /// [`Metric::beats_baseline`]). One better metric suffices: an overconfident head has a high loss, and a head whose
    /// answers rarely leave the most frequent label has the accuracy of the majority. Heads without baselines are left out.
    pub fn heads_without_gain(&self) -> Vec<&str> {
        let mut heads: Vec<&str> = Vec::new();
        for metric in &self.metrics {
            if !heads.contains(&metric.head.as_str()) {
                heads.push(&metric.head);
            }
        }
        heads.retain(|head| {
            let of_head = self.metrics.iter().filter(|metric| metric.head == *head);
            let mut verdicts = of_head.filter_map(Metric::beats_baseline).peekable();
            verdicts.peek().is_some() && !verdicts.any(|better| better)
        });
        heads
    }

    /// Returns a sentence for each head that has learned nothing.
    pub fn verdicts(&self) -> Vec<String> {
        let sentence = |head: &str| match head {
            PROBE => {
                "probe: no better than the label frequencies; the embeddings do not separate these labels".to_owned()
            }
            "" => "no better than an answer that ignores the input; the model has learned nothing".to_owned(),
            head => format!("{head}: no better than the label frequencies; the head has learned nothing"),
        };
        self.heads_without_gain().into_iter().map(sentence).collect()
    }

    /// Formats the metrics, without counts: `MLM loss 6.4250 (baseline 6.9450), MLM accuracy 14.10 % (baseline 5.00 %)`.
    pub fn to_text(&self) -> String {
        let text = |metric: &Metric| {
            let baseline =
                metric.baseline.map_or(String::new(), |baseline| format!(" (baseline {})", metric.format(baseline)));
            format!("{} {}{baseline}", metric.label, metric.format(metric.value))
        };
        let measured = self.metrics.iter().filter(|metric| metric.kind != MetricKind::Count);
        measured.map(text).collect::<Vec<_>>().join(", ")
    }

    /// Formats a table with a row for each metric: its value, its baseline and their difference.
    pub fn to_table(&self) -> String {
        self.table("value", None)
    }

    /// Formats the table of [`Evaluation::to_table`] for an evaluation after `step` updates, with the values of an earlier
    /// one in a column of their own: the number of updates, and the [`Evaluation::scalars`].
    pub fn to_table_since(&self, step: u64, (earlier_step, earlier): (u64, &[(String, f64)])) -> String {
        self.to_table_beside(&format!("step {step}"), (format!("step {earlier_step}"), earlier))
    }

    /// Formats the table of [`Evaluation::to_table`] with `name` above the values, and before them a column with the name and the
    /// [`Evaluation::scalars`] of another evaluation.
    pub fn to_table_beside(&self, name: &str, other: (String, &[(String, f64)])) -> String {
        self.table(name, Some(other))
    }

    fn table(&self, value: &str, earlier: Option<(String, &[(String, f64)])>) -> String {
        let mut table = table::ruled();
        let before = earlier.as_ref().map(|(header, _)| header.clone());
        let header = ["held-out".to_owned()].into_iter().chain(before);
        table.set_header(header.chain([value, "baseline", "difference"].map(str::to_owned)));
        for metric in &self.metrics {
            let before = earlier.as_ref().map(|(_, scalars)| {
                let found = scalars.iter().find(|(name, _)| *name == metric.name);
                found.map_or(String::new(), |(_, value)| metric.format(*value))
            });
            let compared = [
                metric.format(metric.value),
                metric.baseline.map_or(String::new(), |baseline| metric.format(baseline)),
                metric.baseline.map_or(String::new(), |baseline| metric.format_difference(baseline)),
            ];
            table.add_row([metric.label.clone()].into_iter().chain(before).chain(compared));
        }
        table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        table.to_string()
    }
}

/// Returns the words that all `labels` begin with: `NSP` for `NSP loss` and `NSP accuracy`.
fn common_words<'a>(mut labels: impl Iterator<Item = &'a str>) -> String {
    let mut common: Vec<&str> = labels.next().unwrap_or_default().split(' ').collect();
    // The last word of a label names the quantity.
    common.pop();
    for label in labels {
        let equal = common.iter().zip(label.split(' ')).take_while(|(a, b)| *a == b).count();
        common.truncate(equal);
    }
    common.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::LabelFrequencies;

    const RATIOS: [Ratio; 4] = [
        Ratio { name: "mlm_loss", label: "MLM loss", denominator: 0, kind: MetricKind::Loss },
        Ratio { name: "mlm_accuracy", label: "MLM accuracy", denominator: 0, kind: MetricKind::Share },
        Ratio { name: "nsp_loss", label: "NSP loss", denominator: 1, kind: MetricKind::Loss },
        Ratio { name: "nsp_accuracy", label: "NSP accuracy", denominator: 1, kind: MetricKind::Share },
    ];

    /// An evaluation of the second head on 128 labels, of which 96 are 0, with the mean negative log-likelihood `loss` and
    /// `correct` correct answers. No example has a label of the first head.
    fn second_head(loss: f64, correct: f64) -> Evaluation {
        let baselines = Baselines::default().with_labels("nsp_loss", "nsp_accuracy", &labels());
        Evaluation::new(&RATIOS, &[0.0, 0.0, 128.0 * loss, correct, 0.0, 128.0], &baselines, 128)
    }

    fn labels() -> LabelFrequencies {
        LabelFrequencies::of(2, &[[0; 96].as_slice(), &[1; 32]].concat())
    }

    #[test]
    fn metrics_are_reported_beside_their_baselines() {
        let baselines = Baselines::default().with("mlm_loss", 2.0).with("mlm_accuracy", 0.25);
        let mut evaluation = Evaluation::new(&RATIOS, &[6.0, 1.0, 0.0, 0.0, 4.0, 0.0], &baselines, 2);
        assert!(evaluation.value("nsp_loss").is_nan(), "a ratio without labels is left out");
        assert_eq!(evaluation.to_text(), "MLM loss 1.5000 (baseline 2.0000), MLM accuracy 25.00 % (baseline 25.00 %)");
        evaluation.push(Metric {
            head: "MLM".into(),
            name: "spearman".into(),
            label: "Spearman".into(),
            kind: MetricKind::Correlation,
            value: 0.5,
            baseline: None,
            labels: 4.0,
        });
        let expected = [
            ("mlm_loss", 1.5),
            ("mlm_loss_baseline", 2.0),
            ("mlm_accuracy", 0.25),
            ("mlm_accuracy_baseline", 0.25),
            ("spearman", 0.5),
            ("examples", 2.0),
        ];
        assert_eq!(evaluation.scalars(), expected.map(|(name, value)| (name.to_owned(), value)));
        let cells = |table: String| -> Vec<String> {
            table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
        };
        let table = cells(evaluation.to_table());
        assert_eq!(table[1], "held-out value baseline difference");
        assert!(table.contains(&"MLM loss 1.5000 2.0000 -0.5000".to_owned()), "{table:?}");
        assert!(table.contains(&"Spearman 0.5000".to_owned()), "{table:?}");
        let table = cells(evaluation.to_table_since(9, (0, &[("mlm_accuracy".to_owned(), 0.125)])));
        assert_eq!(table[1], "held-out step 0 step 9 baseline difference");
        assert!(table.contains(&"MLM accuracy 12.50 % 25.00 % 25.00 % +0.00 points".to_owned()), "{table:?}");
    }

    #[test]
    fn a_constant_answer_has_learned_nothing() {
        // A constant probability q of label 1 has the loss of the cross entropy, whose minimum is the entropy at q = 1/4.
        for q in [0.01f64, 0.2, 0.25, 0.3, 0.5, 0.9] {
            let loss = -0.75 * (1.0 - q).ln() - 0.25 * q.ln();
            let correct = if q < 0.5 { 96.0 } else { 32.0 };
            let evaluation = second_head(loss, correct);
            assert_eq!(evaluation.heads_without_gain(), ["NSP"], "probability {q}");
            let sentence = "NSP: no better than the label frequencies; the head has learned nothing";
            assert_eq!(evaluation.verdicts(), [sentence]);
        }
    }

    #[test]
    fn a_gain_counts_if_it_exceeds_chance_in_one_metric() {
        let entropy = labels().entropy();
        // 2 / 128 nats, and two standard errors √(0.75 · 0.25 / 128) = 3.8 %, which are 9.8 answers of 128.
        for (loss, correct, learned) in [
            (entropy - 1.9 / 128.0, 97.0, false),
            (entropy, 96.0 + 9.0, false),
            (entropy - 2.1 / 128.0, 96.0, true),
            (entropy, 96.0 + 10.0, true),
            (entropy + 3.0, 120.0, true),
            (f64::NAN, 96.0, false),
        ] {
            let evaluation = second_head(loss, correct);
            assert_eq!(evaluation.heads_without_gain().is_empty(), learned, "loss {loss}, {correct} correct");
        }
        let beats = |kind, baseline, value| {
            let (head, name, label) = (String::new(), "metric".to_owned(), "metric".to_owned());
            Metric { head, name, label, kind, value, baseline: Some(baseline), labels: 100.0 }.beats_baseline()
        };
        let correlation = |value| beats(MetricKind::Correlation, 0.0, value);
        assert_eq!((correlation(0.19), correlation(0.21)), (Some(false), Some(true)));
        // The unit of the labels has no influence: 1 − e^(−4/100) are 3.9 %.
        for variance in [1e-4, 1.0, 1e4] {
            let squared_error = |share| beats(MetricKind::SquaredError, variance, share * variance);
            assert_eq!((squared_error(0.97), squared_error(0.95)), (Some(false), Some(true)));
        }
        // Random answers have a higher macro-F1 than the majority, and a higher entity F1 than no entity.
        assert_eq!(beats(MetricKind::Score, 0.34, 0.5), None);
    }

    #[test]
    fn heads_without_baselines_are_not_judged() {
        let evaluation = Evaluation::new(&RATIOS, &[9.0, 0.0, 9.0, 0.0, 1.0, 1.0], &Baselines::default(), 1);
        assert!(evaluation.verdicts().is_empty());
        assert_eq!(evaluation.metrics().len(), 4);
    }

    #[test]
    fn the_name_of_a_head_is_the_common_beginning_of_its_labels() {
        let name = |labels: &[&'static str]| common_words(labels.iter().copied());
        assert_eq!(name(&["NSP loss", "NSP accuracy"]), "NSP");
        assert_eq!(name(&["answer start loss", "answer start accuracy"]), "answer start");
        assert_eq!(name(&["loss", "accuracy"]), "");
    }
}
