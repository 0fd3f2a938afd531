//! The probe of an encoder: how well a linear classifier reads labels from its frozen embeddings of texts.

use std::path::Path;

use anyhow::bail;

use super::embed::embeddings;
use super::forward::{Forward, Weights};
use crate::data::{ExampleLabels, LabelNames, LabelledExamples, LabelledTexts, TextColumns, Tokenizer};
use crate::metrics::LabelFrequencies;
use crate::probe::{FOLDS, Features, Probe, cross_validated_accuracy};
use crate::shape::HostTensor;

/// Texts with labels for a probe.
#[derive(Clone, Debug)]
pub struct ProbeData {
    training: ProbeSet,
    /// The rows that the accuracy is measured on; without them it is measured by cross-validation.
    dev: Option<ProbeSet>,
    names: LabelNames,
}

/// The rows of one file.
#[derive(Clone, Debug)]
struct ProbeSet {
    examples: LabelledExamples,
    labels: Vec<usize>,
}

/// The result of a probe.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeAccuracy {
    /// The accuracy: the mean over the folds of the cross-validation, or that on the dev file.
    pub accuracy: f64,
    /// The sample standard deviation over the folds; none for a dev file.
    pub deviation: Option<f64>,
    /// The accuracy of the most frequent label of the rows that are predicted.
    pub majority: f64,
    /// The number of rows that are predicted.
    pub rows: usize,
}

impl ProbeData {
    /// Reads texts and labels of `file`, and of `dev` if it is given, and tokenizes the texts; longer ones are truncated to
    /// `sequence_length` tokens.
    ///
    /// # Errors
    /// If a file cannot be read or misses a column, a label is missing or has too few rows, or `sequence_length` is below 5.
    pub fn read(
        file: &Path,
        dev: Option<&Path>,
        columns: &TextColumns,
        tokenizer: &Tokenizer,
        sequence_length: usize,
    ) -> anyhow::Result<ProbeData> {
        let texts = LabelledTexts::read(file, columns)?;
        let names = texts.label_names(None)?;
        let tokenize =
            |texts: &LabelledTexts, path: &Path| ProbeSet::new(texts, path, &names, tokenizer, sequence_length);
        let training = tokenize(&texts, file)?;
        let dev = match dev {
            Some(path) => Some(tokenize(&LabelledTexts::read(path, columns)?, path)?),
            None => None,
        };
        if dev.is_none() {
            training.check_folds(file, &names)?;
        }
        Ok(ProbeData { training, dev, names })
    }

    /// Returns the number of segments of a row, at most: 2 if there are pairs of texts.
    pub fn segments(&self) -> usize {
        let dev = self.dev.as_ref().map_or(1, |dev| dev.examples.segments());
        self.training.examples.segments().max(dev)
    }

    /// Returns the number of texts that were longer than the sequence length.
    pub fn truncated(&self) -> usize {
        self.training.examples.truncated() + self.dev.as_ref().map_or(0, |dev| dev.examples.truncated())
    }

    /// Measures the probe on the embeddings that `forward` (see [`super::embed::encoder`]) computes with `weights`.
    ///
    /// # Errors
    /// If the forward pass fails, or an embedding is not finite.
    pub fn accuracy(&self, forward: &mut Forward, weights: &Weights) -> anyhow::Result<ProbeAccuracy> {
        let classes = self.names.len();
        let values = |features: &HostTensor| features.to_vec::<f32>();
        let training = embeddings(forward, weights, &self.training.examples)?;
        let (width, trained_on) = (training.shape().dims[1], values(&training)?);
        let features = Features::new(self.training.labels.len(), width, &trained_on);
        let Some(dev) = &self.dev else {
            let score = cross_validated_accuracy(&features, &self.training.labels, classes)?;
            let rows = self.training.labels.len();
            let (accuracy, deviation) = (score.accuracy, Some(score.deviation));
            return Ok(ProbeAccuracy { accuracy, deviation, majority: score.majority, rows });
        };
        let probe = Probe::fit(&features, &self.training.labels, classes)?;
        let measured_on = values(&embeddings(forward, weights, &dev.examples)?)?;
        let accuracy = probe.accuracy(&Features::new(dev.labels.len(), width, &measured_on), &dev.labels)?;
        let majority = LabelFrequencies::of(classes, &dev.labels).majority_accuracy();
        Ok(ProbeAccuracy { accuracy, deviation: None, majority, rows: dev.labels.len() })
    }
}

impl ProbeSet {
    fn new(
        texts: &LabelledTexts,
        path: &Path,
        names: &LabelNames,
        tokenizer: &Tokenizer,
        sequence_length: usize,
    ) -> anyhow::Result<ProbeSet> {
        let examples = LabelledExamples::classification(texts, names, tokenizer, sequence_length)?;
        let ExampleLabels::Classes(classes) = examples.labels() else {
            unreachable!("the examples were tokenized for classification")
        };
        let labels = classes.iter().map(|&class| usize::try_from(class)).collect::<Result<_, _>>();
        match labels {
            Ok(labels) => Ok(ProbeSet { examples, labels }),
            Err(_) => bail!("{} requires a label on each row; name the column of the labels", path.display()),
        }
    }

    /// Checks that each fold of the cross-validation gets rows of each class.
    fn check_folds(&self, path: &Path, names: &LabelNames) -> anyhow::Result<()> {
        let counts = self.examples.labels().class_counts(names.len());
        match names.names().iter().zip(counts).find(|(_, count)| *count < FOLDS as u64) {
            Some((name, count)) => bail!(
                "{} requires at least {FOLDS} rows of each label, one for each fold of the probe, got {count} of {name:?}; add \
                 rows, or remove the label",
                path.display()
            ),
            None => Ok(()),
        }
    }
}
