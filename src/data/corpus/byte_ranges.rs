//! Splits an uncompressed file into byte ranges ("parts") that are read in parallel. Each part begins and ends at a
//! document boundary. A compressed file is one part, because it can only be read from its beginning.

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;

use super::input::{Input, InputFormat};
use super::options::{ReadOptions, SentenceMode};
use super::text_batch::TextBatch;
use crate::data::error::{DataError, Result};
use crate::files;

/// Bytes of a part, without the rest of its last document.
#[cfg(not(test))]
const PART: u64 = 64 << 20;
/// Small in tests, so that a file has many parts.
#[cfg(test)]
const PART: u64 = 64;

impl Input {
    /// Returns the number of parts, which depends on the file alone.
    pub fn parts(&self) -> u32 {
        if self.is_divisible() { self.bytes.div_ceil(PART).max(1) as u32 } else { 1 }
    }

    /// Returns the number of bytes on disk of a part.
    pub fn bytes_of_part(&self, part: u32) -> u64 {
        if self.is_divisible() { (self.bytes - part as u64 * PART).min(PART) } else { self.bytes }
    }

    /// Reads one part as [`Input::read`] reads the whole input. All parts together equal [`Input::read`].
    ///
    /// # Errors
    /// As [`Input::read`].
    pub fn read_part(
        &self,
        part: u32,
        options: &ReadOptions,
        progress: &(dyn Fn(u64) + Sync),
        sink: &mut dyn FnMut(TextBatch) -> bool,
    ) -> Result<bool> {
        if self.parts() == 1 {
            return self.read(options, progress, sink);
        }
        let Some(start) = self.document_at(part, options)? else { return Ok(true) };
        let mut ends = (part + 1..self.parts()).map(|next| self.document_at(next, options));
        let end = ends.find_map(Result::transpose).unwrap_or(Ok(self.bytes))?;
        self.read_range(start..end, options, progress, sink).map_err(|error| {
            // The range counts lines from its own beginning; read the whole file for the line number in the file.
            self.read_range(0..end, options, &|_| (), &mut |_| true).err().unwrap_or(error)
        })
    }

    /// Returns the start of the first document that begins in a part, or `None` if no document does.
    fn document_at(&self, part: u32, options: &ReadOptions) -> Result<Option<u64>> {
        if part == 0 {
            return Ok(Some(0));
        }
        // Starts one byte early: that byte may end the previous line.
        let Range { start, end } = part as u64 * PART - 1..(part as u64 + 1) * PART - 1;
        let fail = || DataError::io("read", self.path());
        let mut file = files::open(self.path()).map_err(fail())?;
        file.seek(SeekFrom::Start(start)).map_err(fail())?;
        let empty_lines_wanted = match (self.format, options.sentences) {
            (InputFormat::JsonLines, _) => 0,
            (_, SentenceMode::Wrapped) => 2,
            _ => 1,
        };
        let mut reader = BufReader::new(file.take(end - start));
        // The first line began before `start`, with unknown content.
        let (mut is_empty, mut empty_lines, mut at) = (false, 0, start);
        loop {
            let bytes = reader.fill_buf().map_err(fail())?;
            if bytes.is_empty() {
                return Ok(None);
            }
            for (index, &byte) in bytes.iter().enumerate() {
                if byte == b'\n' {
                    empty_lines = if is_empty { empty_lines + 1 } else { 0 };
                    is_empty = true;
                    if empty_lines >= empty_lines_wanted {
                        return Ok(Some(at + index as u64 + 1));
                    }
                } else {
                    is_empty &= byte.is_ascii_whitespace();
                }
            }
            let length = bytes.len();
            at += length as u64;
            reader.consume(length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::corpus::{TextEvent, find_inputs};
    use crate::rng::Key;

    /// Returns the lines that `read` produces, with `
    /// ` for the end of a document.
    fn shown(read: impl FnOnce(&mut dyn FnMut(TextBatch) -> bool)) -> Vec<String> {
        let mut shown = Vec::new();
        read(&mut |batch| {
            shown.extend(batch.events.iter().map(|event| match event {
                TextEvent::Line(range) => batch.text[range.clone()].to_owned(),
                TextEvent::DocumentEnd => "¶".to_owned(),
            }));
            true
        });
        shown
    }

    #[test]
    fn parts_together_equal_the_whole_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut stream = Key::new(3).stream();
        let mut most_parts = 0;
        for (name, sentences) in [
            ("a.txt", SentenceMode::Split),
            ("b.txt", SentenceMode::Lines),
            ("c.txt", SentenceMode::Wrapped),
            ("d.jsonl", SentenceMode::Split),
        ] {
            for round in 0..60 {
                let mut text = String::new();
                for _ in 0..stream.below(60) {
                    // Documents shorter and much longer than a part, and any number of empty lines.
                    let words = "word ".repeat(stream.between(1, 3 + round) as usize);
                    match name.ends_with("jsonl") {
                        true => text += &format!("{{\"text\": \"{words}\"}}\n"),
                        false => text += &[&words, "\n", &" \n".repeat(stream.below(4) as usize)].concat(),
                    }
                }
                let path = directory.path().join(name);
                std::fs::write(&path, &text).unwrap();
                let input = &find_inputs(&[path]).unwrap().inputs[0];
                let options = ReadOptions { sentences, ..ReadOptions::default() };
                let whole = shown(|sink| assert!(input.read(&options, &|_| (), sink).unwrap()));
                let parts = shown(|sink| {
                    (0..input.parts())
                        .for_each(|part| assert!(input.read_part(part, &options, &|_| (), sink).unwrap()));
                });
                assert_eq!(parts, whole, "{text:?}");
                assert_eq!((0..input.parts()).map(|part| input.bytes_of_part(part)).sum::<u64>(), text.len() as u64);
                most_parts = most_parts.max(input.parts());
            }
        }
        assert!(most_parts > 20);
    }

    #[test]
    fn error_in_a_part_names_the_line_of_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.jsonl");
        std::fs::write(&path, "{\"text\": \"some words\"}\n".repeat(20) + "{\"body\": 3}\n").unwrap();
        let input = &find_inputs(std::slice::from_ref(&path)).unwrap().inputs[0];
        let read = |part| input.read_part(part, &ReadOptions::default(), &|_| (), &mut |_| true);
        let error = (0..input.parts()).find_map(|part| read(part).err()).expect("a record without its text");
        assert!(error.to_string().contains("line 21"), "{error}");
    }
}
