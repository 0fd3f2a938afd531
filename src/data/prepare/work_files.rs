//! The files that hold finished work: the names that a preparation gives them.

use std::path::Path;

/// File name of the journal.
pub(super) const JOURNAL: &str = "journal.jsonl";

/// The extension of files with token blocks.
pub(super) const SPOOL: &str = "spool";

/// The extension of files with sorted signatures.
pub(super) const SORTED: &str = "sorted";

/// The next step for a user whose disk has changed such a file.
pub(super) const CHECK_THE_DISK: &str =
    "the disk is unreliable: check it, then prepare this part again, or all text with force if there are no parts";

/// Returns `true` for the name of the journal, and of a file with token blocks or signatures.
pub(super) fn is_work(name: impl AsRef<Path>) -> bool {
    let name = name.as_ref();
    name.ends_with(JOURNAL) || name.extension().is_some_and(|extension| extension == SPOOL || extension == SORTED)
}
