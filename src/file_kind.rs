//! Recognises a file that is something else than its name says, by its first bytes: an archive, a web page, the pointer of
//! Git LFS. Readers of text ask before they read ([`file_kind`]); readers of a format ask when its content cannot be read
//! ([`WrongKind`]).

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::files;

/// A kind of file.
pub(crate) struct FileKind {
    /// The name, for messages.
    pub name: &'static str,
    begins: fn(&[u8]) -> bool,
    /// The next step for the user if another kind was expected.
    pub next: &'static str,
    /// The end of a file name under which such a file is read as text.
    suffix: Option<&'static str>,
}

impl FileKind {
    const fn new(name: &'static str, begins: fn(&[u8]) -> bool, next: &'static str) -> FileKind {
        FileKind { name, begins, next, suffix: None }
    }

    const fn compressed(name: &'static str, suffix: &'static str, begins: fn(&[u8]) -> bool) -> FileKind {
        FileKind { name, begins, next: "unpack it", suffix: Some(suffix) }
    }

    /// Returns the next step for the user if text was expected.
    pub fn next_for_text(&self) -> String {
        match self.suffix {
            Some(suffix) => format!("give it a name that ends in {suffix}, or {}", self.next),
            None => self.next.to_owned(),
        }
    }
}

/// Number of leading bytes that identify a file.
pub(crate) const HEAD: usize = 262;

/// Reads the leading bytes of a file.
pub(crate) fn read_head(file: impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    file.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Returns the kind of a file that begins with `head`, or `None` if it may be text.
pub(crate) fn file_kind(head: &[u8]) -> Option<&'static FileKind> {
    let head = &head[..head.len().min(HEAD)];
    KINDS.iter().find(|kind| (kind.begins)(head))
}

/// The error of a file that is of another kind than its name says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: requires {required}, found {found}; {next}", path.display())]
pub struct WrongKind {
    /// The file.
    pub path: PathBuf,
    /// The required kind.
    pub required: &'static str,
    /// The kind found.
    pub found: &'static str,
    /// The next step for the user.
    pub next: &'static str,
}

impl WrongKind {
    /// Returns the error of the file `path` with `content` that could not be read as `required`; none if its kind is not
    /// recognised.
    pub fn of(path: &Path, required: &'static str, content: &[u8]) -> Option<WrongKind> {
        let FileKind { name, next, .. } = match content.starts_with(BYTE_ORDER_MARK) {
            true => &WITH_BYTE_ORDER_MARK,
            false => file_kind(content)?,
        };
        Some(WrongKind { path: path.to_owned(), required, found: name, next })
    }

    /// As [`WrongKind::of`], for a file that is not in memory.
    pub fn of_file(path: &Path, required: &'static str) -> Option<WrongKind> {
        WrongKind::of(path, required, &files::open(path).and_then(read_head).ok()?)
    }
}

/// The byte order mark of UTF-8, which readers of training text skip.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

const WITH_BYTE_ORDER_MARK: FileKind = FileKind::new(
    "a byte order mark at its start",
    |head| head.starts_with(BYTE_ORDER_MARK),
    "save it as UTF-8 without that mark, which other libraries do not read either",
);

/// Returns `true` for the beginning of a web page.
fn is_html(head: &[u8]) -> bool {
    let head = head.strip_prefix(BYTE_ORDER_MARK).unwrap_or(head).trim_ascii_start();
    let tags: [&[u8]; 3] = [b"<!doctype html", b"<html>", b"<html "];
    tags.iter().any(|tag| head.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag)))
}

/// Returns `true` for the message that a server sent instead of a file: those of Hugging Face, GitHub, S3 and Google Cloud.
fn is_server_message(head: &[u8]) -> bool {
    let texts: [&[u8]; 4] = [b"Entry not found", b"Repository not found", b"404: Not Found", b"Not Found"];
    let xml = head.trim_ascii_start().starts_with(b"<?xml") && head.windows(7).any(|tag| tag == b"<Error>");
    texts.contains(&head.trim_ascii()) || xml
}

/// Returns `true` for text in UTF-16: with a byte order mark, or ASCII characters of which every second byte is zero.
fn is_utf_16(head: &[u8]) -> bool {
    let bytes = |first: usize| head.iter().skip(first).step_by(2);
    let every_second_is_zero = |first: usize| bytes(first).all(|&b| b == 0) && bytes(1 - first).all(|&b| b != 0);
    head.starts_with(b"\xff\xfe")
        || head.starts_with(b"\xfe\xff")
        || head.len() >= 16 && (every_second_is_zero(0) || every_second_is_zero(1))
}

const UNPACK: &str = "unpack it and name the files in it";

/// Training text does not begin with these bytes; most contain a byte that is not UTF-8 or a control character.
const KINDS: &[FileKind] = &[
    // github.com/git-lfs/git-lfs, docs/spec.md.
    FileKind::new(
        "a pointer of Git LFS",
        |head| head.starts_with(b"version https://git-lfs.github.com/spec/"),
        "fetch the content with `git lfs pull`, or download the file itself",
    ),
    FileKind::new("a web page", is_html, "download the file itself, or extract the text of the page"),
    FileKind::new(
        "the error message of a server",
        is_server_message,
        "download the file itself: check its address, and log in if it is not public",
    ),
    FileKind::new(
        "UTF-16 instead of UTF-8",
        is_utf_16,
        "convert it first, for example with `iconv -f UTF-16 -t UTF-8`",
    ),
    FileKind::new(
        "zero bytes only, as after a crash or from a full disk",
        |head| head.len() == HEAD && head.iter().all(|&byte| byte == 0),
        "download or write it again",
    ),
    // RFC 1952, 2.3.1: ID1, ID2, and deflate, the only method.
    FileKind::compressed("gzip", ".gz", |head| head.starts_with(b"\x1f\x8b\x08")),
    // RFC 8878, 3.1.1 and 3.1.2: a frame or a skippable frame.
    FileKind::compressed("zstd", ".zst", |head| {
        let is_skippable = |head: &[u8]| head[0] & 0xf0 == 0x50 && head[1..4] == *b"\x2a\x4d\x18";
        head.starts_with(b"\x28\xb5\x2f\xfd") || head.len() > 3 && is_skippable(head)
    }),
    // github.com/dsnet/compress, bzip2-format.pdf, 2.2: BZh, the level, and the magic number of a block or of the end
    // of the stream.
    FileKind::compressed("bzip2", ".bz2", |head| {
        let number = head.get(4..10);
        head.starts_with(b"BZh") && (number == Some(b"1AY&SY") || number == Some(b"\x17\x72\x45\x38\x50\x90"))
    }),
    // tukaani.org/xz/xz-file-format.txt, 2.1.1.1.
    FileKind::compressed("xz", ".xz", |head| head.starts_with(b"\xfd7zXZ\0")),
    // github.com/lz4/lz4, doc/lz4_Frame_format.md.
    FileKind::new("lz4", |head| head.starts_with(b"\x04\x22\x4d\x18"), "unpack it"),
    // PKWARE's APPNOTE.TXT, 4.3.7; .docx and .epub files are zip archives, too.
    FileKind::new("a zip archive", |head| head.starts_with(b"PK\x03\x04"), UNPACK),
    // 7-zip's DOC/7zFormat.txt, kSignature.
    FileKind::new("a 7z archive", |head| head.starts_with(b"7z\xbc\xaf\x27\x1c"), UNPACK),
    // POSIX.1, pax: the field `magic` of the first header.
    FileKind::new("a tar archive", |head| head.get(257..262) == Some(b"ustar"), UNPACK),
    // github.com/apache/parquet-format: the magic number and the first field of a Thrift structure, a 32-bit number.
    FileKind::new("Parquet", |head| head.starts_with(b"PAR1\x15"), "give it a name that ends in .parquet"),
    // The same, Encryption.md: the magic number and a length below 16 MiB.
    FileKind::new("encrypted Parquet", |head| head.starts_with(b"PARE") && head.get(7) == Some(&0), "decrypt it first"),
    // arrow.apache.org/docs/format/Columnar.html: a file, and a stream, which begins with a continuation marker.
    FileKind::new(
        "Arrow",
        |head| head.starts_with(b"ARROW1\0\0") || head.starts_with(b"\xff\xff\xff\xff"),
        "write it as Parquet",
    ),
    // github.com/huggingface/safetensors: a length below 2^40 and a JSON object.
    FileKind::new("safetensors", |head| head.get(5..10) == Some(b"\0\0\0{\""), "name the text from which it was made"),
    // ISO 28500, the version of the first record; Common Crawl's text files (WET) have the same format.
    FileKind::new("WARC", |head| head.starts_with(b"WARC/1."), "write the text of its records as JSONL"),
    // ISO 32000-1, 7.5.2.
    FileKind::new("PDF", |head| head.starts_with(b"%PDF-"), "extract its text first, for example with `pdftotext`"),
    // gabi.xinuos.com, ELF header, e_ident.
    FileKind::new("an ELF binary", |head| head.starts_with(b"\x7fELF"), "name files with text"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn found(content: &[u8]) -> Option<&'static str> {
        file_kind(content).map(|kind| kind.name)
    }

    #[test]
    fn files_in_the_place_of_others_are_recognised() {
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n";
        assert_eq!(found(pointer.as_bytes()), Some("a pointer of Git LFS"));
        for page in ["<!DOCTYPE html>\n<html>", "\u{feff} \n<!doctype HTML>", "<html lang=\"en\"><head>", "<HTML>"] {
            assert_eq!(found(page.as_bytes()), Some("a web page"), "{page}");
        }
        for message in [
            "Entry not found",
            "404: Not Found\n",
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchKey</Code></Error>",
        ] {
            assert_eq!(found(message.as_bytes()), Some("the error message of a server"), "{message}");
        }
        let utf_16 =
            |text: &str, to_bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(to_bytes).collect::<Vec<u8>>();
        for text in ["\u{feff}Ёж", "A line of text."] {
            assert_eq!(found(&utf_16(text, u16::to_le_bytes)), Some("UTF-16 instead of UTF-8"), "{text}");
            assert_eq!(found(&utf_16(text, u16::to_be_bytes)), Some("UTF-16 instead of UTF-8"), "{text}");
        }
        assert!(found(&[0; 1000]).is_some_and(|name| name.starts_with("zero bytes only")));
        for text in [
            "",
            "version 2 of the text",
            "Entry not found in the list.",
            "<htmlx",
            "\0\0",
            "<?xml version=\"1.0\"?>\n<mediawiki>",
        ] {
            assert_eq!(found(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn an_error_names_the_file_and_both_kinds() {
        let path = Path::new("D/config.json");
        let error = WrongKind::of(path, "JSON", "\u{feff}{}".as_bytes()).unwrap().to_string();
        assert!(
            error.starts_with("D/config.json: requires JSON, found a byte order mark at its start; save it"),
            "{error}"
        );
        let error = WrongKind::of(path, "JSON", b"\x1f\x8b\x08\0").unwrap().to_string();
        assert_eq!(error, "D/config.json: requires JSON, found gzip; unpack it");
        assert_eq!(WrongKind::of(path, "JSON", b"{"), None);
    }
}
