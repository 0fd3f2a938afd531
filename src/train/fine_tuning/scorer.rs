//! The field's metrics of each fine-tuning task, from the logits of the held-out examples, beside the metrics of a model that
//! knows only the label frequencies of these examples.

use std::sync::Arc;

use anyhow::Context;

use crate::bert::Head;
use crate::data::labelled::{ExampleLabels, Gold, LabelledExamples, SpanLogits, WordClasses};
use crate::metrics::squad::{AnswerScore, Outcome, V2Scores};
use crate::metrics::{Confusion, EntityCounts, LabelFrequencies, MetricKind, pearson, spearman};
use crate::report::baselines::Baselines;
use crate::report::evaluation::Metric;
use crate::run::fine_tuning::{Answers, TaskData};
use crate::train::evaluator::Scorer;

/// The logarithm of a frequency of zero.
const NEVER: f32 = -1e9;

/// The held-out examples of a task, and the metrics of predictions for them.
#[derive(Debug)]
pub struct TaskScorer {
    labels: Vec<String>,
    sequence_length: usize,
    dev: Arc<LabelledExamples>,
    answers: Option<Arc<Answers>>,
    baselines: Baselines,
}

/// A metric of the only head.
struct Score {
    name: &'static str,
    label: &'static str,
    kind: MetricKind,
    value: f64,
    /// The number of labels that it covers.
    labels: usize,
}

impl TaskScorer {
    /// Builds the scorer of the held-out examples, and computes the baselines of its metrics.
    ///
    /// # Errors
    /// If the examples cannot be scored.
    pub fn new(data: &TaskData) -> anyhow::Result<TaskScorer> {
        let dev = data.dev.clone();
        let mut scorer = TaskScorer {
            labels: data.head.labels().unwrap_or_default().to_vec(),
            sequence_length: dev.form().sequence_length,
            dev,
            answers: data.answers.clone(),
            baselines: Baselines::default(),
        };
        let constant = scorer.scores(&scorer.constant_outputs())?;
        // A constant prediction has no correlation.
        let value = |score: &Score| if score.value.is_nan() { 0.0 } else { score.value };
        let measured = constant.iter().filter(|score| score.kind != MetricKind::Count);
        scorer.baselines =
            measured.fold(Baselines::default(), |baselines, score| baselines.with(score.name, value(score)));
        Ok(scorer)
    }

    /// Returns the baselines of the loss and of the accuracy of the task, which are ratios of sums.
    pub fn ratio_baselines(&self, head: &Head) -> Baselines {
        let none = Baselines::default();
        match (head, self.dev.labels()) {
            (Head::SequenceClassification { .. }, labels) => {
                none.with_labels("classification_loss", "accuracy", &self.class_frequencies(labels))
            }
            (Head::TokenClassification { .. }, labels) => {
                none.with_labels("token_loss", "token_accuracy", &self.class_frequencies(labels))
            }
            (Head::Regression, ExampleLabels::Values(values)) => none.with("mean_squared_error", variance(values)),
            (Head::QuestionAnswering, ExampleLabels::Spans(spans)) => {
                let [start, end] = [0, 1].map(|side| self.position_frequencies(spans, side));
                let loss = f64::midpoint(start.entropy(), end.entropy());
                none.with("span_loss", loss)
                    .with("start_accuracy", start.majority_accuracy())
                    .with("end_accuracy", end.majority_accuracy())
            }
            _ => none,
        }
    }

    fn class_frequencies(&self, labels: &ExampleLabels) -> LabelFrequencies {
        LabelFrequencies::from_counts(labels.class_counts(self.labels.len()))
    }

    fn position_frequencies(&self, spans: &[[i32; 2]], side: usize) -> LabelFrequencies {
        let positions = spans.iter().filter_map(|span| usize::try_from(span[side]).ok());
        LabelFrequencies::of(self.sequence_length, &positions.collect::<Vec<_>>())
    }

    /// Returns the outputs of a model that answers with the label frequencies of the examples, whatever its input.
    fn constant_outputs(&self) -> Vec<Vec<f32>> {
        let (examples, length) = (self.dev.len(), self.sequence_length);
        match self.dev.labels() {
            labels @ ExampleLabels::Classes(_) => {
                vec![log_frequencies(&self.class_frequencies(labels)).repeat(examples)]
            }
            labels @ ExampleLabels::TokenClasses(_) => {
                vec![log_frequencies(&self.class_frequencies(labels)).repeat(examples * length)]
            }
            ExampleLabels::Values(values) => vec![vec![mean(values) as f32; examples]],
            ExampleLabels::Spans(spans) => {
                [0, 1].map(|side| log_frequencies(&self.position_frequencies(spans, side)).repeat(examples)).to_vec()
            }
        }
    }

    fn scores(&self, outputs: &[Vec<f32>]) -> anyhow::Result<Vec<Score>> {
        let logits = outputs.first().context("a scorer requires the outputs of the model, found none")?;
        match self.dev.labels() {
            ExampleLabels::Classes(gold) => Ok(self.classification(logits, gold)),
            ExampleLabels::Values(gold) => Ok(regression(logits, gold)),
            ExampleLabels::TokenClasses(gold) => Ok(self.entities(logits, gold)),
            ExampleLabels::Spans(_) => {
                let end = outputs.get(1).context("a scorer requires the logits of the last position, found none")?;
                self.question_answering(logits, end)
            }
        }
    }

    /// Macro-F1 and Matthews correlation of the classes with the highest logits `[N, C]`.
    fn classification(&self, logits: &[f32], gold: &[i32]) -> Vec<Score> {
        let classes = self.labels.len();
        let mut confusion = Confusion::new(classes);
        for (row, &gold) in logits.chunks_exact(classes).zip(gold) {
            if let Ok(gold) = usize::try_from(gold) {
                confusion.add(gold, argmax(row));
            }
        }
        vec![
            score("macro_f1", "macro-F1", confusion.macro_f1(), gold.len()),
            correlation("matthews", "Matthews", confusion.matthews(), gold.len()),
        ]
    }

    /// Precision, recall and F1 of entities, from logits `[N, S, C]`.
    fn entities(&self, logits: &[f32], gold: &[WordClasses]) -> Vec<Score> {
        let classes = self.labels.len();
        let name = |class: i32| usize::try_from(class).ok().and_then(|class| self.labels.get(class));
        let of_sentence = |(logits, words): (&[f32], &WordClasses)| {
            let at = |&position: &u32| {
                let first = position as usize * classes;
                &self.labels[argmax(&logits[first..first + classes])]
            };
            let labelled =
                words.positions.iter().zip(&words.classes).filter_map(|(p, &class)| Some((name(class)?, at(p))));
            let (gold, predicted): (Vec<&String>, Vec<&String>) = labelled.unzip();
            EntityCounts::of(&gold, &predicted)
        };
        let sentences = logits.chunks_exact(self.sequence_length * classes).zip(gold);
        let counts = sentences.map(of_sentence).fold(EntityCounts::default(), |sum, counts| sum + counts);
        vec![
            score("f1", "F1", counts.f1(), counts.gold),
            score("precision", "precision", counts.precision(), counts.predicted),
            score("recall", "recall", counts.recall(), counts.gold),
        ]
    }

    /// Exact match and F1 of the answers, from logits `[N, S]` of the first and the last position; for SQuAD v2.0, also of the
    /// questions with and without an answer.
    fn question_answering(&self, start: &[f32], end: &[f32]) -> anyhow::Result<Vec<Score>> {
        let answers = self.answers.as_ref().context("a scorer of answers requires the windows of the questions")?;
        let windows = start.chunks_exact(self.sequence_length).zip(end.chunks_exact(self.sequence_length));
        // The scores of padding are no candidates.
        let logits: Vec<SpanLogits> = windows
            .enumerate()
            .map(|(example, (start, end))| {
                let tokens = self.dev.tokens(example);
                SpanLogits { start: &start[..tokens], end: &end[..tokens] }
            })
            .collect();
        let predicted = answers.windows.answers(&answers.tokenizer, &logits, answers.options)?;
        let with_gold = predicted.iter().zip(answers.windows.questions().questions());
        if answers.options.null_threshold.is_none() {
            let scores = with_gold.map(|(answer, question)| AnswerScore::v1(&answer.text, &question.gold.texts()));
            return Ok(squad_v1(&scores.collect::<Vec<_>>()));
        }
        let outcomes = with_gold.map(|(answer, question)| {
            let gold = if question.gold == Gold::Impossible { Vec::new() } else { question.gold.texts() };
            Outcome::new(&answer.text, &gold, answer.null_score_difference.unwrap_or(f64::NEG_INFINITY))
        });
        Ok(squad_v2(&outcomes.collect::<Vec<_>>()))
    }
}

impl Scorer for TaskScorer {
    fn score(&self, outputs: &[Vec<f32>]) -> anyhow::Result<Vec<Metric>> {
        let metric = |score: Score| Metric {
            head: String::new(),
            name: score.name.to_owned(),
            label: score.label.to_owned(),
            kind: score.kind,
            value: score.value,
            baseline: self.baselines.get(score.name),
            labels: score.labels as f64,
        };
        Ok(self.scores(outputs)?.into_iter().map(metric).collect())
    }
}

/// Pearson and Spearman correlation of predicted numbers `[N, 1]`.
fn regression(predicted: &[f32], gold: &[f32]) -> Vec<Score> {
    let widen = |values: &[f32]| -> Vec<f64> { values.iter().map(|&value| value.into()).collect() };
    let (predicted, gold) = (widen(predicted), widen(gold));
    vec![
        correlation("pearson", "Pearson", pearson(&gold, &predicted), gold.len()),
        correlation("spearman", "Spearman", spearman(&gold, &predicted), gold.len()),
    ]
}

/// The results of `evaluate-v1.1.py`.
fn squad_v1(scores: &[AnswerScore]) -> Vec<Score> {
    let AnswerScore { exact, f1 } = AnswerScore::mean(scores);
    vec![score("f1", "F1", f1, scores.len()), score("exact_match", "exact match", exact, scores.len())]
}

/// The results of `evaluate-v2.0.py`, under its names except for `exact_match`: over all questions, those with an answer (HasAns)
/// and those without (NoAns). A group without questions has no results.
fn squad_v2(outcomes: &[Outcome]) -> Vec<Score> {
    // No difference of scores exceeds this threshold, so the predicted texts count as they are.
    let V2Scores { all, has_answer, no_answer, has_answer_total, no_answer_total, .. } =
        V2Scores::of(outcomes, f64::INFINITY);
    let groups = [
        ([("f1", "F1"), ("exact_match", "exact match"), ("total", "questions")], all, outcomes.len()),
        (
            [("HasAns_f1", "HasAns F1"), ("HasAns_exact", "HasAns exact match"), ("HasAns_total", "HasAns questions")],
            has_answer,
            has_answer_total,
        ),
        (
            [("NoAns_f1", "NoAns F1"), ("NoAns_exact", "NoAns exact match"), ("NoAns_total", "NoAns questions")],
            no_answer,
            no_answer_total,
        ),
    ];
    let with_questions = groups.into_iter().filter(|(.., total)| *total > 0);
    let results = with_questions.flat_map(|([f1, exact, count], mean, total)| {
        [
            score(f1.0, f1.1, mean.f1, total),
            score(exact.0, exact.1, mean.exact, total),
            Score { name: count.0, label: count.1, kind: MetricKind::Count, value: total as f64, labels: total },
        ]
    });
    results.collect()
}

fn score(name: &'static str, label: &'static str, value: f64, labels: usize) -> Score {
    Score { name, label, kind: MetricKind::Score, value, labels }
}

fn correlation(name: &'static str, label: &'static str, value: f64, labels: usize) -> Score {
    Score { name, label, kind: MetricKind::Correlation, value, labels }
}

/// Returns ln p for each label; [`NEVER`] for p = 0.
fn log_frequencies(labels: &LabelFrequencies) -> Vec<f32> {
    let total = labels.examples() as f64;
    let log = |&count: &u64| if count == 0 { NEVER } else { (count as f64 / total).ln() as f32 };
    labels.counts().iter().map(log).collect()
}

/// Returns the index of the largest value; the first of several.
fn argmax(values: &[f32]) -> usize {
    (1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value)).sum::<f64>() / values.len() as f64
}

fn variance(values: &[f32]) -> f64 {
    let mean = mean(values);
    values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / values.len() as f64
}
