//! Files as streams of bytes, decompressed as their names say, any number of members, frames or streams in a row.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Take};
use std::ops::Range;
use std::path::Path;

use super::super::error::{DataError, Result};
use super::bzip2_blocks::Bzip2Blocks;

const BUFFER: usize = 1 << 18;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

impl Compression {
    /// What the last extension of a name says.
    pub fn of_extension(extension: &str) -> Option<Self> {
        match extension {
            "gz" => Some(Compression::Gzip),
            "zst" => Some(Compression::Zstd),
            "bz2" => Some(Compression::Bzip2),
            "xz" => Some(Compression::Xz),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Compression::None => "plain",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
            Compression::Bzip2 => "bzip2",
            Compression::Xz => "xz",
        }
    }
}

/// An open input: its bytes, decompressed and without a byte order mark.
pub(super) struct Decompressed<'a> {
    pub path: &'a Path,
    pub reader: BufReader<Counted<Box<dyn Read + Send + 'a>>>,
    compression: Compression,
}

impl<'a> Decompressed<'a> {
    /// Opens a range of the bytes of a file. `progress` hears of the bytes read from disk.
    ///
    /// # Errors
    /// If it cannot be read; if its byte order mark is that of UTF-16, of which nothing would be left but single characters.
    pub fn open(
        path: &'a Path,
        compression: Compression,
        range: Range<u64>,
        progress: &'a (dyn Fn(u64) + Sync),
    ) -> Result<Self> {
        let mut file = File::open(path).map_err(DataError::io("open", path))?;
        file.seek(SeekFrom::Start(range.start)).map_err(DataError::io("read", path))?;
        let file = Reporting { file: file.take(range.end - range.start), progress };
        let file = BufReader::with_capacity(BUFFER, file);
        let decoder: Box<dyn Read + Send + 'a> = match compression {
            Compression::None => Box::new(file),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
            Compression::Zstd => Box::new(zstd::Decoder::with_buffer(file).map_err(DataError::io("decompress", path))?),
            Compression::Bzip2 => Box::new(Bzip2Blocks::new(file)),
            Compression::Xz => Box::new(lzma_rust2::XzReader::new(file, true)),
        };
        let reader = BufReader::with_capacity(BUFFER, Counted { inner: decoder, bytes: 0 });
        let mut source = Decompressed { path, reader, compression };
        if range.start == 0 {
            source.pass_byte_order_mark()?;
        }
        Ok(source)
    }

    fn pass_byte_order_mark(&mut self) -> Result<()> {
        match self.start()?.as_slice() {
            [0xef, 0xbb, 0xbf, ..] => self.reader.consume(3),
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
                let next = "convert it first, for example with `iconv -f UTF-16 -t UTF-8`";
                return Err(DataError::file(self.path, "text in UTF-8", "the byte order mark of UTF-16", next));
            }
            _ => {}
        }
        Ok(())
    }

    /// The first bytes, not taken.
    pub fn start(&mut self) -> Result<Vec<u8>> {
        match self.reader.fill_buf() {
            Ok(start) => Ok(start[..start.len().min(64)].to_vec()),
            Err(error) => Err(self.broken(error)),
        }
    }

    /// The error of a read that failed: of a compressed file, how much of it was good.
    pub fn broken(&self, error: io::Error) -> DataError {
        let is_of_the_disk = error.raw_os_error().is_some();
        if is_of_the_disk || self.compression == Compression::None {
            return DataError::io("read", self.path)(error);
        }
        let bytes = self.reader.get_ref().bytes;
        let found = match error.kind() {
            ErrorKind::UnexpectedEof => format!("its end after {bytes} bytes of text"),
            _ => format!("a fault after {bytes} bytes of text: {error}"),
        };
        let required = format!("a whole {} file", self.compression.name());
        DataError::file(self.path, required, found, "fetch it again and compare its checksum with the publisher's")
    }
}

/// A file that reports the bytes read from it.
struct Reporting<'a> {
    file: Take<File>,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl Read for Reporting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        (self.progress)(read as u64);
        Ok(read)
    }
}

/// A reader that knows how many bytes it gave.
pub(super) struct Counted<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes += read as u64;
        Ok(read)
    }
}
