//! sha256 of bytes, files and streams, as 64 lower-case hexadecimal digits.

use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::files;

/// Bytes that are read at once.
const BLOCK: usize = 1 << 20;

/// Returns the sha256 of `bytes`.
pub fn sha256_hex(bytes: &[u8]) -> String {
    let mut hasher = Sha256Hasher::default();
    hasher.update(bytes);
    hasher.finish()
}

/// The value of the key `sha256` in a JSON text that is not sealed.
const UNSEALED: &str = "\"sha256\": \"\"";

/// Seals a JSON text: its first key `sha256`, whose value is empty, receives the sha256 of the text as it is.
pub fn seal(text: &str) -> String {
    text.replacen(UNSEALED, &format!("\"sha256\": \"{}\"", sha256_hex(text.as_bytes())), 1)
}

/// Returns whether a text is as [`seal`] returned it, with the value `sha256`.
pub fn is_sealed(text: &str, sha256: &str) -> bool {
    !sha256.is_empty() && sha256_hex(text.replacen(sha256, "", 1).as_bytes()) == sha256
}

/// Returns the sha256 of the file `path`; `progress` receives the size of each block that was read, in bytes.
///
/// # Errors
/// If the file cannot be opened or read.
pub fn sha256_of_file(path: &Path, progress: &(dyn Fn(u64) + Sync)) -> io::Result<String> {
    sha256_of_reader(files::open(path)?, progress)
}

/// Returns the sha256 of all bytes of `reader`; `progress` receives the size of each block that was read, in bytes.
///
/// # Errors
/// If reading fails.
pub fn sha256_of_reader(mut reader: impl Read, progress: &(dyn Fn(u64) + Sync)) -> io::Result<String> {
    let mut buffer = vec![0; BLOCK];
    let mut hasher = Sha256Hasher::default();
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                progress(read as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Returns the version and the sha256 of this program.
///
/// # Errors
/// If its file cannot be read.
pub fn program_identity() -> io::Result<String> {
    // On Linux, this is the file that was started, even if another one has taken its place since.
    let link = Path::new("/proc/self/exe");
    let path = if link.exists() { link.to_path_buf() } else { std::env::current_exe()? };
    Ok(format!("lambert {}, sha256 {}", env!("CARGO_PKG_VERSION"), sha256_of_file(&path, &|_| ())?))
}

/// The sha256 of bytes that arrive in several pieces.
#[derive(Clone, Debug, Default)]
pub struct Sha256Hasher(Sha256);

impl Sha256Hasher {
    /// Adds `bytes` to the hashed content.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the sha256 of all bytes that were added.
    pub fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A writer that hashes and counts the bytes that pass through it.
#[derive(Debug)]
pub struct Sha256Writer<W> {
    inner: W,
    hasher: Sha256Hasher,
    bytes: u64,
}

impl<W: Write> Sha256Writer<W> {
    /// Returns a writer that passes its bytes on to `inner`.
    pub fn new(inner: W) -> Self {
        Sha256Writer { inner, hasher: Sha256Hasher::default(), bytes: 0 }
    }

    /// Returns the number of bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the inner writer, and the sha256 of all bytes written.
    pub fn finish(self) -> (W, String) {
        (self.inner, self.hasher.finish())
    }
}

impl<W: Write> Write for Sha256Writer<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_text_cannot_be_changed() {
        let text = seal("{\"format\": 1, \"sha256\": \"\", \"rows\": 7}");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let sha256 = value["sha256"].as_str().unwrap();
        assert!(sha256.len() == 64 && is_sealed(&text, sha256));
        assert!(!is_sealed(&text.replace('7', "8"), sha256));
        assert!(!is_sealed(&text, "") && !is_sealed(&text, &"0".repeat(64)));
    }

    #[test]
    fn bytes_readers_files_and_writers_give_the_published_digest() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // FIPS 180-4, "abc"
        assert_eq!(sha256_hex(b"abc"), expected);
        assert_eq!(sha256_of_reader(&b"abc"[..], &|_| ()).unwrap(), expected);
        let mut writer = Sha256Writer::new(Vec::new());
        writer.write_all(b"a").unwrap();
        writer.write_all(b"bc").unwrap();
        assert_eq!(writer.bytes(), 3);
        let (bytes, digest) = writer.finish();
        assert_eq!((bytes.as_slice(), digest.as_str()), (&b"abc"[..], expected));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        assert_eq!(sha256_of_file(file.path(), &|_| ()).unwrap(), expected);
    }
}
