//! A shard that another program truncates while this one reads it: at every moment of the read, one error names the file.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use lambert::data::{PreparedData, Split, watch_mapped_files};

use crate::common::Workshop;

/// The directory of the prepared data, and the length that its training shard is cut to, for the test as a child process.
const CHILD: [&str; 2] = ["LAMBERT_TEST_TRUNCATED", "LAMBERT_TEST_LENGTH"];
/// The exit code of a child process that has reported the truncation.
const REPORTED: i32 = 41;

fn shard(data: &Path) -> PathBuf {
    data.join("train-00000.safetensors")
}

fn cut(path: &Path, length: u64) {
    File::options().write(true).open(path).unwrap().set_len(length).unwrap();
}

/// Reads all tokens of a shard that is truncated after it was opened, without any check of its length.
fn read_truncated(data: &Path, length: u64) {
    watch_mapped_files(|error| {
        eprintln!("reported: {error}");
        std::process::exit(REPORTED);
    })
    .unwrap();
    let prepared = PreparedData::open(data).unwrap();
    let documents = prepared.documents(Split::Train);
    let ends = (0..documents.len()).map(|index| documents.get(index).starts.to_vec()).collect::<Vec<_>>();
    cut(&shard(data), length);
    for starts in ends {
        documents.get(0).shard.read_tokens(starts[0]..starts[starts.len() - 1]).unwrap();
    }
}

/// Runs the test `name` of this file in a process of its own, with the data of `workshop`.
fn child(name: &str, workshop: &Workshop, length: u64) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("truncation::{name}"), "--nocapture", "--test-threads=1"]);
    command.env(CHILD[0], workshop.path("data")).env(CHILD[1], length.to_string());
    command.output().unwrap()
}

#[test]
fn a_truncation_during_a_read_is_reported_and_ends_the_process() {
    if let [Ok(data), Ok(length)] = CHILD.map(std::env::var) {
        return read_truncated(Path::new(&data), length.parse().unwrap());
    }
    let workshop = Workshop::new();
    let bytes = shard(&workshop.path("data")).metadata().unwrap().len();
    // The tokens are more than a page behind the new end.
    assert!(bytes > 3 * 4096, "{bytes}");
    let output = child("a_truncation_during_a_read_is_reported_and_ends_the_process", &workshop, 64);
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(REPORTED), "{:?}: {words}", output.status);
    let expected = format!(
        "train-00000.safetensors: requires {bytes} bytes, as when it was opened, got 64; another program changed"
    );
    assert!(words.contains("reported: ") && words.contains(&expected), "{words}");
}

/// Within the last page of the file, a read beyond its end gives zeros and no signal.
#[test]
fn a_truncation_within_a_page_is_noticed_after_the_read() {
    let workshop = Workshop::new();
    let data = workshop.path("data");
    let bytes = shard(&data).metadata().unwrap().len();
    let prepared = PreparedData::open(&data).unwrap();
    let documents = prepared.documents(Split::Train);
    let last = documents.get(documents.len() - 1);
    let end = last.starts[last.starts.len() - 1];
    let read = || last.shard.read_tokens(end - 1..end);
    let before = documents.unchanged(read).unwrap();
    assert!(before[0] != 0);
    let error = documents.unchanged(|| {
        cut(&shard(&data), bytes - 2);
        let after = read()?;
        assert_eq!(after, [0], "the read itself notices nothing");
        Ok(after)
    });
    let message = error.unwrap_err().to_string();
    assert!(
        message.contains(&format!("requires {bytes} bytes, as when it was opened, got {}", bytes - 2)),
        "{message}"
    );
}

#[test]
fn a_bus_error_of_another_cause_ends_the_process_as_usual() {
    if std::env::var(CHILD[0]).is_ok() {
        watch_mapped_files(|error| panic!("{error}")).unwrap();
        signal_hook::low_level::raise(signal_hook::consts::SIGBUS).unwrap();
        return std::thread::sleep(Duration::from_secs(20));
    }
    let workshop = Workshop::new();
    let output = child("a_bus_error_of_another_cause_ends_the_process_as_usual", &workshop, 0);
    assert_eq!(output.status.signal(), Some(signal_hook::consts::SIGBUS), "{output:?}");
}
