//! Parquet files: what the readers of text and of labelled examples share.

mod pages;

use std::fs::File;
use std::path::Path;

use parquet::errors::ParquetError;
use parquet::file::metadata::FileMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::error::{DataError, Result};
use crate::file_kind::{file_kind, read_head};
use crate::files;
use crate::panics::caught;
pub(super) use pages::CheckedRowGroup;

/// A result of the crate `parquet`.
pub(super) type Decoded<T> = std::result::Result<T, ParquetError>;

/// An open Parquet file.
pub(super) struct ParquetFile<'a> {
    path: &'a Path,
    reader: SerializedFileReader<File>,
}

impl<'a> ParquetFile<'a> {
    /// Opens a file and reads its metadata.
    ///
    /// # Errors
    /// If the file is missing, damaged, or of another format.
    pub fn open(path: &'a Path) -> Result<ParquetFile<'a>> {
        let file = files::open(path).map_err(DataError::io("open", path))?;
        match file_kind(&read_head(&file).map_err(DataError::io("read", path))?) {
            Some(kind) if kind.name != "Parquet" => {
                return Err(DataError::file(path, "a Parquet file, as its name says", kind.name, kind.next_for_text()));
            }
            _ => {}
        }
        let reader = without_panic(|| SerializedFileReader::new(file)).map_err(|error| broken(path, 0, error))?;
        Ok(ParquetFile { path, reader })
    }

    /// Returns the schema and the number of rows.
    pub fn metadata(&self) -> &FileMetaData {
        self.reader.metadata().file_metadata()
    }

    /// Returns the number of row groups.
    pub fn row_groups(&self) -> usize {
        self.reader.num_row_groups()
    }

    /// Returns the reader of a row group.
    pub fn row_group(&self, index: usize) -> Decoded<CheckedRowGroup<'_>> {
        without_panic(|| self.reader.get_row_group(index)).map(CheckedRowGroup::new)
    }

    /// Returns the error of a damaged file of which `rows` rows were read.
    pub fn broken(&self, rows: u64, error: ParquetError) -> DataError {
        broken(self.path, rows, error)
    }
}

/// Calls `read` and turns its panic into an error: the crate panics on some damaged files.
pub(super) fn without_panic<T>(read: impl FnOnce() -> Decoded<T>) -> Decoded<T> {
    caught(read).unwrap_or_else(|panic| Err(ParquetError::General(panic)))
}

fn broken(path: &Path, rows: u64, error: ParquetError) -> DataError {
    let found = format!("an error after {rows} rows: {error}");
    let next = "download it again and compare its checksum with the publisher's";
    DataError::file(path, "a whole Parquet file", found, next)
}
