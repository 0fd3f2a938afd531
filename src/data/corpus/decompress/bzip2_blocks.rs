//! Parallel bzip2 decompression. A file is one or more streams, and a stream is a series of independently compressed
//! blocks of up to 900 kB. Blocks are found by the 48-bit magic number at their start, which may begin at any bit. Each
//! block is decompressed as a stream of its own.
//!
//! Format: <https://github.com/dsnet/compress/blob/master/doc/bzip2-format.pdf>. `BZh` and the level; blocks, each a
//! magic number, its CRC and data; a final magic number and the CRC of the stream; zero bits up to a whole byte.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};

use rayon::prelude::*;

const BLOCK: u64 = 0x3141_5926_5359;
const END_OF_STREAM: u64 = 0x1772_4538_5090;
/// Bits of a magic number, and of a magic number with the CRC after it.
const MAGIC_BITS: usize = 48;
const HEAD_BITS: usize = MAGIC_BITS + 32;
/// Compressed bytes within which a block must end: more than the worst case of 900 kB.
const LONGEST_BLOCK: usize = 1 << 21;
/// Largest number of blocks decompressed in parallel: each takes up to 2 MB, and several files may be read at once.
const MAX_PARALLEL_BLOCKS: usize = 16;
/// Compressed bytes per read.
const READ: usize = 1 << 18;

/// Reads the decompressed content of a bzip2 file.
pub(super) struct Bzip2Blocks<R> {
    blocks: Blocks<R>,
    /// Blocks and stream ends to find before decompression starts.
    parallel_blocks: usize,
    text: VecDeque<Vec<u8>>,
    /// Bytes of the first text that have been returned.
    returned: usize,
    /// Combined CRC of the blocks of the current stream.
    crc: u32,
    /// Result to return after the texts.
    end: Option<io::Result<()>>,
}

impl<R: Read> Bzip2Blocks<R> {
    pub fn new(compressed: R) -> Self {
        let parallel_blocks = MAX_PARALLEL_BLOCKS.min(2 * rayon::current_num_threads());
        let blocks = Blocks { compressed, bytes: Vec::new(), at: 0, is_at_end: false, level: None };
        Bzip2Blocks { blocks, parallel_blocks, text: VecDeque::new(), returned: 0, crc: 0, end: None }
    }

    /// Finds the next blocks and decompresses them.
    fn fill(&mut self) {
        let mut parts = Vec::new();
        while parts.len() < self.parallel_blocks && self.end.is_none() {
            match self.blocks.next() {
                Ok(Some(part)) => parts.push(part),
                Ok(None) => self.end = Some(Ok(())),
                Err(error) => self.end = Some(Err(error)),
            }
        }
        let texts: Vec<io::Result<Vec<u8>>> = parts.par_iter().map(Part::text).collect();
        for (part, text) in parts.iter().zip(texts) {
            let checked = text.and_then(|text| self.check(part).map(|()| text));
            match checked {
                Ok(text) => self.text.push_back(text),
                Err(error) => {
                    // Report the first error.
                    self.end = Some(Err(error));
                    break;
                }
            }
        }
    }

    fn check(&mut self, part: &Part) -> io::Result<()> {
        match part {
            Part::Block { crc, .. } => self.crc = self.crc.rotate_left(1) ^ crc,
            Part::EndOfStream { crc } if *crc != self.crc => return Err(invalid("the checksum of a stream is wrong")),
            Part::EndOfStream { .. } => self.crc = 0,
        }
        Ok(())
    }
}

impl<R: Read> Read for Bzip2Blocks<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(text) = self.text.front() {
                let length = (text.len() - self.returned).min(buffer.len());
                buffer[..length].copy_from_slice(&text[self.returned..self.returned + length]);
                self.returned += length;
                if self.returned == text.len() {
                    self.text.pop_front();
                    self.returned = 0;
                }
                if length > 0 {
                    return Ok(length);
                }
            } else if let Some(end) = &mut self.end {
                return std::mem::replace(end, Ok(())).map(|()| 0);
            } else {
                self.fill();
            }
        }
    }
}

enum Part {
    /// A stream that holds this block alone.
    Block {
        stream: Vec<u8>,
        crc: u32,
    },
    EndOfStream {
        crc: u32,
    },
}

impl Part {
    fn text(&self) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        if let Part::Block { stream, .. } = self {
            bzip2::read::BzDecoder::new(&stream[..]).read_to_end(&mut text)?;
        }
        Ok(text)
    }
}

/// The compressed blocks of all streams of a file, in order.
struct Blocks<R> {
    compressed: R,
    /// The buffered bytes, and the next bit to read.
    bytes: Vec<u8>,
    at: usize,
    is_at_end: bool,
    /// `1` to `9`, of the current stream.
    level: Option<u8>,
}

impl<R: Read> Blocks<R> {
    fn next(&mut self) -> io::Result<Option<Part>> {
        let Some(level) = self.level else {
            return match self.begin_stream()? {
                true => self.next(),
                false => Ok(None),
            };
        };
        self.require(HEAD_BITS)?;
        let magic = bits(&self.bytes, self.at, MAGIC_BITS);
        let crc = bits(&self.bytes, self.at + MAGIC_BITS, 32) as u32;
        match magic {
            END_OF_STREAM => {
                self.at = (self.at + HEAD_BITS).next_multiple_of(8);
                self.level = None;
                Ok(Some(Part::EndOfStream { crc }))
            }
            BLOCK => {
                let end = self.end_of_block()?;
                let stream = stream_of_block(&self.bytes, self.at, end, level, crc);
                self.at = end;
                self.drop_bytes();
                Ok(Some(Part::Block { stream, crc }))
            }
            _ => Err(invalid("a block is missing")),
        }
    }

    /// Reads the header of the next stream. Returns `false` at the end of the file.
    fn begin_stream(&mut self) -> io::Result<bool> {
        self.drop_bytes();
        if self.bytes.is_empty() && !self.read_more()? {
            return Ok(false);
        }
        self.require(32)?;
        match self.bytes[..4] {
            [b'B', b'Z', b'h', level @ b'1'..=b'9'] => self.level = Some(level),
            _ => return Err(invalid("a stream does not start with BZh and a level")),
        }
        self.at = 32;
        Ok(true)
    }

    /// Returns the bit at which the current block ends, where the next magic number starts.
    fn end_of_block(&mut self) -> io::Result<usize> {
        let mut from = self.at + HEAD_BITS;
        loop {
            if let Some(end) = find_magic(&self.bytes, from) {
                return Ok(end);
            }
            if self.bytes.len() > LONGEST_BLOCK {
                return Err(invalid("a block does not end"));
            }
            // The magic number may be only partly buffered.
            from = from.max((self.bytes.len() * 8).saturating_sub(MAGIC_BITS));
            if !self.read_more()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads until `count` bits are buffered.
    fn require(&mut self, count: usize) -> io::Result<()> {
        while self.bytes.len() * 8 < self.at + count {
            if !self.read_more()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Returns `false` at the end of the file.
    fn read_more(&mut self) -> io::Result<bool> {
        if !self.is_at_end {
            self.is_at_end = (&mut self.compressed).take(READ as u64).read_to_end(&mut self.bytes)? == 0;
        }
        Ok(!self.is_at_end)
    }

    fn drop_bytes(&mut self) {
        self.bytes.drain(..(self.at / 8).min(self.bytes.len()));
        self.at %= 8;
    }
}

/// Returns `count` bits, at most 48, from bit `at`.
fn bits(bytes: &[u8], at: usize, count: usize) -> u64 {
    let end = at + count;
    let window = bytes[at / 8..end.div_ceil(8)].iter().fold(0_u64, |window, &byte| window << 8 | byte as u64);
    window >> (end.next_multiple_of(8) - end) & ((1 << count) - 1)
}

/// Returns the first bit at or after `from` where a magic number starts.
fn find_magic(bytes: &[u8], from: usize) -> Option<usize> {
    const MASK: u64 = (1 << MAGIC_BITS) - 1;
    let first = from / 8;
    let mut window = 0_u64;
    for (i, &byte) in bytes.iter().enumerate().skip(first) {
        window = window << 8 | byte as u64;
        let found = |shift: &u32| matches!(window >> shift & MASK, BLOCK | END_OF_STREAM);
        // The 48-bit windows that end in this byte, the earliest first.
        if let Some(shift) = (0..8).rev().find(found) {
            let start = ((i + 1) * 8 - shift as usize).checked_sub(MAGIC_BITS)?;
            if start >= from {
                return Some(start);
            }
        }
    }
    None
}

/// Builds a stream of one block, which lies in `bytes` from bit `at` to bit `end`. The block's CRC is also that of the
/// stream.
fn stream_of_block(bytes: &[u8], at: usize, end: usize, level: u8, crc: u32) -> Vec<u8> {
    let full_bytes = (end - at) / 8;
    let mut stream = Vec::with_capacity(full_bytes + 16);
    stream.extend([b'B', b'Z', b'h', level]);
    let shift = at % 8;
    let source = &bytes[at / 8..end.div_ceil(8)];
    match shift {
        0 => stream.extend(&source[..full_bytes]),
        _ => stream.extend(source.windows(2).take(full_bytes).map(|pair| pair[0] << shift | pair[1] >> (8 - shift))),
    }
    // The remaining bits, the end of the stream, and zeros up to a whole byte.
    let left = (end - at) % 8;
    let tail = (bits(bytes, end - left, left) as u128) << HEAD_BITS | (END_OF_STREAM as u128) << 32 | crc as u128;
    let length = (left + HEAD_BITS).div_ceil(8);
    let tail = tail << (length * 8 - left - HEAD_BITS);
    stream.extend(&tail.to_be_bytes()[16 - length..]);
    stream
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn compressed(text: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(level));
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn read(compressed: &[u8]) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        Bzip2Blocks::new(compressed).read_to_end(&mut text).map(|_| text)
    }

    /// Level 1 has blocks of 100 kB: these texts have many, at every bit.
    #[test]
    fn blocks_and_streams_give_the_text_that_was_compressed() {
        let mut stream = crate::rng::Key::new(5).stream();
        let text: Vec<u8> = (0..3_000_000).map(|_| b'a' + stream.below(20) as u8).collect();
        for level in [1, 9] {
            assert!(read(&compressed(&text, level)).unwrap() == text);
        }
        let streams = [&text[..7], &[], &text[7..500_000], &text[500_000..]].map(|part| compressed(part, 1));
        assert!(read(&streams.concat()).unwrap() == text);
        assert_eq!(read(&[]).unwrap(), b"");
    }

    #[test]
    fn truncated_or_corrupt_files_are_rejected_after_their_valid_blocks() {
        let text = b"some words of text ".repeat(20_000);
        let whole = compressed(&text, 1);
        let parts = read_parts(&whole[..whole.len() - 1]);
        assert_eq!((parts.0.len(), parts.1.kind()), (text.len(), ErrorKind::UnexpectedEof));
        let mut wrong = whole.clone();
        // The CRC of all ends with up to seven bits of filling.
        wrong[whole.len() - 3] ^= 1;
        assert_eq!(read_parts(&wrong).1.kind(), ErrorKind::InvalidData);
        for i in (0..whole.len()).step_by(5) {
            assert!(read(&whole[..i]).is_err() || i == 0, "{i} bytes");
        }
    }

    /// Returns the data read before the error, and the error.
    fn read_parts(compressed: &[u8]) -> (Vec<u8>, io::Error) {
        let (mut text, mut reader) = (Vec::new(), Bzip2Blocks::new(compressed));
        let error = reader.read_to_end(&mut text).unwrap_err();
        (text, error)
    }
}
