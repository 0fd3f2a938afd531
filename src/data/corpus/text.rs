//! Plain text: an empty line ends a document (two, if lines are wrapped), and so does the end of the file.

use std::io::{BufRead, Read};

use super::super::error::Result;
use super::batches::{Batches, LONGEST_LINE, cut_of};
use super::compression::Source;

/// Reads to the end. A line has no length: it is cut at white space as it is read.
pub(super) fn read(source: &mut Source, batches: &mut Batches) -> Result<()> {
    let mut line = Vec::new();
    let mut number = 1_u64;
    // A cut line's rest stays in `line`; it may be empty without being an empty line.
    let mut rest_of_a_line = false;
    while batches.wanted() {
        let room = (LONGEST_LINE - line.len()) as u64;
        let read = source.reader.by_ref().take(room).read_until(b'\n', &mut line);
        if read.map_err(|error| source.broken(error))? == 0 && line.is_empty() {
            break;
        }
        let is_cut = line.len() == LONGEST_LINE && !line.ends_with(b"\n");
        let end = if is_cut { cut_of(&line) } else { line.len() };
        if rest_of_a_line || !line.trim_ascii().is_empty() {
            batches.counts().cut_lines += (is_cut && !rest_of_a_line) as u64;
            let text = batches.decode(&line[..end], || format!("line {number}"))?;
            batches.line(&text);
        } else if batches.empty_line() {
            batches.end_document();
        }
        number += !is_cut as u64;
        line.drain(..end);
        rest_of_a_line = is_cut;
    }
    Ok(())
}
