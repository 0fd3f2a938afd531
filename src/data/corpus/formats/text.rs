//! Plain text: an empty line (two, if lines are wrapped) or the end of the file ends a document.

use crate::data::corpus::decompress::Decompressed;
use crate::data::corpus::lines::Lines;
use crate::data::corpus::text_batch::BatchWriter;
use crate::data::error::Result;

/// Reads a text stream to its end.
pub(in crate::data::corpus) fn read(source: &mut Decompressed, batches: &mut BatchWriter) -> Result<()> {
    let mut lines = Lines::new(source);
    while batches.accepts_more() {
        let Some(line) = lines.next(batches)? else { break };
        if line.is_rest || !line.text.trim().is_empty() {
            batches.line(&line.text);
        } else if batches.empty_line() {
            batches.end_document();
        }
    }
    Ok(())
}
