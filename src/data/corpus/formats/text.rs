//! Plain text: an empty line ends a document (two, if lines are wrapped), and so does the end of the file.

use crate::data::corpus::decompress::Decompressed;
use crate::data::corpus::lines::Lines;
use crate::data::corpus::text_batch::Batches;
use crate::data::error::Result;

/// Reads to the end.
pub(in crate::data::corpus) fn read(source: &mut Decompressed, batches: &mut Batches) -> Result<()> {
    let mut lines = Lines::new(source);
    while batches.wanted() {
        let Some(line) = lines.next(batches)? else { break };
        if line.is_rest || !line.text.trim().is_empty() {
            batches.line(&line.text);
        } else if batches.empty_line() {
            batches.end_document();
        }
    }
    Ok(())
}
