//! sha256 of bytes and of files, as lower-case hexadecimal digits.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

/// Returns the sha256 of `bytes` as 64 lower-case hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(Sha256::new_with_prefix(bytes))
}

/// Returns the digits of what `hasher` has been given.
pub fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the sha256 of all that `reader` gives; `progress` receives the size of every block that was read, in bytes.
///
/// # Errors
/// If reading fails.
pub fn sha256_of_reader(mut reader: impl Read, progress: &(dyn Fn(u64) + Sync)) -> io::Result<String> {
    let mut buffer = vec![0; 1 << 20];
    let mut hasher = Sha256::new();
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(hex(hasher)),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                progress(read as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_reader_give_the_published_digest() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // FIPS 180-4, "abc"
        assert_eq!(sha256_hex(b"abc"), expected);
        assert_eq!(sha256_of_reader(&b"abc"[..], &|_| ()).unwrap(), expected);
    }
}
