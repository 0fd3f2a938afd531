//! The options of a probe.

use std::path::PathBuf;

use clap::Args;

use super::pooling::Pooling;
use super::prediction::note_truncated;
use crate::bert::EncoderOutput;
use crate::data::{Column, TextColumns};
use crate::run::weights::FoundModel;
use crate::train::probe::ModelProbe;

#[derive(Debug, Args)]
#[command(next_help_heading = "Probe")]
pub struct ProbeArgs {
    /// Labelled texts (.tsv, .csv, .jsonl, .parquet) that the probe is trained on
    #[arg(long, value_name = "FILE")]
    probe: Option<PathBuf>,
    /// Labelled texts that the probe is measured on [default: 5-fold cross-validation on --probe]
    #[arg(long, requires = "probe", value_name = "FILE")]
    probe_dev: Option<PathBuf>,
    /// Column of the texts: a name, or a number from 1 in a file without a header
    #[arg(long, requires = "probe", default_value = "text", value_name = "COL")]
    probe_text: Column,
    /// Column of the second texts of pairs
    #[arg(long, requires = "probe", value_name = "COL")]
    probe_text_pair: Option<Column>,
    /// Column of the labels
    #[arg(long, requires = "probe", default_value = "label", value_name = "COL")]
    probe_label: Column,
    /// Pooling of the hidden states to features
    #[arg(long, requires = "probe", value_enum, default_value_t, value_name = "POOLING")]
    pooling: Pooling,
}

impl ProbeArgs {
    /// Reads the probe of `model`, if one is requested, and prints how many texts were truncated.
    ///
    /// # Errors
    /// As [`ModelProbe::open`].
    pub fn open(&self, model: &FoundModel, sequence_length: Option<usize>) -> anyhow::Result<Option<ModelProbe>> {
        let Some(file) = &self.probe else { return Ok(None) };
        let columns = TextColumns {
            text: self.probe_text.clone(),
            text_pair: self.probe_text_pair.clone(),
            label: Some(self.probe_label.clone()),
        };
        let probe = ModelProbe::open(model.clone(), file, self.probe_dev.as_deref(), &columns, sequence_length)?;
        note_truncated(probe.data.truncated(), "probe text", probe.model.sequence_length);
        Ok(Some(probe))
    }

    pub fn pooling(&self) -> EncoderOutput {
        self.pooling.output()
    }
}
