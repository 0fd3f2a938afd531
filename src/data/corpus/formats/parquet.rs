//! Parquet, the format of Hugging Face datasets: each row is a document, and a string column is the text. Only that
//! column is read, one page at a time.

use std::fs::File;
use std::path::Path;

use parquet::basic::Type;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::column::reader::{ColumnReaderImpl, get_column_reader, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::SchemaDescriptor;

use crate::data::corpus::options::Tolerance;
use crate::data::corpus::text_batch::BatchWriter;
use crate::data::error::{DataError, Result};
use crate::file_kind::{file_kind, read_head};
use crate::files;
use crate::panics::caught;

/// Rows per read; they share the memory of their page.
const ROWS: usize = 256;

/// Reads a Parquet file to its end. Calls `progress` with the file's `bytes` in proportion to the rows read.
pub(in crate::data::corpus) fn read(
    path: &Path,
    bytes: u64,
    progress: &(dyn Fn(u64) + Sync),
    batches: &mut BatchWriter,
) -> Result<()> {
    let (reader, index) = open(path, &batches.options().text_field)?;
    let metadata = reader.metadata().file_metadata();
    let description = metadata.schema_descr().column(index);
    let rows = metadata.num_rows().max(1) as u64;
    let (mut row, mut reported) = (0, 0);
    for group in 0..reader.num_row_groups() {
        let pages = without_panic(|| reader.get_row_group(group)?.get_column_page_reader(index));
        let pages = Box::new(CheckedPages(pages.map_err(|error| broken(path, row, error))?));
        let mut column = get_typed_column_reader(get_column_reader(description.clone(), pages));
        let mut values = Values { texts: Vec::new(), levels: Vec::new() };
        while batches.accepts_more() && values.fill(&mut column).map_err(|error| broken(path, row, error))? {
            let mut texts = values.texts.iter();
            for &level in &values.levels {
                row += 1;
                let text = if level == description.max_def_level() { texts.next() } else { None };
                match text {
                    Some(text) => {
                        let text = batches.decode(text.data(), || format!("row {row}"))?;
                        batches.document(&text);
                    }
                    None if batches.options().missing_text == Tolerance::Count => batches.counts().without_text += 1,
                    None => {
                        let required = format!("a text in the column {:?} of row {row}", description.name());
                        let next = "set missing_text to \"count\" to skip such rows";
                        return Err(DataError::file(path, required, "null", next));
                    }
                }
            }
            let share = (bytes as u128 * row as u128 / rows as u128) as u64;
            progress(share.min(bytes) - reported);
            reported = share.min(bytes);
        }
    }
    Ok(())
}

/// Opens a file and finds the column `field`.
pub(in crate::data::corpus) fn open(path: &Path, field: &str) -> Result<(SerializedFileReader<File>, usize)> {
    let reader = open_file(path)?;
    let index = column_of(reader.metadata().file_metadata().schema_descr(), path, field)?;
    Ok((reader, index))
}

/// Opens a file.
pub(in crate::data) fn open_file(path: &Path) -> Result<SerializedFileReader<File>> {
    let file = files::open(path).map_err(DataError::io("open", path))?;
    match file_kind(&read_head(&file).map_err(DataError::io("read", path))?) {
        Some(kind) if kind.name != "Parquet" => {
            return Err(DataError::file(path, "a Parquet file, as its name says", kind.name, kind.next_for_text()));
        }
        _ => {}
    }
    without_panic(|| SerializedFileReader::new(file)).map_err(|error| broken(path, 0, error))
}

/// The pages of a column of strings, whose dictionaries are large enough for the number of values that they state: the crate
/// allocates memory for all of them before it reads the first.
struct CheckedPages(Box<dyn PageReader>);

/// The bytes of the shortest string in a dictionary: its length.
const SHORTEST_STRING: usize = 4;

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> std::result::Result<Option<Page>, ParquetError> {
        let page = self.0.get_next_page()?;
        match &page {
            Some(Page::DictionaryPage { buf, num_values, .. })
                if *num_values as usize > buf.len() / SHORTEST_STRING =>
            {
                let found = format!("a dictionary of {num_values} strings in {} bytes", buf.len());
                Err(ParquetError::General(found))
            }
            _ => Ok(page),
        }
    }

    fn peek_next_page(&mut self) -> std::result::Result<Option<PageMetadata>, ParquetError> {
        self.0.peek_next_page()
    }

    fn skip_next_page(&mut self) -> std::result::Result<(), ParquetError> {
        self.0.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> std::result::Result<bool, ParquetError> {
        self.0.at_record_boundary()
    }
}

impl Iterator for CheckedPages {
    type Item = std::result::Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

/// Some rows of the column: the definition level of each, and the non-null texts.
struct Values {
    texts: Vec<ByteArray>,
    levels: Vec<i16>,
}

impl Values {
    /// Reads the next rows. Returns `false` at the end.
    fn fill(&mut self, column: &mut ColumnReaderImpl<ByteArrayType>) -> std::result::Result<bool, ParquetError> {
        self.texts.clear();
        self.levels.clear();
        let read = || column.read_records(ROWS, Some(&mut self.levels), None, &mut self.texts);
        let (rows, ..) = without_panic(read)?;
        // A column that cannot be null has no levels.
        self.levels.resize(rows, 0);
        Ok(rows > 0)
    }
}

/// Calls `read` and turns its panic into an error: the crate panics on some damaged files.
pub(in crate::data) fn without_panic<T>(
    read: impl FnOnce() -> std::result::Result<T, ParquetError>,
) -> std::result::Result<T, ParquetError> {
    caught(read).unwrap_or_else(|panic| Err(ParquetError::General(panic)))
}

/// Returns the index of the column `name`, which must be the only one of that name and hold strings.
fn column_of(schema: &SchemaDescriptor, path: &Path, name: &str) -> Result<usize> {
    let is_list = |index: usize| schema.column(index).max_rep_level() > 0;
    let is_text = |index: usize| schema.column(index).physical_type() == Type::BYTE_ARRAY && !is_list(index);
    let all = 0..schema.num_columns();
    let named: Vec<usize> = all.clone().filter(|&index| schema.column(index).path().string() == name).collect();
    match named.as_slice() {
        &[index] if is_text(index) => Ok(index),
        _ => {
            let shown = all.map(|index| {
                let column = schema.column(index);
                let kind = match column.logical_type_ref() {
                    // The name of the type alone, without its parameters.
                    Some(logical) => {
                        let shown = format!("{logical:?}");
                        shown.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
                    }
                    None => column.physical_type().to_string(),
                };
                format!("{} ({}{kind})", column.path().string(), if is_list(index) { "list of " } else { "" })
            });
            let found = format!("the columns {}", shown.collect::<Vec<_>>().join(", "));
            Err(DataError::file(
                path,
                format!("one column {name:?} of strings"),
                found,
                "set text_field to the right column",
            ))
        }
    }
}

/// Returns the error of a damaged file of which `rows` rows were read.
pub(in crate::data) fn broken(path: &Path, rows: u64, error: ParquetError) -> DataError {
    let found = format!("an error after {rows} rows: {error}");
    let next = "download it again and compare its checksum with the publisher's";
    DataError::file(path, "a whole Parquet file", found, next)
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;

    use crate::data::corpus::{ReadOptions, find_inputs, read_text};

    /// A file of two rows whose dictionary states hundreds of millions of strings in 10 bytes.
    const LARGE_DICTIONARY: &str = "\
        UEFSMRUEFS4VLkwV9I+/vwQVABIAAAkAAABPbmUuIFR3by4GAAAAVGhyZWUuFQAVEhUSLBUEFRAVBhUGAAACAAAABAEBAwIZEgIZ\
        GAlPbmUuIFR3by4ZGAZUaHJlZS4VAhkWACkmAAQAGRwWUhU0FgAAGRYeABUCGSxIBHJvd3MVAgAVDCUCGAR0ZXh0JQBMHAAAABYE\
        GRwZHCYAHBUMGTUABhAZGAR0ZXh0FQAWBBZ+Fn4mUiYIHDYAKAZUaHJlZS4YCU9uZS4gVHdvLhERABksFQQVABUCABUAFRAVAgA8\
        Fh4pJgAEAAAWygEVGhaGARVEABZ+FgQmCBZ+FAAAKBlwYXJxdWV0LXJzIHZlcnNpb24gNjAuMS4wGRwcAAAAqgAAAFBBUjE=";

    #[test]
    fn a_dictionary_of_more_strings_than_bytes_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text.parquet");
        std::fs::write(&path, BASE64_STANDARD.decode(LARGE_DICTIONARY).unwrap()).unwrap();
        let inputs = find_inputs(&[path]).unwrap().inputs;
        let read = read_text(&inputs, &ReadOptions::default(), &|_| (), &mut |_| true);
        let error = read.unwrap_err().to_string();
        assert!(error.contains("a dictionary of") && error.contains("strings in"), "{error}");
    }
}
