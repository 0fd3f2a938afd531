//! Tables of separated values: TSV without quotes, as GLUE's files, and CSV with the quotes of RFC 4180. The first line is
//! a header with the names of the columns, unless all selected columns are numbers.

use std::path::Path;

use csv::{ReaderBuilder, StringRecord};

use super::columns::{Column, Row, Selected, no_column};
use crate::data::error::{DataError, Result};

/// The separator of a format, and whether cells can be in quotes.
#[derive(Clone, Copy)]
pub(super) struct Dialect {
    separator: u8,
    is_quoted: bool,
}

pub(super) const TAB: Dialect = Dialect { separator: b'\t', is_quoted: false };
pub(super) const COMMA: Dialect = Dialect { separator: b',', is_quoted: true };

/// Reads the selected cells of all rows. Empty lines are skipped; an empty cell is a missing value.
pub(super) fn read(path: &Path, text: &str, dialect: Dialect, columns: &[Selected]) -> Result<Vec<Row>> {
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(dialect.separator)
        .quoting(dialect.is_quoted)
        .from_reader(text.as_bytes());
    let mut records = reader.records().map(|record| {
        record.map_err(|error| DataError::file(path, "separated values", error.to_string(), "correct the file"))
    });
    let Some(first) = records.next().transpose()? else { return Ok(Vec::new()) };
    let width = first.len();
    let indices: Vec<usize> = columns.iter().map(|column| index_of(path, column, &first)).collect::<Result<_>>()?;
    let has_header = columns.iter().any(|selected| matches!(selected.column, Column::Name(_)));
    let data = (!has_header).then_some(Ok(first)).into_iter().chain(records);
    data.map(|record| {
        let record = record?;
        let number = line_of(&record, text);
        if record.len() != width {
            let required = format!("{width} columns on line {number}, as on the first line");
            let next = "remove separators from its texts, or add the missing cells";
            return Err(DataError::file(path, required, record.len().to_string(), next));
        }
        let cell = |&index: &usize| Some(record[index].to_owned()).filter(|cell| !cell.is_empty());
        Ok(Row { number, cells: indices.iter().map(cell).collect() })
    })
    .collect()
}

/// Returns the index of a column, whose name is in `first` or whose number is at most the length of `first`.
fn index_of(path: &Path, selected: &Selected, first: &StringRecord) -> Result<usize> {
    match selected.column {
        &Column::Number(number) if number <= first.len() => Ok(number - 1),
        Column::Number(number) => {
            let found = format!("{} columns on the first line", first.len());
            let next = format!("set {} to a smaller number", selected.setting);
            Err(DataError::file(path, format!("a column {number}"), found, next))
        }
        Column::Name(name) => {
            first.iter().position(|own| own == name).ok_or_else(|| no_column(path, selected, first.iter()))
        }
    }
}

/// Returns the line on which a record starts, from 1. The reader's position is that of the empty lines before it.
fn line_of(record: &StringRecord, text: &str) -> u64 {
    let (line, byte) = record.position().map_or((1, 0), |position| (position.line(), position.byte() as usize));
    let skipped = text.bytes().skip(byte).take_while(|byte| matches!(byte, b'\r' | b'\n'));
    line + skipped.filter(|&byte| byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str, dialect: Dialect, columns: &[Column]) -> std::result::Result<Vec<Row>, String> {
        let columns: Vec<Selected> = columns.iter().map(|column| Selected { setting: "label", column }).collect();
        read(Path::new("dev.tsv"), text, dialect, &columns).map_err(|error| error.to_string())
    }

    fn name(name: &str) -> Column {
        Column::Name(name.to_owned())
    }

    fn row(number: u64, cells: &[&str]) -> Row {
        Row { number, cells: cells.iter().map(|&cell| Some(cell.to_owned()).filter(|cell| !cell.is_empty())).collect() }
    }

    #[test]
    fn named_columns_are_read_in_the_selected_order() {
        let text = "label\ttext\n1\tsay \"hi\n\n0\t\"it\", he said\n";
        let expected = [row(2, &["say \"hi", "1"]), row(4, &["\"it\", he said", "0"])];
        assert_eq!(rows(text, TAB, &[name("text"), name("label")]).unwrap(), expected);
        let text = "label,text\r\n1,\"a, \"\"b\"\"\nc\"\r\n,d";
        let expected = [row(2, &["1", "a, \"b\"\nc"]), row(4, &["", "d"])];
        assert_eq!(rows(text, COMMA, &[name("label"), name("text")]).unwrap(), expected);
    }

    #[test]
    fn numbered_columns_need_no_header() {
        let expected = [row(1, &["first", "1"]), row(2, &["second", "0"])];
        assert_eq!(rows("1\tfirst\n0\tsecond", TAB, &[Column::Number(2), Column::Number(1)]).unwrap(), expected);
    }

    #[test]
    fn missing_columns_and_uneven_rows_are_errors() {
        for (text, column, expected) in [
            (
                "a\tb\n",
                name("label"),
                "dev.tsv: requires a column \"label\", got the columns \"a\", \"b\"; choose one of them as label",
            ),
            (
                "a\tb\n",
                Column::Number(3),
                "dev.tsv: requires a column 3, got 2 columns on the first line; set label to a smaller number",
            ),
            (
                "a\tb\n1\t2\n\n1\t2\t3",
                name("a"),
                "dev.tsv: requires 2 columns on line 4, as on the first line, got 3; remove separators from its texts, or add the missing cells",
            ),
        ] {
            assert_eq!(rows(text, TAB, &[column]).unwrap_err(), expected);
        }
    }
}
