//! Labelled examples as Parquet, the format of Hugging Face datasets. Only the selected columns are read.

use std::path::Path;
use std::sync::Arc;

use parquet::file::reader::RowGroupReader;
use parquet::record::{Field, Row as Record};
use parquet::schema::types::Type;

use super::columns::{Row, Selected, name_of, no_column};
use crate::data::error::{DataError, Result};
use crate::data::parquet_file::{Decoded, ParquetFile, without_panic};

/// Reads the selected values of all rows; null is a missing value.
pub(super) fn read(path: &Path, columns: &[Selected]) -> Result<Vec<Row>> {
    let file = ParquetFile::open(path)?;
    let schema = file.metadata().schema();
    let mut fields = Vec::new();
    for selected in columns {
        let name = name_of(path, selected)?;
        let field = schema.get_fields().iter().find(|field| field.name() == name);
        let field = field.ok_or_else(|| no_column(path, selected, schema.get_fields().iter().map(|f| f.name())))?;
        // A projection takes each column once.
        if !fields.contains(field) {
            fields.push(Arc::clone(field));
        }
    }
    let mut rows: Vec<Row> = Vec::new();
    for group in 0..file.row_groups() {
        let group = file.row_group(group).map_err(|error| file.broken(rows.len() as u64, error))?;
        let records = without_panic(|| group.get_row_iter(Some(projection(schema.name(), fields.clone())?)));
        let mut records = records.map_err(|error| file.broken(rows.len() as u64, error))?;
        let mut next = || without_panic(|| records.next().transpose());
        while let Some(record) = next().map_err(|error| file.broken(rows.len() as u64, error))? {
            rows.push(row_of(path, columns, &record, rows.len() as u64 + 1)?);
        }
    }
    Ok(rows)
}

fn projection(name: &str, fields: Vec<Arc<Type>>) -> Decoded<Type> {
    Type::group_type_builder(name).with_fields(fields).build()
}

/// Returns the selected values of a record, which is row `number`.
fn row_of(path: &Path, columns: &[Selected], record: &Record, number: u64) -> Result<Row> {
    let cell = |selected: &Selected| {
        let name = name_of(path, selected)?;
        let field = record.get_column_iter().find(|(own, _)| *own == name).map_or(&Field::Null, |(_, field)| field);
        scalar(field).map_err(|found| {
            let required = format!("a text or a number as {name:?} in row {number}");
            DataError::file(path, required, found, "set the column to another, or convert it")
        })
    };
    Ok(Row { number, cells: columns.iter().map(cell).collect::<Result<_>>()? })
}

/// Returns a text, number or truth value as text, or the type of another value.
fn scalar(field: &Field) -> std::result::Result<Option<String>, String> {
    Ok(Some(match field {
        Field::Null => return Ok(None),
        Field::Str(text) => text.clone(),
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => text.to_owned(),
            Err(_) => return Err("bytes that are not UTF-8".to_owned()),
        },
        Field::Bool(value) => value.to_string(),
        Field::Byte(value) => value.to_string(),
        Field::Short(value) => value.to_string(),
        Field::Int(value) => value.to_string(),
        Field::Long(value) => value.to_string(),
        Field::UByte(value) => value.to_string(),
        Field::UShort(value) => value.to_string(),
        Field::UInt(value) => value.to_string(),
        Field::ULong(value) => value.to_string(),
        Field::Float16(value) => value.to_string(),
        Field::Float(value) => value.to_string(),
        Field::Double(value) => value.to_string(),
        Field::Group(_) => return Err("a group".to_owned()),
        Field::ListInternal(_) => return Err("a list".to_owned()),
        Field::MapInternal(_) => return Err("a map".to_owned()),
        _ => return Err("a value of another type".to_owned()),
    }))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;
    use crate::data::labelled::columns::Column;

    /// Writes three rows: (0.5, "é", 1), (1.5, null, 0), (2.5, "b", 1).
    fn write(path: &Path) {
        let schema = "message m { required double score; optional binary text (UTF8); required int64 label; }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let properties = Arc::new(WriterProperties::builder().build());
        let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<DoubleType>().write_batch(&[0.5, 1.5, 2.5], None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let texts = [ByteArray::from("é"), ByteArray::from("b")];
        column.typed::<ByteArrayType>().write_batch(&texts, Some(&[1, 0, 1]), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[1, 0, 1], None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn selected_columns_of_any_scalar_type_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.parquet");
        write(&path);
        let [label, text, other] = ["label", "text", "other"].map(|name| Column::Name(name.to_owned()));
        let select = |column| Selected { setting: "label", column };
        let rows = read(&path, &[select(&label), select(&text)]).unwrap();
        let cells: Vec<Vec<Option<&str>>> =
            rows.iter().map(|row| row.cells.iter().map(Option::as_deref).collect()).collect();
        assert_eq!(cells, [[Some("1"), Some("é")], [Some("0"), None], [Some("1"), Some("b")]]);
        let message = read(&path, &[select(&other)]).unwrap_err().to_string();
        let expected =
            "requires a column \"other\", got the columns \"score\", \"text\", \"label\"; choose one of them as label";
        assert!(message.ends_with(expected), "{message}");
    }
}
