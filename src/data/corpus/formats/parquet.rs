//! Parquet, the format of Hugging Face datasets: each row is a document, and a string column is the text. Only that
//! column is read, one page at a time.

use std::path::Path;

use parquet::basic::Type;
use parquet::column::reader::{ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::reader::RowGroupReader;
use parquet::schema::types::SchemaDescriptor;

use crate::data::corpus::options::Tolerance;
use crate::data::corpus::text_batch::BatchWriter;
use crate::data::error::{DataError, Result};
use crate::data::parquet_file::{Decoded, ParquetFile, without_panic};

/// Rows per read; they share the memory of their page.
const ROWS: usize = 256;

/// Reads a Parquet file to its end. Calls `progress` with the file's `bytes` in proportion to the rows read.
pub(in crate::data::corpus) fn read(
    path: &Path,
    bytes: u64,
    progress: &(dyn Fn(u64) + Sync),
    batches: &mut BatchWriter,
) -> Result<()> {
    let (file, index) = open(path, &batches.options().text_field)?;
    let metadata = file.metadata();
    let description = metadata.schema_descr().column(index);
    let rows = metadata.num_rows().max(1) as u64;
    let (mut row, mut reported) = (0, 0);
    for group in 0..file.row_groups() {
        let column = without_panic(|| file.row_group(group)?.get_column_reader(index));
        let mut column = get_typed_column_reader(column.map_err(|error| file.broken(row, error))?);
        let mut values = Values { texts: Vec::new(), levels: Vec::new() };
        while batches.accepts_more() && values.fill(&mut column).map_err(|error| file.broken(row, error))? {
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
pub(in crate::data::corpus) fn open<'a>(path: &'a Path, field: &str) -> Result<(ParquetFile<'a>, usize)> {
    let file = ParquetFile::open(path)?;
    let index = column_of(file.metadata().schema_descr(), path, field)?;
    Ok((file, index))
}

/// Some rows of the column: the definition level of each, and the non-null texts.
struct Values {
    texts: Vec<ByteArray>,
    levels: Vec<i16>,
}

impl Values {
    /// Reads the next rows. Returns `false` at the end.
    fn fill(&mut self, column: &mut ColumnReaderImpl<ByteArrayType>) -> Decoded<bool> {
        self.texts.clear();
        self.levels.clear();
        let read = || column.read_records(ROWS, Some(&mut self.levels), None, &mut self.texts);
        let (rows, ..) = without_panic(read)?;
        // A column that cannot be null has no levels.
        self.levels.resize(rows, 0);
        Ok(rows > 0)
    }
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
        assert!(error.contains("a dictionary of") && error.contains("values in"), "{error}");
    }
}
