//! The values that must be equal on all hosts of a run.

use anyhow::Context;

use super::Run;
use super::initial_state::data_fingerprint;
use crate::data::PreparedData;
use crate::digest::program_identity;
use crate::rendezvous::agreement::SharedValues;

/// Returns the values that determine the training steps of a host: the run file, the prepared data (wherever it is stored on this
/// host), the vocabulary and this program.
///
/// # Errors
/// If the file of this program cannot be read.
pub fn shared_values(run: &Run, prepared: &PreparedData) -> anyhow::Result<SharedValues> {
    let mut table: toml::Table = toml::from_str(&run.text).context("the run file is not TOML")?;
    // Each host may have its own local directories.
    for (name, key) in [("data", "path"), ("data", "cache"), ("checkpoint", "cache")] {
        if let Some(place) = table.get_mut(name).and_then(toml::Value::as_table_mut) {
            place.remove(key);
        }
    }
    let program = program_identity().context("cannot read the file of this program")?;
    Ok(SharedValues::from([
        ("the run file".to_owned(), serde_json::to_value(table)?),
        ("the prepared data".to_owned(), data_fingerprint(prepared.manifest()).into()),
        ("the vocabulary".to_owned(), prepared.vocabulary().sha256().into()),
        ("the program".to_owned(), program.into()),
    ]))
}
