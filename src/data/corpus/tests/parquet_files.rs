//! Parquet: all compressions, nulls, several row groups, and missing columns.

use std::sync::Arc;

use ::parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;

use crate::data::corpus::tests::*;

/// A file without rows with these columns.
fn empty_file_of(columns: &str) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(&format!("message rows {{ {columns} }}")).unwrap());
    let mut file = Vec::new();
    SerializedFileWriter::new(&mut file, schema, Arc::default()).unwrap().close().unwrap();
    file
}

/// A file of `groups` row groups, each with these texts and their row numbers.
fn file_of(compression: Compression, texts: &[Option<&str>], groups: usize) -> Vec<u8> {
    let required = texts.iter().all(Option::is_some);
    let repetition = if required { "REQUIRED" } else { "OPTIONAL" };
    let schema = format!("message rows {{ REQUIRED INT64 id; {repetition} BYTE_ARRAY text (STRING); }}");
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let mut file = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut file, schema, properties).unwrap();
    for _ in 0..groups {
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let ids: Vec<i64> = (0..texts.len() as i64).collect();
        column.typed::<Int64Type>().write_batch(&ids, None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let values: Vec<ByteArray> = texts.iter().flatten().map(|text| ByteArray::from(*text)).collect();
        let levels: Vec<i16> = texts.iter().map(|text| text.is_some() as i16).collect();
        let levels = if required { None } else { Some(&levels[..]) };
        column.typed::<ByteArrayType>().write_batch(&values, levels, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
    file
}

#[test]
fn rows_are_documents_in_every_compression() {
    let compressions = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
        Compression::LZ4_RAW,
        Compression::ZSTD(ZstdLevel::default()),
    ];
    for compression in compressions {
        let texts = [Some("One.\n\nTwo."), Some(" "), Some("Three.")];
        let (shown, counts) = read(&[("a.parquet", &file_of(compression, &texts, 2))]).unwrap();
        assert_eq!(shown, ["One.", "Two.", "¶", "Three.", "¶"].repeat(2), "{compression:?}");
        assert_eq!((counts.documents, counts.empty_documents), (4, 2));
    }
}

#[test]
fn many_rows_are_read_in_order() {
    let texts: Vec<String> = (0..5000).map(|row| format!("Row {row} {}", "of some words ".repeat(row % 50))).collect();
    let rows: Vec<Option<&str>> = texts.iter().map(|text| Some(text.as_str())).collect();
    let (shown, counts) = read(&[("a.parquet", &file_of(Compression::SNAPPY, &rows, 1))]).unwrap();
    let expected: Vec<&str> = texts.iter().flat_map(|text| [text.trim_end(), "¶"]).collect();
    assert_eq!((shown, counts.documents), (expected.into_iter().map(str::to_owned).collect(), 5000));
}

#[test]
fn nulls_are_rejected_or_counted() {
    let file = file_of(Compression::SNAPPY, &[Some("One."), None, Some("Two.")], 1);
    let refused = message(&[("a.parquet", &file)]);
    assert!(refused.contains("a.parquet") && refused.contains("row 2") && refused.contains("got null"), "{refused}");
    let options = ReadOptions { missing_text: Tolerance::Count, ..ReadOptions::default() };
    let (shown, counts) = read_with(&options, &[("a.parquet", &file)]).unwrap();
    assert_eq!((shown.concat().as_str(), counts.without_text), ("One.¶Two.¶", 1));
}

#[test]
fn missing_or_non_text_columns_are_reported_with_the_existing_ones() {
    let file = file_of(Compression::SNAPPY, &[Some("One.")], 1);
    for field in ["body", "id"] {
        let options = ReadOptions { text_field: field.into(), ..ReadOptions::default() };
        let message = read_with(&options, &[("a.parquet", &file)]).unwrap_err().to_string();
        assert!(message.contains(&format!("one column {field:?} of strings")), "{message}");
        assert!(message.contains("id (INT64), text (String)") && message.contains("text_field"), "{message}");
    }
}

#[test]
fn the_text_column_may_be_nested_but_not_repeated_or_duplicate() {
    let read_field = |field: &str, columns: &str| {
        let options = ReadOptions { text_field: field.into(), ..ReadOptions::default() };
        read_with(&options, &[("a.parquet", &empty_file_of(columns))]).map_err(|error| error.to_string())
    };
    assert_eq!(read_field("doc.text", "OPTIONAL group doc { OPTIONAL BYTE_ARRAY text (STRING); }").unwrap().0, [""; 0]);
    assert_eq!(read_field("text", "REQUIRED BYTE_ARRAY text; REQUIRED INT64 id;").unwrap().0, [""; 0]);
    let list = read_field("texts", "REPEATED BYTE_ARRAY texts (STRING);").unwrap_err();
    assert!(list.contains("one column \"texts\" of strings, got the columns texts (list of String); "), "{list}");
    let twice = "REQUIRED BYTE_ARRAY text (STRING); REQUIRED BYTE_ARRAY text (STRING);";
    let twice = read_field("text", twice).unwrap_err();
    assert!(twice.contains("got the columns text (String), text (String); "), "{twice}");
}

#[test]
fn truncated_or_damaged_files_are_named() {
    let texts: Vec<String> = (0..20_000).map(|row| format!("Row {row}.")).collect();
    let rows: Vec<Option<&str>> = texts.iter().map(|text| Some(text.as_str())).collect();
    let file = file_of(Compression::ZSTD(ZstdLevel::default()), &rows, 2);
    let cut = message(&[("a.parquet", &file[..file.len() / 2])]);
    assert!(cut.contains("a.parquet: requires a whole Parquet file, got an error after 0 rows"), "{cut}");
    let mut damaged = file.clone();
    let at = file.len() * 9 / 10;
    damaged[at - 200..at].fill(0x5a);
    let damaged = message(&[("a.parquet", &damaged)]);
    assert!(damaged.contains("a.parquet: requires a whole Parquet file, got an error after"), "{damaged}");
    assert!(message(&[("a.parquet", b"")]).contains("a.parquet"));
    for (kind, bytes) in [("gzip", &b"\x1f\x8b\x08\0"[..]), ("encrypted Parquet", b"PARE\x10\x02\0\0\x15")] {
        let message = message(&[("a.parquet", bytes)]);
        assert!(
            message.contains(&format!("a.parquet: requires a Parquet file, as its name says, got {kind}; ")),
            "{message}"
        );
    }
}

#[test]
fn one_damaged_byte_never_panics() {
    let mut stream = crate::rng::Key::new(7).stream();
    let texts: Vec<String> = (0..100).map(|row| format!("Row {row} of some words.")).collect();
    let rows: Vec<Option<&str>> =
        texts.iter().enumerate().map(|(row, text)| Some(&text[..]).filter(|_| row % 7 > 0)).collect();
    for compression in [Compression::SNAPPY, Compression::ZSTD(ZstdLevel::default()), Compression::UNCOMPRESSED] {
        let whole = file_of(compression, &rows, 3);
        for at in (0..whole.len()).step_by(5) {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << stream.below(8);
            let read = read(&[("a.parquet", &damaged)]);
            assert!(read.is_ok() || read.is_err_and(|error| error.to_string().contains("a.parquet")), "byte {at}");
        }
    }
}
