//! Reads a text file as a whole, for files that are small beside a corpus: labelled examples.

use std::io::Read;
use std::path::Path;

use super::decompress::{Compression, Decompressed};
use crate::data::error::{DataError, Result};

/// Splits the extensions of a file name, in lower case: `("dev", "tsv", Gzip)` for `dev.tsv.gz`, an empty extension if
/// there is none.
pub(super) fn split_name(path: &Path) -> (String, String, Compression) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let (inner, compression) = match name.rsplit_once('.') {
        Some((inner, extension)) => match Compression::of_extension(extension) {
            Some(compression) => (inner, compression),
            None => (name.as_str(), Compression::None),
        },
        None => (name.as_str(), Compression::None),
    };
    let (stem, extension) = inner.rsplit_once('.').unwrap_or((inner, ""));
    (stem.to_owned(), extension.to_owned(), compression)
}

/// Returns the last extension of a file name in lower case, without that of a compression: `tsv` for `dev.tsv.gz`.
pub(in crate::data) fn extension_of(path: &Path) -> String {
    split_name(path).1
}

/// Reads a file that is compressed as its name says, or not at all, and returns its text without a byte order mark.
///
/// # Errors
/// If it cannot be read, or is not UTF-8 text.
pub(in crate::data) fn read_whole_text(path: &Path) -> Result<String> {
    let (_, _, compression) = split_name(path);
    let mut source = Decompressed::open(path, compression, 0..u64::MAX, &|_| ())?;
    let mut bytes = Vec::new();
    if let Err(error) = source.reader.read_to_end(&mut bytes) {
        return Err(source.broken(error));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..valid].iter().filter(|&&byte| byte == b'\n').count();
        let byte = error.as_bytes()[valid];
        DataError::file(path, "text in UTF-8", format!("the byte {byte:#04x} on line {line}"), "convert it to UTF-8")
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn extensions_are_those_below_the_compression() {
        for (name, extension) in [("a/dev.tsv.gz", "tsv"), ("DEV.CSV", "csv"), ("x.zst", ""), ("x", "")] {
            assert_eq!(extension_of(Path::new(name)), extension, "{name}");
        }
    }

    #[test]
    fn compressed_text_is_read_and_other_encodings_are_rejected_with_their_line() {
        let directory = tempfile::tempdir().unwrap();
        let [plain, packed] = ["a.txt", "a.txt.gz"].map(|name| directory.path().join(name));
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all("\u{feff}é\n".as_bytes()).unwrap();
        std::fs::write(&packed, encoder.finish().unwrap()).unwrap();
        assert_eq!(read_whole_text(&packed).unwrap(), "é\n");
        std::fs::write(&plain, b"a\n\xe9").unwrap();
        let message = read_whole_text(&plain).unwrap_err().to_string();
        assert!(
            message.ends_with("requires text in UTF-8, got the byte 0xe9 on line 2; convert it to UTF-8"),
            "{message}"
        );
    }
}
