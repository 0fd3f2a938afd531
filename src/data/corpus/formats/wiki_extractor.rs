//! WikiExtractor's output: `<doc id="…" url="…" title="…">`, the title, paragraphs, `</doc>`. The title is not a
//! sentence and is dropped. (With `--json`, WikiExtractor writes JSONL to files of the same names.)

use super::entities::decode_entities;
use crate::data::corpus::decompress::Decompressed;
use crate::data::corpus::lines::Lines;
use crate::data::corpus::text_batch::BatchWriter;
use crate::data::error::{DataError, Result};

/// The first bytes of a file in this format.
pub(in crate::data::corpus) const START: &[u8] = b"<doc id=";

/// Reads a WikiExtractor stream to its end.
pub(in crate::data::corpus) fn read(source: &mut Decompressed, batches: &mut BatchWriter) -> Result<()> {
    let path = source.path;
    let wrong = |required: String, found: String| {
        DataError::file(
            path,
            required,
            found,
            "if it is plain text, name it .txt; if it is truncated, extract it again",
        )
    };
    let mut lines = Lines::new(source);
    // State of the current document: its first line, and its title until the line that repeats it.
    let mut document: Option<(u64, Option<String>)> = None;
    while batches.accepts_more() {
        let Some(line) = lines.next(batches)? else {
            let Some((start, _)) = document else { break };
            return Err(wrong(format!("</doc> after <doc …> on line {start}"), "the end of the file".into()));
        };
        let text = line.text.trim_end();
        match &mut document {
            None if text.starts_with("<doc ") && text.ends_with('>') => {
                let title = text.split_once(" title=\"").and_then(|(_, rest)| rest.rsplit_once('"'));
                let title = title.map(|(title, _)| decode_entities(title).into_owned());
                document = Some((lines.number, title));
            }
            None if text.is_empty() => {}
            None => {
                let found = text.chars().take(40).collect::<String>();
                return Err(wrong(format!("<doc id=…> on line {}", lines.number), format!("{found:?}")));
            }
            Some((start, _)) if text.as_bytes().starts_with(START) && text.ends_with('>') => {
                let found = format!("another <doc …> on line {}", lines.number);
                return Err(wrong(format!("</doc> after <doc …> on line {start}"), found));
            }
            Some(_) if text == "</doc>" => {
                batches.end_record();
                document = None;
            }
            Some(_) if text.is_empty() && !line.is_rest => drop(batches.empty_line()),
            Some((_, title)) => {
                let text = decode_entities(text);
                // WikiExtractor's --json output does not repeat the title; nor do some versions.
                if title.take().is_none_or(|title| title != text) {
                    batches.line(&text);
                }
            }
        }
    }
    Ok(())
}
