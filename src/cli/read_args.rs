//! How corpora are read: the options that every verb over text shares.

use clap::{Args, ValueEnum};

use crate::data::{ReadOptions, Tolerance};

#[derive(Debug, Args)]
pub struct ReadArgs {
    /// Key of the text in each record of JSONL.
    #[arg(long, alias = "jsonl-field", default_value = "text", value_name = "NAME")]
    text_field: String,
    /// Bytes that are not UTF-8.
    #[arg(long, value_enum, default_value_t = OnFault::Count, value_name = "WHAT")]
    invalid_utf8: OnFault,
    /// Records without a text.
    #[arg(long, value_enum, default_value_t = OnFault::Refuse, value_name = "WHAT")]
    missing_text: OnFault,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnFault {
    /// Count it and go on without it.
    Count,
    /// End with an error that names the place.
    Refuse,
}

impl ReadArgs {
    pub fn options(self) -> ReadOptions {
        let tolerance = |on_fault| match on_fault {
            OnFault::Count => Tolerance::Count,
            OnFault::Refuse => Tolerance::Refuse,
        };
        ReadOptions {
            text_field: self.text_field,
            invalid_utf8: tolerance(self.invalid_utf8),
            missing_text: tolerance(self.missing_text),
            ..ReadOptions::default()
        }
    }
}
