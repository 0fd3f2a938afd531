//! Writes TensorBoard event files with scalars by step. A file is a sequence of TFRecords (length, checksum of the length, data,
//! checksum of the data), and the data of each is one protocol buffer message, `tensorflow.Event`.
//!
//! Sources of the formats: tensorflow/tensorflow `core/lib/io/record_writer.h` (framing, masked CRC-32C),
//! `core/util/event.proto` and `core/framework/summary.proto` (field numbers).

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use prost::Message;

/// The message of one record: `tensorflow.Event`.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "Content", tags = "3, 5, 7")]
    content: Option<Content>,
}

/// The content of an event.
#[derive(Clone, PartialEq, prost::Oneof)]
enum Content {
    /// The first record of every file: `brain.Event:2`.
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Scalar>,
}

#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    // Optional, because proto3 does not write a plain field that is zero, but a loss may be zero.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    /// 1 is START: TensorBoard discards earlier points from this step on.
    #[prost(int32, tag = "1")]
    status: i32,
}

/// An event file open for appending.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Creates `events.out.tfevents.<seconds>.<host>` in `directory`, with `next_step` as the first step. TensorBoard discards
    /// that step and later ones of earlier files, which an interrupted run wrote after its last checkpoint.
    ///
    /// # Errors
    /// If the file cannot be created or written.
    pub fn create(directory: &Path, next_step: u64) -> anyhow::Result<EventWriter> {
        let name = format!("events.out.tfevents.{:010}.{}", now() as u64, host());
        let mut path = directory.join(&name);
        // A number distinguishes files created within one second.
        for n in 1.. {
            if !path.exists() {
                break;
            }
            path = directory.join(format!("{name}.{n}"));
        }
        let file = File::create_new(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut writer = EventWriter { path, file };
        writer.write(0, Content::FileVersion("brain.Event:2".to_owned()))?;
        writer.write(next_step, Content::SessionLog(SessionLog { status: 1 }))?;
        Ok(writer)
    }

    /// Appends the scalars of a step by tag. TensorBoard groups tags by the part before the slash.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn scalars(&mut self, step: u64, scalars: impl IntoIterator<Item = (String, f64)>) -> anyhow::Result<()> {
        let value = |(tag, value)| Scalar { tag, simple_value: Some(value as f32) };
        self.write(step, Content::Summary(Summary { value: scalars.into_iter().map(value).collect() }))
    }

    fn write(&mut self, step: u64, content: Content) -> anyhow::Result<()> {
        let event = Event { wall_time: now(), step: step as i64, content: Some(content) };
        // One write per record: neither a reader nor a crash sees a partial record.
        let written = self.file.write_all(&record(&event.encode_to_vec()));
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// Frames `data` as a TFRecord: length, checksum of the length, data, checksum of the data, all little-endian.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length, &masked_crc32c(&length).to_le_bytes()[..], data, &masked_crc32c(data).to_le_bytes()].concat()
}

/// Returns TFRecord's masked CRC-32C. The mask keeps the checksum useful for data that contains its own CRC.
fn masked_crc32c(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Returns the seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

/// Returns the host name for the file name, from the kernel or else from `HOSTNAME`.
fn host() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = kernel.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    let name: String = name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || "-._".contains(*c)).collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes a file and verifies every checksum.
    fn events(mut bytes: &[u8]) -> Vec<Event> {
        fn take<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
            let (head, tail) = bytes.split_at(n);
            *bytes = tail;
            head
        }
        let mut events = Vec::new();
        while !bytes.is_empty() {
            let length = take(&mut bytes, 8);
            assert_eq!(take(&mut bytes, 4), masked_crc32c(length).to_le_bytes());
            let data = take(&mut bytes, u64::from_le_bytes(length.try_into().unwrap()) as usize);
            assert_eq!(take(&mut bytes, 4), masked_crc32c(data).to_le_bytes());
            events.push(Event::decode(data).unwrap());
        }
        events
    }

    #[test]
    fn checksum_is_crc32c_with_tensorflows_mask() {
        // RFC 3720 B.4: 32 bytes of zeros give 8a9136aa; ((x >> 15) | (x << 17)) + a282ead8 worked out by hand.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(masked_crc32c(&[0; 32]), 0x0fd7_fffa);
    }

    #[test]
    fn record_bytes_follow_the_format() {
        let event = Event { wall_time: 0.0, step: 3, content: Some(Content::FileVersion("v".into())) };
        // Field 2 varint 3; field 3 of length 1, "v".
        assert_eq!(event.encode_to_vec(), [0x10, 3, 0x1a, 1, b'v']);
        let zero = Scalar { tag: "t".into(), simple_value: Some(0.0) };
        assert_eq!(zero.encode_to_vec(), [0x0a, 1, b't', 0x15, 0, 0, 0, 0]);
        let bytes = record(b"abc");
        assert_eq!((bytes.len(), &bytes[..8], &bytes[12..15]), (8 + 4 + 3 + 4, &3u64.to_le_bytes()[..], &b"abc"[..]));
    }

    #[test]
    fn scalars_are_read_back_by_step_and_tag_and_each_start_has_its_own_file() {
        let folder = tempfile::tempdir().unwrap();
        for next_step in [0, 7] {
            let mut writer = EventWriter::create(folder.path(), next_step).unwrap();
            for step in next_step..next_step + 3 {
                let scalars = [("train/loss".to_owned(), 1.5 * step as f64), ("train/rate".to_owned(), f64::NAN)];
                writer.scalars(step, scalars).unwrap();
            }
            let events = events(&std::fs::read(&writer.path).unwrap());
            assert_eq!(events[0].content, Some(Content::FileVersion("brain.Event:2".into())));
            assert_eq!(events[1].content, Some(Content::SessionLog(SessionLog { status: 1 })));
            assert_eq!(events[1].step, next_step as i64);
            for (event, step) in events[2..].iter().zip(next_step..) {
                let Some(Content::Summary(summary)) = &event.content else { panic!("{event:?}") };
                assert_eq!((event.step, summary.value.len()), (step as i64, 2));
                assert_eq!(
                    summary.value[0],
                    Scalar { tag: "train/loss".into(), simple_value: Some(1.5 * step as f32) }
                );
                assert!(summary.value[1].simple_value.unwrap().is_nan());
                assert!(event.wall_time > 1.6e9);
            }
            assert_eq!(events.len(), 5);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
