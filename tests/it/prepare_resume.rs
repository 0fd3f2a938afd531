//! Preparations that are interrupted by a kill, a full disk, or a changed or unreachable input, and how the next run
//! resumes them; files in the way of a preparation; its memory use; and `prepare --check`.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::preparation::{Place, contents, documents, prepare};
use crate::common::text;
use lambert::data::TEXT_RULES;

#[test]
fn a_killed_preparation_resumes_and_ends_with_the_same_bytes() {
    let place = Place::new(40, 200);
    place.succeed(&prepare("whole"));
    let whole = contents(&place.at("whole"));
    let shards = whole.keys().filter(|name| name.to_string_lossy().ends_with(".safetensors")).count();
    assert!(shards > 20, "{shards} shards");
    let steps = 1 + 3 * 40 + shards;

    let (mut kills, mut records) = (0, String::new());
    // While inputs are read, near the end of reading, and while shards are written.
    for at in [2, 30, 70, 122, 128, 140] {
        let mut child = place.command(&prepare("killed")).stderr(Stdio::null()).spawn().expect("lambert starts");
        while place.records("killed") < at && child.try_wait().expect("a child").is_none() {
            std::thread::sleep(Duration::from_micros(200));
        }
        child.kill().expect("a child can be killed");
        kills += !child.wait().expect("a child").success() as u32;
        assert!(place.records("killed") <= steps);
        records += &format!("{} ", place.records("killed"));
    }
    assert!(kills >= 3, "killed {kills} times, after records {records}");
    place.succeed(&prepare("killed"));
    assert!(contents(&place.at("killed")) == whole, "killed after records {records}of {steps}");
    assert!(!place.at(".killed.partial").exists());
    place.succeed(&["inspect", "killed", "--check", "--examples", "1"]);

    // The number of threads makes no difference.
    let one = place.command(&prepare("one")).env("RAYON_NUM_THREADS", "1").output().expect("lambert starts");
    assert!(one.status.success() && contents(&place.at("one")) == whole);
    // All shards are of one size, including the last.
    let manifest: serde_json::Value = serde_json::from_slice(&whole[Path::new("prepared.json")]).expect("JSON");
    let entries = manifest["shards"].as_array().expect("a list");
    let tokens: Vec<u64> = entries
        .iter()
        .filter(|entry| entry["split"] == "train")
        .map(|entry| entry["counts"]["tokens"].as_u64().expect("a number"))
        .collect();
    let (least, most) = (tokens.iter().min().expect("shards"), tokens.iter().max().expect("shards"));
    assert!((most - least) as f64 / (*most as f64) < 0.02, "{tokens:?}");
}

#[test]
fn lost_tokens_are_encoded_again() {
    let place = Place::new(30, 200);
    place.succeed(&prepare("whole"));
    let mut child = place.command(&prepare("killed")).stderr(Stdio::null()).spawn().expect("lambert starts");
    while place.records("killed") < 40 && child.try_wait().expect("a child").is_none() {
        std::thread::sleep(Duration::from_micros(200));
    }
    child.kill().expect("a child can be killed");
    assert!(!child.wait().expect("a child").success(), "it ended before it was killed");
    // Data that a power failure may lose, and an incomplete journal line.
    let spool = place.at(".killed.partial/train-00000.spool");
    let bytes = fs::read(&spool).expect("a spool");
    fs::write(&spool, &bytes[..bytes.len() / 2]).expect("writable");
    let journal = place.at(".killed.partial/journal.jsonl");
    let lines = fs::read(&journal).expect("a journal");
    fs::write(&journal, &lines[..lines.len() - 20]).expect("writable");
    place.succeed(&prepare("killed"));
    assert!(contents(&place.at("killed")) == contents(&place.at("whole")));
}

#[test]
fn a_preparation_stopped_by_a_full_disk_resumes() {
    let place = Place::new(4, 400);
    place.succeed(&prepare("whole"));
    // A limit on the file size fails like a full disk; with its signal ignored, the process continues.
    let mut limited = Command::new("sh");
    limited.arg("-c").arg("trap '' XFSZ; ulimit -f 40; exec \"$0\" \"$@\"").arg(env!("CARGO_BIN_EXE_lambert"));
    let output = limited.args(prepare("stopped")).current_dir(place.0.path()).output().expect("a shell starts");
    let words = text(&output);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("and the disk is full; free some space") && !words.contains("panicked"), "{words}");
    assert!(!place.at("stopped").exists() && place.records("stopped") > 0);
    place.succeed(&prepare("stopped"));
    assert!(contents(&place.at("stopped")) == contents(&place.at("whole")));
}

#[test]
fn a_changed_input_or_option_is_rejected_until_forced() {
    let place = Place::new(30, 200);
    let mut child = place.command(&prepare("killed")).stderr(Stdio::null()).spawn().expect("lambert starts");
    // A preparation that has hashed inputs but tokenized nothing starts again.
    let journal = place.at(".killed.partial/journal.jsonl");
    let tokenized = || fs::read_to_string(&journal).is_ok_and(|text| text.contains("{\"tokenized\""));
    while !tokenized() && child.try_wait().expect("a child").is_none() {
        std::thread::sleep(Duration::from_micros(200));
    }
    child.kill().expect("a child can be killed");
    assert!(!child.wait().expect("a child").success(), "it ended before it was killed");
    let left = contents(&place.at(".killed.partial"));
    // A program with other rules for documents and sentences does not add to it.
    let begun = fs::read_to_string(&journal).expect("a journal");
    for (rules, found) in
        [("\"text_rules\":0,", "preparation by version 0 of them"), ("", "preparation by earlier ones")]
    {
        let other = begun.replacen(&format!("\"text_rules\":{TEXT_RULES},"), rules, 1);
        assert!(other != begun);
        fs::write(&journal, other).expect("writable");
        let expected =
            ["of the rules for documents and sentences, got an interrupted", found, "with the program that began it"];
        place.fails(&prepare("killed"), 1, &expected);
    }
    fs::write(&journal, begun).expect("writable");
    fs::write(place.at("inputs/000.txt"), documents(200, 99)).expect("writable");
    let expected = ["inputs/000.txt as it is now", "an interrupted preparation from its earlier content", "set force"];
    place.fails(&prepare("killed"), 1, &expected);
    place.fails(&[&prepare("killed")[..], &["--seed", "4"]].concat(), 1, &["seed: 4", "set force"]);
    assert!(contents(&place.at(".killed.partial")) == left, "finished work is kept");
    place.succeed(&[&prepare("killed")[..], &["--force"]].concat());
    place.succeed(&prepare("whole"));
    assert!(contents(&place.at("killed")) == contents(&place.at("whole")));
}

#[test]
fn check_reports_changes() {
    let place = Place::new(3, 100);
    place.succeed(&prepare("data"));
    let check = ["prepare", "--check", "data"];
    assert!(
        place.succeed(&check).contains("data: undamaged") && place.succeed(&check).contains("3 of 3 inputs unchanged")
    );
    // Equal content with another modification time is unchanged.
    fs::write(place.at("inputs/000.txt"), documents(100, 0)).expect("writable");
    place.succeed(&check);
    fs::remove_file(place.at("inputs/001.txt")).expect("removed");
    let words = place.succeed(&check);
    assert!(words.contains("inputs/001.txt: not found") && words.contains("2 of 3 inputs"), "{words}");
    fs::write(place.at("inputs/000.txt"), documents(100, 7)).expect("writable");
    place.fails(&check, 3, &["inputs/000.txt: changed since it was prepared", "data: undamaged", "1 of 3 inputs"]);
    let json = place.lambert(&["prepare", "--check", "data", "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(json["changed_inputs"], serde_json::json!(["inputs/000.txt"]));
    place.fails(&prepare("data"), 1, &["inputs/001.txt"]);

    let shard = place.at("data/train-00000.safetensors");
    let mut bytes = fs::read(&shard).expect("a shard");
    let at = bytes.len() - 9;
    bytes[at] ^= 1;
    fs::write(&shard, &bytes).expect("writable");
    fs::remove_file(place.at("data/tokenizer/vocab.txt")).expect("removed");
    fs::remove_file(place.at("data/tokenizer/tokenizer.json")).expect("removed");
    place.fails(&check, 1, &["train-00000.safetensors: requires sha256", "data/tokenizer", "data: damaged"]);
    place.fails(&["prepare", "--check", "inputs"], 1, &["inputs", "prepared.json"]);
}

#[test]
fn filters_and_duplicates_are_counted() {
    let place = Place::new(1, 60);
    let english = fs::read_to_string(place.at("inputs/000.txt")).expect("readable");
    let near = english.lines().next().expect("a line").replace("The ", "the ");
    let german = "Es war ein heller kalter Tag im Dorf, und die Leute gingen langsam zum Markt, um Brot zu kaufen.";
    let more = format!("{english}\n{german}\n\nToo short.\n\n{near}\n\n");
    fs::write(place.at("inputs/001.txt"), more).expect("writable");
    let rules = ["--filter", "min_words=10", "--filter", "language=en", "--remove-duplicates", "near", "--json"];
    let output = place.lambert(&[&prepare("clean")[..], &rules].concat());
    assert!(output.status.success(), "{}", text(&output));
    let manifest: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let removed = |name: &str| manifest["removed"][name]["documents"].as_u64();
    let counts = ["min_words", "language", "exact_duplicates", "near_duplicates"].map(removed);
    assert_eq!(counts, [Some(1), Some(1), Some(60), Some(1)], "{}", text(&output));
    assert_eq!(manifest["removed"]["min_words"]["bytes"], 10);
    let kept = ["train", "held_out"].map(|split| manifest[split]["documents"].as_u64().expect("a number"));
    assert_eq!(kept.iter().sum::<u64>(), 60);
    place.fails(&[&prepare("other")[..], &["--filter", "min_letters=3"]].concat(), 2, &["min_words", "min_letters"]);
    place.fails(&[&prepare("other")[..], &["--filter", "min_words=5000"]].concat(), 1, &["were removed"]);
    let words = place.succeed(&[&prepare("other")[..], &["--filter", "min_words=10"]].concat());
    assert!(words.contains("removed by") && words.contains("min_words"), "{words}");
}

#[test]
fn sources_are_mixed_by_their_weights() {
    let place = Place::new(2, 300);
    let prepare = |out: &str, weight: &str| {
        let weighted = format!("b:{weight}=inputs/001.txt");
        let arguments = ["prepare", "inputs/000.txt", "--source", &weighted, "--tokenizer", "tokenizer", "--out", out];
        let output = place.lambert(&[&arguments[..], &["--held-out", "0.1", "--json"]].concat());
        assert!(output.status.success(), "{}", text(&output));
        let manifest: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(manifest["inputs"][1]["source"]["weight"].to_string(), weight);
        assert_eq!(manifest["inputs"][1]["reading"]["documents"], 300);
        ["train", "held_out"].map(|split| manifest[split]["documents"].as_u64().expect("a number"))
    };
    let [once, held_out] = prepare("once", "1.0");
    assert_eq!(once + held_out, 600);
    let [thrice, same] = prepare("thrice", "3.0");
    assert_eq!(same, held_out, "held-out documents are used once");
    // About 270 of the 300 documents of the second source are training documents.
    let of_second = (thrice - once) / 2;
    assert!((thrice - once) % 2 == 0 && (240..=300).contains(&of_second), "{once} and {thrice}");
    let [half, _] = prepare("half", "0.5");
    // Five standard deviations of a binomial(270, 0.5) are 41.
    assert!((once - half).abs_diff(of_second / 2) < 42, "{once} and {half}");
}

#[test]
#[cfg(target_os = "linux")]
fn memory_does_not_grow_with_the_corpus() {
    let place = Place::new(1, 2000);
    let megabytes = if cfg!(debug_assertions) { 24 } else { 300 };
    let block = fs::read(place.at("inputs/000.txt")).expect("readable");
    let mut large = Vec::new();
    while large.len() < megabytes << 19 {
        large.extend_from_slice(&block);
    }
    // Half of the text in one file, and half in several.
    fs::write(place.at("inputs/large.txt"), &large).expect("writable");
    for (number, part) in large.chunks(large.len() / 4 + 1).enumerate() {
        fs::write(place.at(&format!("inputs/part{number}.txt")), part).expect("writable");
    }
    drop(large);
    let arguments = ["prepare", "inputs", "--tokenizer", "tokenizer", "--out", "data", "--shard-tokens", "2000000"];
    let started = Instant::now();
    let mut child = place.command(&arguments).env("RAYON_NUM_THREADS", "2").spawn().expect("lambert starts");
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut peak = 0;
    let ended = loop {
        // The kernel records the peak resident memory of a process.
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        peak = peak.max(kilobytes.unwrap_or(0));
        if let Some(ended) = child.try_wait().expect("a child") {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(ended.success());
    // Two threads hold a few blocks of 4 MiB each; nothing holds the whole text.
    assert!(peak > 0 && peak < 140 << 10, "{megabytes} MB in {:?}: {peak} kB", started.elapsed());
}

#[test]
fn finished_work_is_kept_while_an_input_is_unreachable() {
    let place = Place::new(40, 200);
    place.succeed(&prepare("whole"));
    let (here, away) = (place.at("inputs"), place.at("unmounted"));
    let last = ("inputs/039.txt", "039.elsewhere");
    // An input disappears while the preparation runs.
    let child = place.command(&prepare("stopped")).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.expect("lambert starts");
    while place.records("stopped") < 4 {
        std::thread::sleep(Duration::from_micros(200));
    }
    fs::rename(place.at(last.0), place.at(last.1)).expect("renamed");
    let output = child.wait_with_output().expect("a child");
    let words = text(&output);
    assert_eq!(output.status.code(), Some(1), "{words}");
    for expected in [last.0, "finished work is kept, and the same command resumes it"] {
        assert!(words.contains(expected), "requires {expected:?}, got\n{words}");
    }
    let left = contents(&place.at(".stopped.partial"));
    assert!(place.records("stopped") >= 4 && left.len() >= 3, "{:?}", left.keys());
    // All inputs are missing on the next start; --force does not discard the work of an unchanged request.
    let forced = [&prepare("stopped")[..], &["--force"]].concat();
    place.fails(&prepare("stopped"), 1, &["an interrupted preparation from 40, with inputs/039.txt"]);
    fs::rename(&here, &away).expect("renamed");
    place.fails(&prepare("stopped"), 1, &["inputs"]);
    place.fails(&forced, 1, &["inputs"]);
    fs::create_dir(&here).expect("a mount point");
    place.fails(&forced, 1, &["inputs", "none"]);
    assert!(contents(&place.at(".stopped.partial")) == left, "finished work is kept");

    fs::remove_dir(&here).expect("removed");
    fs::rename(&away, &here).expect("renamed");
    fs::rename(place.at(last.1), place.at(last.0)).expect("renamed");
    // Equal content with another modification time is the same text.
    fs::write(place.at("inputs/000.txt"), documents(200, 0)).expect("writable");
    let words = place.succeed(&prepare("stopped"));
    assert!(words.contains("resuming an interrupted preparation"), "{words}");
    let shards = |name: &str| {
        let mut all = contents(&place.at(name));
        all.remove(Path::new("prepared.json"));
        all
    };
    assert!(shards("stopped") == shards("whole"));
}

#[test]
fn a_complete_preparation_is_only_renamed() {
    let place = Place::new(2, 100);
    place.succeed(&prepare("whole"));
    let whole = contents(&place.at("whole"));
    let partial = place.at(".late.partial");
    fs::rename(place.at("whole"), &partial).expect("renamed");
    fs::write(partial.join("lock"), "").expect("writable");
    fs::write(partial.join("train-00000.spool"), "used up").expect("writable");
    place.fails(&[&prepare("late")[..], &["--seed", "3"]].concat(), 1, &["seed: 3", "with seed: 0", "set force"]);
    let words = place.succeed(&prepare("late"));
    assert!(contents(&place.at("late")) == whole && !partial.exists(), "{words}");
}

#[test]
fn two_concurrent_preparations_leave_one_complete_directory() {
    let place = Place::new(3, 30);
    for round in 0..12 {
        let out = format!("data{round}");
        let seeds = ["1", "2"].map(|seed| {
            let arguments = [&prepare(&out)[..], &["--seed", seed]].concat();
            let mut command = place.command(&arguments);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("lambert starts")
        });
        let outputs = seeds.map(|child| child.wait_with_output().expect("a child"));
        let done = outputs.iter().filter(|output| output.status.success()).count();
        let words = outputs.each_ref().map(text).concat();
        assert!(done == 1 && !words.contains("panicked"), "{words}");
        place.succeed(&["prepare", "--check", &out]);
        let names = contents(&place.at(&out)).into_keys().map(|name| name.to_string_lossy().into_owned());
        let strange = |name: &String| !["prepared.json", "tokenizer/"].iter().any(|own| name.starts_with(own));
        let strange: Vec<String> = names.filter(|name| !name.ends_with(".safetensors")).filter(strange).collect();
        assert!(strange.is_empty() && !place.at(&format!(".{out}.partial")).exists(), "{strange:?}");
    }
}

#[test]
fn files_of_the_user_are_kept() {
    let place = Place::new(2, 60);
    let mine = |directory: &str| {
        fs::create_dir_all(place.at(directory)).expect("writable");
        fs::write(place.at(directory).join("thesis.txt"), "years of work").expect("writable");
    };
    let kept = |directory: &str| fs::read(place.at(directory).join("thesis.txt")).expect("kept") == b"years of work";
    for (out, holds) in [("mine", "mine"), ("new", ".new.partial")] {
        mine(holds);
        for more in [&[][..], &["--force"]] {
            place.fails(&[&prepare(out)[..], more].concat(), 1, &[holds, "other files"]);
            assert!(kept(holds));
        }
    }
    // A link to a disk with more space: the data is written there.
    fs::create_dir_all(place.at("large/disk")).expect("writable");
    std::os::unix::fs::symlink("large/disk", place.at("link")).expect("a link");
    for out in ["link", "link/"] {
        for seed in ["1", "2"] {
            place.succeed(&[&prepare(out)[..], &["--seed", seed, "--force"]].concat());
            assert!(place.at("link").is_symlink() && place.at("large/disk/prepared.json").exists());
            assert_eq!(fs::read_dir(place.at("large")).expect("a directory").count(), 1);
        }
    }
    std::os::unix::fs::symlink("nowhere/at/all", place.at("dangling")).expect("a link");
    place.fails(&prepare("dangling"), 1, &["dangling", "a broken symbolic link"]);
    place.fails(&prepare("inputs/000.txt"), 1, &["inputs/000.txt"]);
    place.fails(&prepare("."), 1, &["the name of a new directory"]);
    place.fails(&prepare("/proc/here"), 1, &["/proc/.here.partial"]);
}

#[test]
fn check_verifies_every_file_and_every_total() {
    let place = Place::new(2, 300);
    place.succeed(&prepare("whole"));
    let (whole, data) = (contents(&place.at("whole")), place.at("data"));
    let restore = || {
        let _ = fs::remove_dir_all(&data);
        fs::create_dir_all(data.join("tokenizer")).expect("writable");
        whole.iter().for_each(|(name, content)| fs::write(data.join(name), content).expect("writable"));
    };
    let check = ["prepare", "--check", "data"];
    restore();
    place.succeed(&check);
    let names: Vec<&PathBuf> = whole.keys().collect();
    assert!(names.len() >= 6, "{names:?}");
    for (name, content) in &whole {
        let file = name.to_string_lossy();
        let flipped = [0, 9, content.len() / 2, content.len() - 1].map(|at| {
            let mut bytes = content.clone();
            bytes[at] ^= 0x10;
            bytes
        });
        let cut = [0, 1, content.len() / 2, content.len() - 1].map(|length| content[..length].to_vec());
        for damaged in flipped.into_iter().chain(cut).chain([[content.as_slice(), b"\0"].concat()]) {
            restore();
            fs::write(data.join(name), damaged).expect("writable");
            if file != "prepared.json" {
                place.fails(&check, 1, &[&file, "data: damaged"]);
                place.fails(&["inspect", "data", "--check"], 1, &[]);
            }
            assert!(!text(&place.lambert(&check)).contains("panicked"));
        }
        restore();
        fs::remove_file(data.join(name)).expect("removed");
        place.fails(&check, 1, &[&file]);
        // Another file of the same kind in its place.
        restore();
        if let Some(other) = names.iter().find(|other| ***other != *name && other.extension() == name.extension()) {
            fs::write(data.join(name), &whole[*other]).expect("writable");
            place.fails(&check, 1, &[&file]);
        }
    }
    restore();
    fs::write(data.join("tokenizer/special_tokens_map.json"), "{}").expect("writable");
    place.fails(&check, 1, &["tokenizer/special_tokens_map.json", "move it away"]);

    // Every number and every sha256 that shards, tokenizer or other numbers can verify.
    let manifest: serde_json::Value = serde_json::from_slice(&whole[Path::new("prepared.json")]).expect("JSON");
    let counts = ["documents", "sentences", "tokens", "unknown_tokens"];
    let of = |place: &str| counts.map(|count| format!("{place}/{count}"));
    let sums = [of("/train"), of("/held_out"), of("/shards/0/counts")].concat();
    let others = [
        "/reading/documents",
        "/inputs/0/reading/documents",
        "/inputs/0/train_documents",
        "/vocabulary_size",
        "/shards/0/bytes",
    ];
    let texts = [
        "/vocabulary_sha256",
        "/shards/0/sha256",
        "/inputs/0/sha256",
        "/inputs/0/name",
        "/tokenizer/vocab.txt",
        "/tokenizer/tokenizer.json",
        "/tokenizer/tokenizer_config.json",
        "/shards/0/split",
        "/shards/0/file",
    ];
    for pointer in sums.iter().map(String::as_str).chain(others).chain(texts).chain(["/lowercase"]) {
        restore();
        let mut changed = manifest.clone();
        // With this key, every change would be found by the sha256 of the manifest.
        changed.as_object_mut().expect("an object").remove("sha256").expect("the manifest is sealed");
        let value = changed.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}"));
        *value = match &*value {
            serde_json::Value::Number(number) => (number.as_u64().expect("a count") + 1).into(),
            serde_json::Value::Bool(is) => (!is).into(),
            _ if pointer == "/shards/0/split" => "held_out".into(),
            text => text.as_str().expect("a text").replace(['0', '1', 'a'], "b").into(),
        };
        fs::write(data.join("prepared.json"), changed.to_string()).expect("writable");
        place.fails(&check, 1, &["data"]);
    }
}

#[test]
fn missing_or_unreadable_inputs_do_not_fail_the_check() {
    let place = Place::new(3, 60);
    place.succeed(&prepare("data"));
    let check = ["prepare", "--check", "data"];
    fs::remove_file(place.at("inputs/000.txt")).expect("removed");
    fs::create_dir(place.at("inputs/000.txt")).expect("a directory");
    fs::remove_file(place.at("inputs/001.txt")).expect("removed");
    // A link to itself cannot be followed.
    std::os::unix::fs::symlink("001.txt", place.at("inputs/001.txt")).expect("a link");
    let output = text(&place.lambert(&check));
    assert!(output.contains("cannot read inputs/001.txt") && output.contains("1 of 3 inputs unchanged"), "{output}");
    assert!(output.contains("data: undamaged"), "{output}");
    fs::remove_dir_all(place.at("inputs")).expect("removed");
    fs::write(place.at("inputs"), "no directory").expect("writable");
    let output = place.succeed(&check);
    assert_eq!(output.matches("not found").count(), 3, "{output}");
}
