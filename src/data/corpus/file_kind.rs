//! Recognises files that are not text by their first bytes, under any name.

use std::io::{self, Read};

/// A kind of file that is not text.
pub(super) struct Kind {
    pub name: &'static str,
    begins: fn(&[u8]) -> bool,
    /// The next step for the user if text was expected.
    pub next: &'static str,
}

/// Number of leading bytes that identify a file.
pub(super) const HEAD: usize = 262;

/// Reads the leading bytes of a file.
pub(super) fn read_head(file: impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    file.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Returns the kind of a file that begins with `head`, or `None` if it may be text.
pub(super) fn file_kind(head: &[u8]) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| (kind.begins)(head))
}

const UNPACK: &str = "unpack it and name the files in it";

/// Training text does not begin with these bytes; most contain a byte that is not UTF-8 or a control character.
const KINDS: &[Kind] = &[
    // RFC 1952, 2.3.1: ID1, ID2, and deflate, the only method.
    Kind {
        name: "gzip",
        begins: |head| head.starts_with(b"\x1f\x8b\x08"),
        next: "give it a name that ends in .gz, or unpack it",
    },
    // RFC 8878, 3.1.1 and 3.1.2: a frame or a skippable frame.
    Kind {
        name: "zstd",
        begins: |head| {
            let is_skippable = |head: &[u8]| head[0] & 0xf0 == 0x50 && head[1..4] == *b"\x2a\x4d\x18";
            head.starts_with(b"\x28\xb5\x2f\xfd") || head.len() > 3 && is_skippable(head)
        },
        next: "give it a name that ends in .zst, or unpack it",
    },
    // github.com/dsnet/compress, bzip2-format.pdf, 2.2: BZh, the level, and the magic number of a block or of the end
    // of the stream.
    Kind {
        name: "bzip2",
        begins: |head| {
            let number = head.get(4..10);
            head.starts_with(b"BZh") && (number == Some(b"1AY&SY") || number == Some(b"\x17\x72\x45\x38\x50\x90"))
        },
        next: "give it a name that ends in .bz2, or unpack it",
    },
    // tukaani.org/xz/xz-file-format.txt, 2.1.1.1.
    Kind {
        name: "xz",
        begins: |head| head.starts_with(b"\xfd7zXZ\0"),
        next: "give it a name that ends in .xz, or unpack it",
    },
    // github.com/lz4/lz4, doc/lz4_Frame_format.md.
    Kind { name: "lz4", begins: |head| head.starts_with(b"\x04\x22\x4d\x18"), next: "unpack it" },
    // PKWARE's APPNOTE.TXT, 4.3.7; .docx and .epub files are zip archives, too.
    Kind { name: "a zip archive", begins: |head| head.starts_with(b"PK\x03\x04"), next: UNPACK },
    // 7-zip's DOC/7zFormat.txt, kSignature.
    Kind { name: "a 7z archive", begins: |head| head.starts_with(b"7z\xbc\xaf\x27\x1c"), next: UNPACK },
    // POSIX.1, pax: the field `magic` of the first header.
    Kind { name: "a tar archive", begins: |head| head.get(257..262) == Some(b"ustar"), next: UNPACK },
    // github.com/apache/parquet-format: the magic number and the first field of a Thrift structure, a 32-bit number.
    Kind {
        name: "Parquet",
        begins: |head| head.starts_with(b"PAR1\x15"),
        next: "give it a name that ends in .parquet",
    },
    // The same, Encryption.md: the magic number and a length below 16 MiB.
    Kind {
        name: "encrypted Parquet",
        begins: |head| head.starts_with(b"PARE") && head.get(7) == Some(&0),
        next: "decrypt it first",
    },
    // arrow.apache.org/docs/format/Columnar.html: a file, and a stream, which begins with a continuation marker.
    Kind {
        name: "Arrow",
        begins: |head| head.starts_with(b"ARROW1\0\0") || head.starts_with(b"\xff\xff\xff\xff"),
        next: "write it as Parquet",
    },
    // github.com/huggingface/safetensors: a length below 2^40 and a JSON object.
    Kind {
        name: "safetensors",
        begins: |head| head.get(5..10) == Some(b"\0\0\0{\""),
        next: "name the text from which it was made",
    },
    // ISO 28500, the version of the first record; Common Crawl's text files (WET) have the same format.
    Kind { name: "WARC", begins: |head| head.starts_with(b"WARC/1."), next: "write the text of its records as JSONL" },
    // ISO 32000-1, 7.5.2.
    Kind {
        name: "PDF",
        begins: |head| head.starts_with(b"%PDF-"),
        next: "extract its text first, for example with `pdftotext`",
    },
    // gabi.xinuos.com, ELF header, e_ident.
    Kind { name: "an ELF binary", begins: |head| head.starts_with(b"\x7fELF"), next: "name files with text" },
];
