//! Checks of pages before the crate decodes them. It allocates memory for as many values as a page states, before it reads the first;
//! a damaged number of a few bytes would take all memory.

use parquet::basic::{Encoding, Type};
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::RowGroupReader;
use parquet::record::reader::RowIter;
use parquet::schema::types::{ColumnDescPtr, ColumnDescriptor, Type as SchemaType};

use super::Decoded;

/// The most strings in a page whose lengths come before the strings: 64 MB of lengths. Writers end a page after about 1 MB.
const MOST_STRINGS: u64 = 1 << 24;

/// A row group whose pages are checked.
pub(in crate::data) struct CheckedRowGroup<'a>(Box<dyn RowGroupReader + 'a>);

impl<'a> CheckedRowGroup<'a> {
    pub(super) fn new(group: Box<dyn RowGroupReader + 'a>) -> CheckedRowGroup<'a> {
        CheckedRowGroup(group)
    }
}

impl RowGroupReader for CheckedRowGroup<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.0.metadata()
    }

    fn num_columns(&self) -> usize {
        self.0.num_columns()
    }

    fn get_column_page_reader(&self, index: usize) -> Decoded<Box<dyn PageReader>> {
        let column = self.metadata().schema_descr().column(index);
        Ok(Box::new(CheckedPages { pages: self.0.get_column_page_reader(index)?, column }))
    }

    fn get_column_bloom_filter(&self, index: usize) -> Option<&Sbbf> {
        self.0.get_column_bloom_filter(index)
    }

    fn get_row_iter(&self, projection: Option<SchemaType>) -> Decoded<RowIter<'_>> {
        RowIter::from_row_group(projection, self)
    }
}

/// The pages of a column, each checked by [`check`].
struct CheckedPages {
    pages: Box<dyn PageReader>,
    column: ColumnDescPtr,
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> Decoded<Option<Page>> {
        let page = self.pages.get_next_page()?;
        if let Some(page) = &page {
            check(page, &self.column).map_err(ParquetError::General)?;
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Decoded<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Decoded<()> {
        self.pages.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Decoded<bool> {
        self.pages.at_record_boundary()
    }
}

impl Iterator for CheckedPages {
    type Item = Decoded<Page>;

    fn next(&mut self) -> Option<Decoded<Page>> {
        self.get_next_page().transpose()
    }
}

/// Requires that a page has the bytes for the values that it states.
///
/// # Errors
/// If it has not; the error describes the page.
fn check(page: &Page, column: &ColumnDescriptor) -> Result<(), String> {
    let (values, bytes) = (u64::from(page.num_values()), page.buffer().len());
    if page.is_dictionary_page() {
        let least = values * shortest_value(column);
        return if least > bytes as u64 {
            Err(format!("a dictionary of {values} values in {bytes} bytes"))
        } else {
            Ok(())
        };
    }
    let arrays = match page.encoding() {
        Encoding::DELTA_LENGTH_BYTE_ARRAY => 1,
        Encoding::DELTA_BYTE_ARRAY => 2,
        _ => return Ok(()),
    };
    let mut rest = without_levels(page, column).ok_or("levels longer than their page")?;
    for _ in 0..arrays {
        if rest.is_empty() {
            break;
        }
        let lengths = split_deltas(&mut rest).ok_or("lengths of strings longer than their page")?;
        if lengths > values.min(MOST_STRINGS) {
            return Err(format!("a page of {values} values with the lengths of {lengths}"));
        }
    }
    Ok(())
}

/// Returns the bytes of the shortest value of a column in a dictionary.
fn shortest_value(column: &ColumnDescriptor) -> u64 {
    match column.physical_type() {
        Type::BOOLEAN => 1,
        // A string begins with its length.
        Type::INT32 | Type::FLOAT | Type::BYTE_ARRAY => 4,
        Type::INT64 | Type::DOUBLE => 8,
        Type::INT96 => 12,
        Type::FIXED_LEN_BYTE_ARRAY => u64::try_from(column.type_length()).unwrap_or(0).max(1),
    }
}

/// Returns the values of a data page, without the repetition and definition levels before them.
fn without_levels<'a>(page: &'a Page, column: &ColumnDescriptor) -> Option<&'a [u8]> {
    let mut bytes: &[u8] = page.buffer();
    match page {
        Page::DataPage { num_values, rep_level_encoding, def_level_encoding, .. } => {
            let levels = [(column.max_rep_level(), rep_level_encoding), (column.max_def_level(), def_level_encoding)];
            for (max, encoding) in levels.into_iter().filter(|&(max, _)| max > 0) {
                let length = if *encoding == Encoding::RLE {
                    u32::from_le_bytes(*bytes.split_off(..4)?.first_chunk()?) as usize
                } else {
                    // BIT_PACKED: as many bits for each level as the largest takes.
                    (*num_values as usize * (i16::BITS - max.leading_zeros()) as usize).div_ceil(8)
                };
                bytes.split_off(..length)?;
            }
        }
        Page::DataPageV2 { rep_levels_byte_len, def_levels_byte_len, .. } => {
            bytes.split_off(..*rep_levels_byte_len as usize)?;
            bytes.split_off(..*def_levels_byte_len as usize)?;
        }
        Page::DictionaryPage { .. } => {}
    }
    Some(bytes)
}

/// Takes integers in the encoding DELTA_BINARY_PACKED off the front of `bytes` and returns their number, or `None` if `bytes` end
/// before them (Apache Parquet, Encodings.md, "Delta Encoding").
fn split_deltas(bytes: &mut &[u8]) -> Option<u64> {
    let [per_block, mini_blocks, values, _first] = [(); 4].map(|()| read_varint(bytes));
    let (mini_blocks, values) = (mini_blocks?, values?);
    let per_mini_block = per_block?.checked_div(mini_blocks).filter(|&number| number > 0)?;
    let mut left = values.saturating_sub(1);
    while left > 0 {
        let _smallest = read_varint(bytes)?;
        for &width in bytes.split_off(..usize::try_from(mini_blocks).ok()?)? {
            // The last block has the widths of all its mini-blocks, but no bits of those without values.
            if left > 0 {
                let bits = per_mini_block.checked_mul(u64::from(width))?;
                bytes.split_off(..usize::try_from(bits / 8).ok()?)?;
                left = left.saturating_sub(per_mini_block);
            }
        }
    }
    Some(values)
}

/// Takes a ULEB128 number off the front of `bytes`.
fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::properties::{WriterProperties, WriterVersion};
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    /// Writes the texts of an optional column in an encoding, and returns its first page of values.
    fn page_of(texts: &[Option<String>], encoding: Encoding, version: WriterVersion) -> (Page, ColumnDescPtr) {
        let schema = Arc::new(parse_message_type("message m { OPTIONAL BYTE_ARRAY text (STRING); }").unwrap());
        let properties = WriterProperties::builder().set_writer_version(version).set_dictionary_enabled(false);
        let properties = Arc::new(properties.set_encoding(encoding).build());
        let file = tempfile::tempfile().unwrap();
        let mut writer = SerializedFileWriter::new(file.try_clone().unwrap(), schema, properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let values: Vec<ByteArray> = texts.iter().flatten().map(|text| ByteArray::from(text.as_str())).collect();
        let levels: Vec<i16> = texts.iter().map(|text| i16::from(text.is_some())).collect();
        column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        let reader = SerializedFileReader::new(file).unwrap();
        let page = reader.get_row_group(0).unwrap().get_column_page_reader(0).unwrap().get_next_page().unwrap();
        (page.unwrap(), reader.metadata().file_metadata().schema_descr().column(0))
    }

    /// Returns the page with another number of lengths, which follows the block size 128 and its 4 mini-blocks.
    fn with_count(page: Page, count: &[u8]) -> Page {
        let Page::DataPage { buf, num_values, encoding, def_level_encoding, rep_level_encoding, statistics } = page
        else {
            panic!("a page of the first version")
        };
        let at = buf.windows(3).position(|bytes| bytes == [0x80, 1, 4]).unwrap() + 3;
        let buf = [&buf[..at], count, &buf[at + 1..]].concat().into();
        Page::DataPage { buf, num_values, encoding, def_level_encoding, rep_level_encoding, statistics }
    }

    fn texts(count: usize) -> Vec<Option<String>> {
        (0..count).map(|row| (row % 7 > 0).then(|| "word ".repeat(row % 40))).collect()
    }

    #[test]
    fn pages_of_every_encoding_and_version_are_accepted() {
        for encoding in [Encoding::PLAIN, Encoding::DELTA_LENGTH_BYTE_ARRAY, Encoding::DELTA_BYTE_ARRAY] {
            for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
                for count in [1, 2, 33, 129, 1000] {
                    let (page, column) = page_of(&texts(count), encoding, version);
                    assert_eq!((page.encoding(), check(&page, &column)), (encoding, Ok(())), "{version:?}, {count}");
                }
            }
        }
    }

    #[test]
    fn more_lengths_than_values_are_refused() {
        for encoding in [Encoding::DELTA_LENGTH_BYTE_ARRAY, Encoding::DELTA_BYTE_ARRAY] {
            let (page, column) = page_of(&texts(20), encoding, WriterVersion::PARQUET_1_0);
            let one_more = with_count(page.clone(), &[21]);
            assert_eq!(check(&one_more, &column).unwrap_err(), "a page of 20 values with the lengths of 21");
            let billions = with_count(page, &[0xff, 0xff, 0xff, 0xff, 0x0f]);
            assert!(check(&billions, &column).is_err());
        }
    }

    #[test]
    fn a_dictionary_of_more_values_than_bytes_is_refused() {
        let (_, column) = page_of(&texts(2), Encoding::PLAIN, WriterVersion::PARQUET_1_0);
        let dictionary = |num_values| Page::DictionaryPage {
            buf: vec![0; 10].into(),
            num_values,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        assert_eq!(check(&dictionary(2), &column), Ok(()));
        assert_eq!(check(&dictionary(3), &column).unwrap_err(), "a dictionary of 3 values in 10 bytes");
    }
}
