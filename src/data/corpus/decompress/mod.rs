//! Opens files as streams of decompressed bytes. The compression follows from the file name; any number of members,
//! frames or streams may follow each other.

mod bzip2_blocks;

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Take};
use std::ops::Range;
use std::path::Path;

use crate::data::error::{DataError, Result};
use crate::file_kind::{BYTE_ORDER_MARK, HEAD, file_kind, read_head};
use crate::files;
use bzip2_blocks::Bzip2Blocks;

const BUFFER: usize = 1 << 18;
/// The largest zstandard window and xz dictionary accepted, as a power of two. A file states how much memory its
/// decompression takes, and several files are decompressed at once. This is the default limit of `zstd -d` and twice
/// what `xz -9` needs.
const LONGEST_WINDOW_LOG: u32 = 27;
/// Memory of an xz reader besides its dictionary, in KiB, with a margin.
const XZ_OVERHEAD: u32 = 1 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

impl Compression {
    /// Returns the compression for the last extension of a file name.
    pub fn of_extension(extension: &str) -> Option<Self> {
        match extension {
            "gz" => Some(Compression::Gzip),
            "zst" => Some(Compression::Zstd),
            "bz2" => Some(Compression::Bzip2),
            "xz" => Some(Compression::Xz),
            _ => None,
        }
    }

    /// Returns the name, as in [`FileKind::name`](crate::file_kind::FileKind).
    const fn name(self) -> &'static str {
        match self {
            Compression::None => "plain",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
            Compression::Bzip2 => "bzip2",
            Compression::Xz => "xz",
        }
    }

    /// Returns an error if a file that begins with `head` is not compressed as its name says.
    fn check(self, path: &Path, head: &[u8]) -> Result<()> {
        let wrong =
            |found: &str, next: &str| Err(DataError::file(path, format!("a whole {} file", self.name()), found, next));
        match file_kind(head) {
            _ if self == Compression::None => Ok(()),
            Some(kind) if kind.name == self.name() => Ok(()),
            Some(kind) => wrong(kind.name, &kind.next_for_text()),
            None if head.is_empty() => wrong("0 bytes", FETCH_AGAIN),
            None => wrong("other first bytes", "if it is not compressed, rename it"),
        }
    }
}

const FETCH_AGAIN: &str = "download it again and compare its checksum with the publisher's";

/// Finds those errors of [`Decompressed::open`] that need no decompression.
pub(super) fn check_beginning(path: &Path, compression: Compression) -> Result<()> {
    if compression == Compression::None {
        return Decompressed::open(path, compression, 0..HEAD as u64, &|_| ()).map(drop);
    }
    let head = files::open(path).and_then(read_head).map_err(DataError::io("read", path))?;
    compression.check(path, &head)
}

/// An open input: its decompressed bytes without a byte order mark.
pub(super) struct Decompressed<'a> {
    pub path: &'a Path,
    pub reader: BufReader<Counted<Box<dyn Read + Send + 'a>>>,
    compression: Compression,
}

impl<'a> Decompressed<'a> {
    /// Opens a byte range of a file. Calls `progress` with the number of bytes read from disk.
    ///
    /// # Errors
    /// If it cannot be read or is not compressed as its name says; if it is not text but of another [kind](crate::file_kind).
    pub fn open(
        path: &'a Path,
        compression: Compression,
        range: Range<u64>,
        progress: &'a (dyn Fn(u64) + Sync),
    ) -> Result<Self> {
        let mut file = files::open(path).map_err(DataError::io("open", path))?;
        file.seek(SeekFrom::Start(range.start)).map_err(DataError::io("read", path))?;
        let file = Reporting { file: file.take(range.end - range.start), progress };
        let mut file = BufReader::with_capacity(BUFFER, file);
        compression.check(path, file.fill_buf().map_err(DataError::io("read", path))?)?;
        let decoder: Box<dyn Read + Send + 'a> = match compression {
            Compression::None => Box::new(file),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(file).map_err(DataError::io("decompress", path))?;
                decoder.window_log_max(LONGEST_WINDOW_LOG).map_err(DataError::io("decompress", path))?;
                Box::new(decoder)
            }
            Compression::Bzip2 => Box::new(Bzip2Blocks::new(file)),
            Compression::Xz => {
                let limit = (1 << (LONGEST_WINDOW_LOG - 10)) + XZ_OVERHEAD;
                Box::new(lzma_rust2::XzReader::new_mem_limit(file, true, limit))
            }
        };
        let reader = BufReader::with_capacity(BUFFER, Counted { inner: decoder, bytes: 0 });
        let mut source = Decompressed { path, reader, compression };
        if range.start == 0 {
            source.begin_text()?;
        }
        Ok(source)
    }

    /// Skips the byte order mark of UTF-8. Returns an error if the content is not UTF-8 text.
    fn begin_text(&mut self) -> Result<()> {
        let start = self.start()?;
        if let Some(kind) = file_kind(&start) {
            let (path, name) = (self.path, kind.name);
            return Err(match self.compression {
                Compression::None => DataError::file(path, "text", name, kind.next_for_text()),
                outer => DataError::file(path, format!("text in the {} file", outer.name()), name, "unpack it first"),
            });
        }
        if start.starts_with(BYTE_ORDER_MARK) {
            self.reader.consume(BYTE_ORDER_MARK.len());
        }
        Ok(())
    }

    /// Returns the first bytes without consuming them.
    pub fn start(&mut self) -> Result<Vec<u8>> {
        match self.reader.fill_buf() {
            Ok(start) => Ok(start[..start.len().min(HEAD)].to_vec()),
            Err(error) => Err(self.broken(error)),
        }
    }

    /// Returns the error of a failed read; of a compressed file, with the number of bytes decompressed so far.
    pub fn broken(&self, error: io::Error) -> DataError {
        let is_disk_error = error.raw_os_error().is_some();
        if is_disk_error || self.compression == Compression::None {
            return DataError::io("read", self.path)(error);
        }
        let bytes = self.reader.get_ref().bytes;
        if let Some(unpack) = self.memory_limit_command(&error) {
            let name = self.compression.name();
            let required = format!("a {name} file that takes at most {} MiB to unpack", 1 << (LONGEST_WINDOW_LOG - 20));
            let found = format!("a file that takes more, after {bytes} bytes of text");
            return DataError::file(self.path, required, found, format!("unpack it first with `{unpack}`"));
        }
        let found = match error.kind() {
            ErrorKind::UnexpectedEof => format!("its end after {bytes} bytes of text"),
            _ => format!("an error after {bytes} bytes of text: {error}"),
        };
        let required = format!("a whole {} file", self.compression.name());
        DataError::file(self.path, required, found, FETCH_AGAIN)
    }

    /// Returns the command that decompresses the file with any amount of memory, if `error` is that it takes too much.
    fn memory_limit_command(&self, error: &io::Error) -> Option<&'static str> {
        match self.compression {
            Compression::Xz if error.kind() == ErrorKind::OutOfMemory => Some("xz -dk"),
            // This is libzstd's message; a stream reports no error code.
            Compression::Zstd if error.to_string().contains("too much memory") => Some("zstd -d --long=31"),
            _ => None,
        }
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

/// A reader that counts the bytes it returned.
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
