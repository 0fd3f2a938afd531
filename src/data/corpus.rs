//! Raw text as a stream of pieces: a piece is a line of text, and documents end where the form of the file says so.
//!
//! In plain text an empty line ends a document, and so does the end of the file. In JSONL every record is a document.
//! Text that was wrapped at some column gives paragraphs in place of lines, and it takes two empty lines to end a document.
//! Files may be gzip (of several members) or zstd (of several frames). Nothing is held but the batch at hand: a line
//! longer than [`LONGEST_LINE`] is cut at white space, and a document has no length at all.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::error::{DataError, Result};
use super::prepared::{Sentences, SourceEntry};
use super::shard::sha256_of_file;

/// Bytes after which a line of plain text is cut.
pub const LONGEST_LINE: usize = 1 << 20;
/// Bytes that a JSONL record may have.
const LONGEST_RECORD: usize = 1 << 28;
/// Bytes of text after which a batch is handed on: enough for all cores to share, little enough to hold several.
const BATCH: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    JsonLines,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

/// One input file.
#[derive(Clone, Debug)]
pub struct Input {
    path: PathBuf,
    form: Form,
    compression: Compression,
    /// Size on disk.
    pub bytes: u64,
    /// Nanoseconds since 1970.
    pub modified: u64,
}

/// The form and compression that a file's name says, or `None` if it says nothing.
fn kind_of(path: &Path) -> (Option<Form>, Compression) {
    let extension = |path: &Path| path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
    let (compression, inner) = match extension(path).as_deref() {
        Some("gz") => (Compression::Gzip, path.with_extension("")),
        Some("zst") => (Compression::Zstd, path.with_extension("")),
        _ => (Compression::None, path.to_owned()),
    };
    let form = match extension(&inner).as_deref() {
        Some("txt" | "text") => Some(Form::Text),
        Some("jsonl" | "ndjson") => Some(Form::JsonLines),
        _ => None,
    };
    (form, compression)
}

/// The files that `paths` name: a file is taken as it is (plain text unless its name says JSONL), a directory gives
/// its `.txt`, `.text`, `.jsonl` and `.ndjson` files, also with `.gz` or `.zst`, at any depth, in the order of their
/// names.
///
/// # Errors
/// If a path does not exist, a directory has no such file, or a file comes twice.
pub fn find_inputs(paths: &[PathBuf]) -> Result<Vec<Input>> {
    let mut inputs: Vec<Input> = Vec::new();
    for path in paths {
        if std::fs::metadata(path).map_err(DataError::io("read", path))?.is_dir() {
            let before = inputs.len();
            collect(path, &mut inputs)?;
            if inputs.len() == before {
                return Err(DataError::file(
                    path,
                    "a file .txt, .text, .jsonl or .ndjson (also .gz, .zst)",
                    "none",
                    "name the files themselves if they are called otherwise",
                ));
            }
        } else {
            inputs.push(Input::new(path, kind_of(path))?);
        }
    }
    let mut seen = std::collections::HashSet::new();
    for input in &inputs {
        if !seen.insert(std::fs::canonicalize(&input.path).map_err(DataError::io("read", &input.path))?) {
            return Err(DataError::file(&input.path, "every input once", "it twice", "name it once"));
        }
    }
    Ok(inputs)
}

fn collect(directory: &Path, inputs: &mut Vec<Input>) -> Result<()> {
    let fail = || DataError::io("list", directory);
    let entries = std::fs::read_dir(directory).map_err(fail())?;
    let mut paths = entries.map(|e| Ok(e?.path())).collect::<io::Result<Vec<_>>>().map_err(fail())?;
    paths.sort();
    for path in paths {
        let metadata = std::fs::metadata(&path).map_err(DataError::io("read", &path))?;
        let kind = kind_of(&path);
        if metadata.is_dir() {
            collect(&path, inputs)?;
        } else if metadata.is_file() && kind.0.is_some() {
            inputs.push(Input::new(&path, kind)?);
        }
    }
    Ok(())
}

impl Input {
    fn new(path: &Path, (form, compression): (Option<Form>, Compression)) -> Result<Self> {
        let mut input =
            Input { path: path.to_owned(), form: form.unwrap_or(Form::Text), compression, bytes: 0, modified: 0 };
        (input.bytes, input.modified) = input.stamp()?;
        Ok(input)
    }

    /// Size and time of last modification, now.
    fn stamp(&self) -> Result<(u64, u64)> {
        let fail = || DataError::io("read the size and time of", &self.path);
        let metadata = std::fs::metadata(&self.path).map_err(fail())?;
        let modified = metadata.modified().map_err(fail())?;
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok((metadata.len(), since.as_nanos() as u64))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path as text; what the manifest calls this input.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Bytes of text to expect, from the size on disk. Compressed text is taken to be four times as long.
    pub fn expected_text(&self) -> u64 {
        if self.compression == Compression::None { self.bytes } else { self.bytes.saturating_mul(4) }
    }

    /// Reads the whole file for its entry in the manifest.
    pub fn entry(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<SourceEntry> {
        let sha256 = sha256_of_file(&self.path, progress)?;
        Ok(SourceEntry { name: self.name(), bytes: self.bytes, modified: self.modified, sha256 })
    }

    /// True if this is still the file of `entry`. Equal size and time stand for equal content; a touched file is read.
    pub fn is_still(&self, entry: &SourceEntry, progress: &(dyn Fn(u64) + Sync)) -> Result<bool> {
        Ok(self.bytes == entry.bytes
            && (self.modified == entry.modified || sha256_of_file(&self.path, progress)? == entry.sha256))
    }

    /// An error if the file was changed since it was found.
    pub fn check_unchanged(&self) -> Result<()> {
        let now = self.stamp()?;
        if now == (self.bytes, self.modified) {
            return Ok(());
        }
        let found = format!("{} bytes now, {} before, or another time of modification", now.0, self.bytes);
        Err(DataError::file(&self.path, "a file at rest", found, "wait until it is written, and start again"))
    }

    fn open<'a>(&self, progress: &'a (dyn Fn(u64) + Sync)) -> Result<Box<dyn BufRead + Send + 'a>> {
        let file = File::open(&self.path).map_err(DataError::io("open", &self.path))?;
        let counted = BufReader::with_capacity(1 << 18, Counted { file, progress });
        Ok(match self.compression {
            Compression::None => Box::new(counted),
            Compression::Gzip => {
                Box::new(BufReader::with_capacity(1 << 18, flate2::bufread::MultiGzDecoder::new(counted)))
            }
            Compression::Zstd => Box::new(BufReader::with_capacity(1 << 18, ZstdFrames::new(counted))),
        })
    }
}

/// A file that reports the bytes read from it.
struct Counted<'a> {
    file: File,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        (self.progress)(read as u64);
        Ok(read)
    }
}

/// The frames of a zstd file, one after the other; the decoder itself reads one.
struct ZstdFrames<R> {
    source: R,
    decoder: ruzstd::decoding::FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> ZstdFrames<R> {
    fn new(source: R) -> Self {
        ZstdFrames { source, decoder: ruzstd::decoding::FrameDecoder::new(), in_frame: false }
    }
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use ruzstd::decoding::BlockDecodingStrategy;
        use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
        loop {
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            if self.in_frame && !self.decoder.is_finished() {
                let strategy = BlockDecodingStrategy::UptoBytes(1 << 17);
                self.decoder.decode_blocks(&mut self.source, strategy).map_err(io::Error::other)?;
                continue;
            }
            if self.source.fill_buf()?.is_empty() {
                return Ok(0);
            }
            match self.decoder.reset(&mut self.source) {
                Ok(()) => self.in_frame = true,
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    io::copy(&mut (&mut self.source).take(length as u64), &mut io::sink())?;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

/// A part of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A line of text, or a paragraph of wrapped lines: a range of [`TextBatch::text`], not empty.
    Line(Range<usize>),
    /// The document at hand ends here.
    DocumentEnd,
}

/// About a mebibyte of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextBatch {
    pub text: String,
    pub pieces: Vec<Piece>,
    /// Bytes of these lines that were not UTF-8.
    pub replaced_bytes: u64,
    /// Lines or paragraphs that were cut in these pieces.
    pub cut_lines: u64,
}

impl TextBatch {
    /// Adds a line if it is more than white space, to the paragraph at hand if it is `joined`.
    fn push_line(&mut self, bytes: &[u8], joined: bool) {
        let start = self.text.len();
        if joined && !self.text.ends_with(char::is_whitespace) {
            self.text.push(' ');
        }
        for chunk in bytes.utf8_chunks() {
            self.text.push_str(chunk.valid());
            if !chunk.invalid().is_empty() {
                self.text.push(char::REPLACEMENT_CHARACTER);
                self.replaced_bytes += chunk.invalid().len() as u64;
            }
        }
        let end = self.text.len();
        match self.pieces.last_mut() {
            _ if self.text[start..].trim().is_empty() => self.text.truncate(start),
            Some(Piece::Line(paragraph)) if joined => paragraph.end = end,
            _ => self.pieces.push(Piece::Line(start..end)),
        }
    }
}

/// Reads the inputs one after the other and hands batches to `sink`, until it returns `false` or the text ends.
/// `jsonl_field` is the key of a record's text, `form` says what a line is; `progress` hears of the bytes read from disk.
///
/// # Errors
/// If a file cannot be read or decompressed, or a record of JSONL has no such text: the line is named.
pub fn read_text(
    inputs: &[Input],
    jsonl_field: &str,
    form: Sentences,
    progress: &(dyn Fn(u64) + Sync),
    sink: &mut dyn FnMut(TextBatch) -> bool,
) -> Result<()> {
    let mut batch = TextBatch::default();
    for input in inputs {
        let mut reader = input.open(progress)?;
        let start = reader.fill_buf().map_err(DataError::io("read", &input.path))?;
        if start.starts_with(b"\xef\xbb\xbf") {
            reader.consume(3);
        }
        let paragraph = Paragraph { wrapped: form == Sentences::Wrapped, is_open: false, empty_lines: 0 };
        let mut lines = Lines { input, reader, line: Vec::new(), number: 0, paragraph };
        let wanted = match input.form {
            Form::Text => lines.text(&mut batch, sink)?,
            Form::JsonLines => lines.records(jsonl_field, &mut batch, sink)?,
        };
        if !wanted {
            return Ok(());
        }
    }
    sink(batch);
    Ok(())
}

/// Which lines belong together.
struct Paragraph {
    wrapped: bool,
    /// The next line goes on with the paragraph at hand. Never, unless lines are wrapped.
    is_open: bool,
    empty_lines: u32,
}

impl Paragraph {
    /// Takes a line that is not empty.
    fn line(&mut self, bytes: &[u8], batch: &mut TextBatch) {
        batch.push_line(bytes, self.is_open);
        self.is_open = self.wrapped;
        self.empty_lines = 0;
    }

    /// Takes an empty line; true if it ends a document of plain text.
    fn empty_line(&mut self) -> bool {
        self.is_open = false;
        self.empty_lines += 1;
        !self.wrapped || self.empty_lines == 2
    }

    /// Hands the batch on if it is full, a paragraph whole if it is not as long as a batch; false if no more is wanted.
    fn hand_on(&mut self, batch: &mut TextBatch, sink: &mut dyn FnMut(TextBatch) -> bool) -> bool {
        let room = if self.is_open { 2 * BATCH } else { BATCH };
        if batch.text.len() < room {
            return true;
        }
        batch.cut_lines += self.is_open as u64;
        self.is_open = false;
        sink(std::mem::take(batch))
    }
}

struct Lines<'a> {
    input: &'a Input,
    reader: Box<dyn BufRead + Send + 'a>,
    line: Vec<u8>,
    number: u64,
    paragraph: Paragraph,
}

impl Lines<'_> {
    /// Appends to `self.line` up to and with the next line feed, at most `limit` bytes in all. False at the end.
    fn read_line(&mut self, limit: usize) -> Result<bool> {
        let room = (limit - self.line.len()) as u64;
        let read = (&mut self.reader).take(room).read_until(b'\n', &mut self.line);
        Ok(read.map_err(DataError::io("read", &self.input.path))? > 0)
    }

    fn text(&mut self, batch: &mut TextBatch, sink: &mut dyn FnMut(TextBatch) -> bool) -> Result<bool> {
        // A cut line's rest stays in `self.line`; it may be empty without being an empty line.
        let mut rest_of_a_line = false;
        while self.read_line(LONGEST_LINE)? || !self.line.is_empty() {
            if self.line.len() == LONGEST_LINE && !self.line.ends_with(b"\n") {
                let end = cut_of(&self.line);
                self.paragraph.line(&self.line[..end], batch);
                batch.cut_lines += !rest_of_a_line as u64;
                self.line.drain(..end);
                rest_of_a_line = true;
            } else {
                if !self.line.trim_ascii().is_empty() || rest_of_a_line {
                    self.paragraph.line(&self.line, batch);
                } else if self.paragraph.empty_line() {
                    batch.pieces.push(Piece::DocumentEnd);
                }
                self.line.clear();
                rest_of_a_line = false;
            }
            if !self.paragraph.hand_on(batch, sink) {
                return Ok(false);
            }
        }
        batch.pieces.push(Piece::DocumentEnd);
        Ok(true)
    }

    fn records(&mut self, field: &str, batch: &mut TextBatch, sink: &mut dyn FnMut(TextBatch) -> bool) -> Result<bool> {
        while self.read_line(LONGEST_RECORD)? {
            self.number += 1;
            if !self.line.trim_ascii().is_empty() {
                self.record(field, batch)?;
            }
            self.line.clear();
            if !self.paragraph.hand_on(batch, sink) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn record(&mut self, field: &str, batch: &mut TextBatch) -> Result<()> {
        let wrong = |found: String| {
            let required = format!("a JSON object with a string {field:?} on line {}", self.number);
            DataError::file(
                &self.input.path,
                required,
                found,
                "correct the record, or name its field with --jsonl-field",
            )
        };
        if self.line.len() == LONGEST_RECORD && !self.line.ends_with(b"\n") {
            return Err(wrong(format!("a line of more than {LONGEST_RECORD} bytes")));
        }
        let record: serde_json::Value = match serde_json::from_slice(&self.line) {
            Ok(record) => record,
            // Bytes that are not UTF-8 are replaced as they are in plain text.
            Err(_) if std::str::from_utf8(&self.line).is_err() => {
                let invalid = self.line.utf8_chunks().map(|chunk| chunk.invalid().len() as u64).sum::<u64>();
                batch.replaced_bytes += invalid;
                serde_json::from_str(&String::from_utf8_lossy(&self.line)).map_err(|e| wrong(e.to_string()))?
            }
            Err(error) => return Err(wrong(error.to_string())),
        };
        let Some(object) = record.as_object() else { return Err(wrong("another JSON value".into())) };
        let text = match object.get(field) {
            Some(serde_json::Value::String(text)) => text,
            Some(_) => return Err(wrong(format!("{field:?} that is not a string"))),
            None => {
                let keys: Vec<&str> = object.keys().map(String::as_str).take(8).collect();
                return Err(wrong(format!("the keys {keys:?}")));
            }
        };
        for line in text.lines() {
            match line.trim().is_empty() {
                true => drop(self.paragraph.empty_line()),
                false => self.paragraph.line(line.as_bytes(), batch),
            }
        }
        self.paragraph.is_open = false;
        batch.pieces.push(Piece::DocumentEnd);
        Ok(())
    }
}

/// Where to cut a line that is too long: after its last white space, or else between two characters.
fn cut_of(line: &[u8]) -> usize {
    if let Some(space) = line.iter().rposition(u8::is_ascii_whitespace) {
        return space + 1;
    }
    // At most three bytes of a character can stand at the end without its last.
    let end = line.len();
    (end - 3..end).rev().find(|&at| line[at] >= 0xc0).unwrap_or(end)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Reads `files` and shows lines, with `¶` for the end of a document. Batches are joined.
    fn read(files: &[(&str, &[u8])]) -> Result<(Vec<String>, u64, u64)> {
        read_as(Sentences::Split, files)
    }

    fn read_as(form: Sentences, files: &[(&str, &[u8])]) -> Result<(Vec<String>, u64, u64)> {
        let directory = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(directory.path().join(name), bytes).unwrap();
        }
        let inputs = find_inputs(&[directory.path().to_owned()])?;
        let (mut shown, mut replaced, mut cut) = (Vec::new(), 0, 0);
        read_text(&inputs, "text", form, &|_| (), &mut |batch| {
            for piece in &batch.pieces {
                shown.push(match piece {
                    Piece::Line(range) => batch.text[range.clone()].trim_end().to_owned(),
                    Piece::DocumentEnd => "¶".into(),
                });
            }
            replaced += batch.replaced_bytes;
            cut += batch.cut_lines;
            true
        })?;
        Ok((shown, replaced, cut))
    }

    #[test]
    fn empty_lines_and_files_end_documents() {
        let (shown, ..) =
            read(&[("a.txt", b"\xef\xbb\xbfOne.\r\nTwo.\r\n \r\nThree."), ("b.txt", b"Four.\n")]).unwrap();
        assert_eq!(shown, ["One.", "Two.", "¶", "Three.", "¶", "Four.", "¶"]);
    }

    #[test]
    fn wrapped_lines_are_joined_to_paragraphs_and_two_empty_ones_end_a_document() {
        let book = b"It was the best\nof times, it was\nthe worst.\n\nA new paragraph\r\n  goes on.  \n \n\n\n\nAnother\nbook.";
        let (shown, ..) = read_as(Sentences::Wrapped, &[("a.txt", book), ("b.txt", b"\n\n\nThe end")]).unwrap();
        let shown: Vec<String> = shown.iter().map(|s| s.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let expected = [
            "It was the best of times, it was the worst.",
            "A new paragraph goes on.",
            "¶",
            "Another book.",
            "¶",
            "¶",
            "The end",
            "¶",
        ];
        assert_eq!(shown, expected);
        let records = b"{\"text\": \"One\\ntwo.\\n\\n\\nThree\\nfour.\"}\n{\"text\": \"Five.\"}";
        let (shown, ..) = read_as(Sentences::Wrapped, &[("a.jsonl", records)]).unwrap();
        assert_eq!(shown, ["One two.", "Three four.", "¶", "Five.", "¶"]);
    }

    #[test]
    fn a_paragraph_longer_than_two_batches_is_cut_and_no_word_of_it_is_lost() {
        let text = "some words of it\n".repeat(300_000);
        let (shown, _, cut) = read_as(Sentences::Wrapped, &[("a.txt", text.as_bytes())]).unwrap();
        assert_eq!((cut, shown.len()), (2, 4), "three paragraphs and the end of the document");
        assert_eq!(shown.iter().flat_map(|piece| piece.split_whitespace()).filter(|w| *w == "words").count(), 300_000);
        // One that ends in time is whole, although a batch is full in the middle of it.
        let text = "some words of it\n".repeat(100_000) + "\nNext.";
        let (shown, _, cut) = read_as(Sentences::Wrapped, &[("a.txt", text.as_bytes())]).unwrap();
        assert_eq!((cut, shown.len(), shown[1].as_str()), (0, 3, "Next."));
    }

    #[test]
    fn records_are_documents_and_bad_ones_are_named() {
        let good = b"{\"text\": \"One.\\n\\nTwo.\", \"n\": 1}\n\n{\"text\": \"Three.\"}";
        assert_eq!(read(&[("a.jsonl", good)]).unwrap().0, ["One.", "Two.", "¶", "Three.", "¶"]);
        for bad in [&b"{\"text\": \"\"}\n{\"body\": \"x\"}"[..], b"\n{\"text\": 3}", b"\n[]", b"\n{\"text\": \"x"] {
            let message = read(&[("a.jsonl", bad)]).unwrap_err().to_string();
            assert!(message.contains("a.jsonl") && message.contains("on line 2"), "{message}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_counted_and_replaced() {
        let (shown, replaced, _) = read(&[("a.txt", b"caf\xe9 \xff\xfe end")]).unwrap();
        assert_eq!((shown[0].as_str(), replaced), ("caf\u{fffd} \u{fffd}\u{fffd} end", 3));
        let (shown, replaced, _) = read(&[("a.jsonl", b"{\"text\": \"caf\xe9\"}")]).unwrap();
        assert_eq!((shown[0].as_str(), replaced), ("caf\u{fffd}", 1));
    }

    #[test]
    fn a_huge_line_is_cut_between_words_and_stays_one_document() {
        let text = "wörd ".repeat(500_000);
        let (shown, replaced, cut) = read(&[("a.txt", text.as_bytes())]).unwrap();
        assert_eq!((replaced, cut, shown.last().unwrap().as_str()), (0, 1, "¶"));
        assert_eq!(shown.iter().filter(|s| *s == "¶").count(), 1);
        let words: usize = shown.iter().map(|line| line.split(' ').filter(|w| *w == "wörd").count()).sum();
        assert_eq!(words, 500_000);
        // Without white space, it is cut between characters.
        let (shown, replaced, _) = read(&[("a.txt", "é".repeat(900_000).as_bytes())]).unwrap();
        assert_eq!((replaced, shown.concat().chars().filter(|&c| c == 'é').count()), (0, 900_000));
    }

    #[test]
    fn gzip_members_and_zstd_frames_are_read_to_the_end() {
        let gzip = |text: &str| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(text.as_bytes()).unwrap();
            encoder.finish().unwrap()
        };
        let zstd = |text: &str| {
            ruzstd::encoding::compress_to_vec(text.as_bytes(), ruzstd::encoding::CompressionLevel::Fastest)
        };
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
        let members = [gzip("One.\n"), gzip("Two.\n")].concat();
        let frames = [zstd("Three.\n"), skippable.to_vec(), zstd("Four.\n")].concat();
        let (shown, ..) = read(&[("a.txt.gz", &members), ("b.txt.zst", &frames)]).unwrap();
        assert_eq!(shown, ["One.", "Two.", "¶", "Three.", "Four.", "¶"]);

        let message = |files: &[(&str, &[u8])]| read(files).unwrap_err().to_string();
        let long = gzip(&"some words of text\n".repeat(1000));
        assert!(message(&[("a.txt.gz", &long[..long.len() / 2])]).contains("a.txt.gz"));
        let long = zstd(&"some words of text\n".repeat(1000));
        assert!(message(&[("b.txt.zst", &long[..long.len() / 2])]).contains("b.txt.zst"));
        assert!(message(&[("b.txt.zst", b"no zstd at all")]).contains("b.txt.zst"));
    }

    #[test]
    fn inputs_that_are_missing_or_hold_nothing_are_refused() {
        assert!(read(&[("notes.md", b"text")]).unwrap_err().to_string().contains("requires a file .txt"));
        let error = find_inputs(&["no-such-file.txt".into()]).unwrap_err();
        assert!(error.to_string().contains("no-such-file.txt"));
    }
}
