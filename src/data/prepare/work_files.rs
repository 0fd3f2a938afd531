//! The files that hold finished work: the names that a preparation gives them.

use std::path::Path;

/// File name of the journal.
pub(super) const JOURNAL: &str = "journal.jsonl";

/// The extension of files with token blocks.
pub(super) const SPOOL: &str = "spool";

/// The extension of files with sorted signatures.
pub(super) const SORTED: &str = "sorted";

/// Returns `true` for the name of the journal, and of a file with token blocks or signatures.
pub(super) fn is_work(name: impl AsRef<Path>) -> bool {
    let name = name.as_ref();
    name.ends_with(JOURNAL) || name.extension().is_some_and(|extension| extension == SPOOL || extension == SORTED)
}
