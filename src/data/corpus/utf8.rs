//! Turns a byte stream into valid UTF-8, for a reader that accepts nothing else. Invalid bytes are replaced as by
//! [`String::from_utf8_lossy`], or rejected, independently of buffer boundaries.

use std::io::{self, BufRead, ErrorKind, Read};

use super::options::Tolerance;

/// The bytes of `inner` with invalid UTF-8 replaced.
pub(super) struct Utf8<R> {
    inner: R,
    tolerance: Tolerance,
    /// The number of next bytes of `inner` that are complete characters.
    valid: usize,
    /// Output that precedes them: a character that spanned two buffers, or U+FFFD for invalid bytes.
    pending: Vec<u8>,
    /// Bytes replaced since the last query.
    replaced: u64,
    /// The invalid bytes that ended the stream.
    refused: Option<Vec<u8>>,
}

impl<R: BufRead> Utf8<R> {
    pub fn new(inner: R, tolerance: Tolerance) -> Self {
        Utf8 { inner, tolerance, valid: 0, pending: Vec::new(), replaced: 0, refused: None }
    }

    /// Returns how many bytes were replaced since the last call.
    pub fn take_replaced(&mut self) -> u64 {
        std::mem::take(&mut self.replaced)
    }

    /// Returns the rejected bytes, if they are why reading failed.
    pub fn refused(self) -> Option<Vec<u8>> {
        self.refused
    }

    /// Finds the next output; none at the end.
    fn advance(&mut self) -> io::Result<()> {
        let bytes = self.inner.fill_buf()?;
        let Err(error) = std::str::from_utf8(bytes) else {
            self.valid = bytes.len();
            return Ok(());
        };
        self.valid = error.valid_up_to();
        match error.error_len() {
            _ if self.valid > 0 => Ok(()),
            Some(length) => {
                let invalid = bytes[..length].to_vec();
                self.inner.consume(length);
                self.replace(invalid)
            }
            None => self.character_across_buffers(),
        }
    }

    /// Completes a character of which the buffer holds only the beginning.
    fn character_across_buffers(&mut self) -> io::Result<()> {
        let mut character = Vec::new();
        loop {
            let next = self.inner.fill_buf()?.first().copied();
            character.extend(next);
            match std::str::from_utf8(&character) {
                Err(error) if error.error_len().is_none() && next.is_some() => self.inner.consume(1),
                Ok(_) => {
                    self.inner.consume(1);
                    self.pending = character;
                    return Ok(());
                }
                // The character ends too early; the byte that shows it belongs to the next one.
                Err(_) => {
                    character.truncate(character.len() - next.is_some() as usize);
                    return self.replace(character);
                }
            }
        }
    }

    fn replace(&mut self, invalid: Vec<u8>) -> io::Result<()> {
        if self.tolerance == Tolerance::Refuse {
            self.refused = Some(invalid);
            return Err(io::Error::new(ErrorKind::InvalidData, "bytes that are not UTF-8"));
        }
        self.replaced += invalid.len() as u64;
        self.pending = "\u{fffd}".into();
        Ok(())
    }
}

impl<R: BufRead> BufRead for Utf8<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.valid == 0 && self.pending.is_empty() {
            self.advance()?;
        }
        match self.pending.is_empty() {
            true => Ok(&self.inner.fill_buf()?[..self.valid]),
            false => Ok(&self.pending),
        }
    }

    fn consume(&mut self, count: usize) {
        match self.pending.is_empty() {
            true => {
                self.inner.consume(count);
                self.valid -= count;
            }
            false => drop(self.pending.drain(..count)),
        }
    }
}

impl<R: BufRead> Read for Utf8<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use proptest::prelude::*;

    use super::*;

    /// Returns chunks of the given sizes in turn.
    struct Chunks<'a> {
        bytes: &'a [u8],
        lengths: std::iter::Cycle<std::slice::Iter<'a, usize>>,
    }

    impl Read for Chunks<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.lengths.next().map_or(1, |&length| length.min(self.bytes.len()));
            let (given, rest) = self.bytes.split_at(length);
            buffer[..length].copy_from_slice(given);
            self.bytes = rest;
            Ok(length)
        }
    }

    /// Characters of every length and invalid sequences: truncated characters, stray bytes, surrogates, overlong forms.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let known: [&[u8]; 13] = [
            b"a",
            "é".as_bytes(),
            "€".as_bytes(),
            "😀".as_bytes(),
            b"\xff",
            b"\x80",
            b"\xe2\x82",
            b"\xf0\x9f",
            b"\xf0\x9f\x98",
            b"\xc3",
            b"\xed\xa0\x80",
            b"\xc0\xaf",
            b"\xf4\x90\x80\x80",
        ];
        let piece = prop_oneof![
            proptest::sample::select(known.to_vec()).prop_map(<[u8]>::to_vec),
            any::<[u8; 1]>().prop_map(Vec::from)
        ];
        proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn output_equals_from_utf8_lossy_at_any_buffer_boundary(
            bytes in pieces(),
            lengths in proptest::collection::vec(1usize..6, 1..8),
        ) {
            let chunks = || BufReader::new(Chunks { bytes: &bytes, lengths: lengths.iter().cycle() });
            let mut read = Vec::new();
            let mut utf8 = Utf8::new(chunks(), Tolerance::Count);
            utf8.read_to_end(&mut read).unwrap();
            prop_assert_eq!(String::from_utf8(read).unwrap(), String::from_utf8_lossy(&bytes));
            let invalid: Vec<&[u8]> = bytes.utf8_chunks().map(|chunk| chunk.invalid()).filter(|b| !b.is_empty()).collect();
            prop_assert_eq!(utf8.take_replaced() as usize, invalid.concat().len());

            let mut refusing = Utf8::new(chunks(), Tolerance::Refuse);
            prop_assert_eq!(refusing.read_to_end(&mut Vec::new()).is_err(), !invalid.is_empty());
            prop_assert_eq!(refusing.refused(), invalid.first().map(|bytes| bytes.to_vec()));
        }
    }
}
