//! Writes TensorBoard event files: scalars by step with their descriptions, and the settings of the run for the plugin `hparams`. A
//! file is a sequence of TFRecords (length, checksum of the length, data, checksum of the data), and the data of each is one of the
//! messages of `messages.rs`, `tensorflow.Event`.
//!
//! Source of the framing: tensorflow/tensorflow `core/lib/io/record_writer.h` (masked CRC-32C).

mod messages;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use prost::Message;
use serde_json::Value as Json;

use self::messages::{
    Content, Dim, Event, HParam, HParamKind, HParams, Metadata, PluginData, Session, SessionEnd, SessionLog,
    SessionStart, Summary, Tensor, TensorShape, Value,
};
use super::descriptions::description;

/// The tags of values of the plugin `hparams`.
const SESSION_START: &str = "_hparams_/session_start_info";
const SESSION_END: &str = "_hparams_/session_end_info";
/// The name of that plugin.
const HPARAMS: &str = "hparams";
/// `STATUS_SUCCESS` of the end of a session.
const SUCCESS: i32 = 1;
/// `DT_FLOAT` of a tensor.
const DT_FLOAT: i32 = 1;

/// An event file open for appending.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
    /// The tags whose description is written.
    described: BTreeSet<String>,
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
        let mut writer = EventWriter { path, file, described: BTreeSet::new() };
        writer.write(0, Content::FileVersion("brain.Event:2".to_owned()))?;
        writer.write(next_step, Content::SessionLog(SessionLog { status: 1 }))?;
        Ok(writer)
    }

    /// Appends the scalars of a step, with the tags `group/name`. The first value of each has the [`description`] of its name.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn scalars(&mut self, group: &str, step: u64, scalars: &[(impl AsRef<str>, f64)]) -> anyhow::Result<()> {
        let value = |(name, value): &(_, f64)| {
            let name: &str = AsRef::as_ref(name);
            let tag = format!("{group}/{name}");
            let described = self.described.insert(tag.clone()).then(|| description(group, name)).flatten();
            let metadata = described.map(|text| Metadata { summary_description: text, ..Metadata::default() });
            Value { tag, simple_value: Some(*value as f32), metadata, ..Value::default() }
        };
        let value = scalars.iter().map(value).collect();
        self.write(step, Content::Summary(Summary { value }))
    }

    /// Appends the settings of the run, by dotted key, for the plugin `hparams`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn settings(&mut self, settings: &BTreeMap<String, Json>) -> anyhow::Result<()> {
        let hparam = |value: &Json| {
            let kind = match value {
                Json::Bool(value) => HParamKind::Bool(*value),
                Json::String(text) => HParamKind::Text(text.clone()),
                value => value.as_f64().map_or_else(|| HParamKind::Text(value.to_string()), HParamKind::Number),
            };
            HParam { kind: Some(kind) }
        };
        let hparams = settings.iter().map(|(key, value)| (key.clone(), hparam(value))).collect();
        self.session(SESSION_START, Session::Start(SessionStart { hparams, start_time_secs: now() }))
    }

    /// Appends the end of the run, for the plugin `hparams`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn ended(&mut self) -> anyhow::Result<()> {
        self.session(SESSION_END, Session::End(SessionEnd { status: SUCCESS, end_time_secs: now() }))
    }

    fn session(&mut self, tag: &str, session: Session) -> anyhow::Result<()> {
        let content = HParams { session: Some(session) }.encode_to_vec();
        let metadata = Metadata {
            plugin_data: Some(PluginData { plugin_name: HPARAMS.to_owned(), content }),
            ..Metadata::default()
        };
        let tensor = Tensor {
            dtype: DT_FLOAT,
            tensor_shape: Some(TensorShape { dim: vec![Dim { size: 1 }] }),
            float_val: vec![0.0],
        };
        let value = Value { tag: tag.to_owned(), metadata: Some(metadata), tensor: Some(tensor), ..Value::default() };
        self.write(0, Content::Summary(Summary { value: vec![value] }))
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
        let zero = Value { tag: "t".into(), simple_value: Some(0.0), ..Value::default() };
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
                writer.scalars("train", step, &[("loss", 1.5 * step as f64), ("rate", f64::NAN)]).unwrap();
            }
            let events = events(&std::fs::read(&writer.path).unwrap());
            assert_eq!(events[0].content, Some(Content::FileVersion("brain.Event:2".into())));
            assert_eq!(events[1].content, Some(Content::SessionLog(SessionLog { status: 1 })));
            assert_eq!(events[1].step, next_step as i64);
            for (event, step) in events[2..].iter().zip(next_step..) {
                let Some(Content::Summary(summary)) = &event.content else { panic!("{event:?}") };
                assert_eq!((event.step, summary.value.len()), (step as i64, 2));
                let metadata = |text: String| Metadata { summary_description: text, plugin_data: None };
                let metadata = description("train", "loss").filter(|_| step == next_step).map(metadata);
                let loss = Some(1.5 * step as f32);
                let value = Value { tag: "train/loss".into(), simple_value: loss, metadata, ..Value::default() };
                assert_eq!(summary.value[0], value);
                assert!(summary.value[1].simple_value.unwrap().is_nan());
                assert!(event.wall_time > 1.6e9);
            }
            assert_eq!(events.len(), 5);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn settings_keep_their_types() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(folder.path(), 0).unwrap();
        let settings = [("seed", Json::from(7)), ("name", "mine".into()), ("packed", true.into())];
        writer.settings(&settings.map(|(key, value)| (key.to_owned(), value)).into()).unwrap();
        writer.ended().unwrap();

        let events = events(&std::fs::read(&writer.path).unwrap());
        let sessions: Vec<(String, Session)> = events[2..]
            .iter()
            .map(|event| {
                let Some(Content::Summary(summary)) = &event.content else { panic!("{event:?}") };
                let plugin = summary.value[0].metadata.as_ref().unwrap().plugin_data.as_ref().unwrap();
                assert_eq!(plugin.plugin_name, HPARAMS);
                let session = HParams::decode(plugin.content.as_slice()).unwrap().session.unwrap();
                (summary.value[0].tag.clone(), session)
            })
            .collect();
        let [(start, Session::Start(begun)), (end, Session::End(ended))] = &sessions[..] else {
            panic!("{sessions:?}")
        };
        assert_eq!([start, end], [SESSION_START, SESSION_END]);
        let kind = |key: &str| begun.hparams[key].kind.clone().unwrap();
        assert_eq!(kind("seed"), HParamKind::Number(7.0));
        assert_eq!(kind("name"), HParamKind::Text("mine".into()));
        assert_eq!(kind("packed"), HParamKind::Bool(true));
        assert!(ended.status == SUCCESS && ended.end_time_secs >= begun.start_time_secs);
    }
}
