//! Probes as metrics: of a saved model, and at each evaluation of a training run.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;

use crate::bert::{BertConfig, EncoderOutput};
use crate::data::TextColumns;
use crate::metrics::MetricKind;
use crate::pjrt::Buffer;
use crate::predict::TextModel;
use crate::predict::embed::encoder;
use crate::predict::forward::{Forward, ForwardSettings};
use crate::predict::probe::{ProbeAccuracy, ProbeData};
use crate::probe::ProbeError;
use crate::report::evaluation::{Metric, PROBE};
use crate::run::weights::FoundModel;
use crate::runtime::devices::Devices;
use crate::task::{ParamSpec, Precision};

/// The embeddings that a training run is probed with.
const POOLING: EncoderOutput = EncoderOutput::Mean;

/// Returns the metric `probe_accuracy`, with the majority rate as its baseline.
pub fn probe_metric(measured: &ProbeAccuracy) -> Metric {
    Metric {
        head: PROBE.to_owned(),
        name: "probe_accuracy".to_owned(),
        label: "probe accuracy".to_owned(),
        kind: MetricKind::Share,
        value: measured.accuracy,
        baseline: Some(measured.majority),
        labels: measured.rows as f64,
    }
}

/// The probe of a training run.
#[derive(Clone, Debug)]
pub struct ProbeSpec {
    /// The configuration of the model.
    pub model: BertConfig,
    /// Precision and batch size.
    pub settings: ForwardSettings,
    /// Texts and labels, tokenized for the sequence length of each phase.
    pub data: Vec<Arc<ProbeData>>,
}

/// The probe of a training run on one device of the leading host.
pub struct ProbeEvaluator {
    forward: Forward,
    data: Vec<Arc<ProbeData>>,
}

impl ProbeEvaluator {
    /// Takes the first of `devices`, which belongs to this host. The encoder is compiled at the first evaluation.
    pub fn new(spec: &ProbeSpec, devices: &Devices) -> ProbeEvaluator {
        let forward = encoder(&spec.model, POOLING, &devices.first(1), spec.settings);
        ProbeEvaluator { forward, data: spec.data.clone() }
    }

    /// Measures the probe in phase `phase` of a model with parameters `specs` and unsharded `weights`, `[device][tensor]`. Returns
    /// the reason instead if the regression does not converge or an embedding is not finite; training can continue.
    ///
    /// # Errors
    /// If the device fails.
    pub fn evaluate(
        &mut self,
        phase: usize,
        specs: &[ParamSpec],
        weights: &[Vec<Buffer>],
    ) -> anyhow::Result<Result<Metric, ProbeError>> {
        let weights = self.forward.select(specs, &weights[..1])?;
        metric_or_reason(self.data[phase].accuracy(&mut self.forward, &weights))
    }
}

/// Separates the errors of a probe from those of a device.
fn metric_or_reason(measured: anyhow::Result<ProbeAccuracy>) -> anyhow::Result<Result<Metric, ProbeError>> {
    match measured {
        Ok(measured) => Ok(Ok(probe_metric(&measured))),
        Err(error) => error.downcast().map(Err),
    }
}

/// A saved model, and the texts and labels that it is probed with.
#[derive(Debug)]
pub struct ModelProbe {
    /// The model and its tokenizer.
    pub model: TextModel,
    /// Texts and labels.
    pub data: ProbeData,
    /// The precision of the matrix products.
    pub precision: Precision,
}

impl ModelProbe {
    /// Reads the texts and labels for the probe of `model`. The precision is that of the run that pretrained it, and texts are
    /// truncated to `sequence_length` tokens, by default the length of the last phase of that run, or 128.
    ///
    /// # Errors
    /// If the model has no tokenizer, or too few token types for pairs; as [`ProbeData::read`].
    pub fn open(
        model: FoundModel,
        file: &Path,
        dev: Option<&Path>,
        columns: &TextColumns,
        sequence_length: Option<usize>,
    ) -> anyhow::Result<ModelProbe> {
        let run = model.run();
        let sequence_length = sequence_length.unwrap_or_else(|| model.trained_length(run.as_ref()));
        let model = TextModel::open(model, Some(sequence_length))?;
        let data = ProbeData::read(file, dev, columns, &model.tokenizer, sequence_length)?;
        model.model.config.validate_segments(data.segments()).with_context(|| file.display().to_string())?;
        Ok(ModelProbe { model, data, precision: run.map(|run| run.precision).unwrap_or_default() })
    }

    /// Measures the probe on embeddings that are pooled by `pooling`.
    ///
    /// # Errors
    /// If the model lacks a tensor, a device fails, or an embedding is not finite.
    pub fn measure(
        self,
        pooling: EncoderOutput,
        micro_batch_size: usize,
        devices: &Devices,
    ) -> anyhow::Result<ProbeAccuracy> {
        let settings = ForwardSettings { precision: self.precision, micro_batch_size };
        let mut forward = encoder(&self.model.model.config, pooling, devices, settings);
        let weights = forward.load(self.model.model)?;
        self.data.accuracy(&mut forward, &weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embeddings_without_a_probe_are_no_failure_of_the_device() {
        let accuracy = ProbeAccuracy { accuracy: 0.75, deviation: None, majority: 0.5, rows: 8 };
        let measured = metric_or_reason(Ok(accuracy)).unwrap().unwrap();
        assert_eq!((measured.name.as_str(), measured.value, measured.baseline), ("probe_accuracy", 0.75, Some(0.5)));
        for reason in [ProbeError::NotConverged { iterations: 7 }, ProbeError::NotFinite { row: 1, feature: 2 }] {
            assert_eq!(metric_or_reason(Err(reason.clone().into())).unwrap(), Err(reason));
        }
        assert!(metric_or_reason(Err(anyhow::anyhow!("the device is lost"))).is_err());
    }
}
