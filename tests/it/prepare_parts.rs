//! Preparations in parts (`--part`, `--join`): the same bytes as one machine makes, whatever the number of parts, their order, and
//! interruptions; lost and damaged parts are named.
#![cfg(unix)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::preparation::{Place, contents, documents, prepare};
use crate::common::text;

/// Near duplicates within and across files, exact duplicates, and a source of weight 2.5.
fn place() -> Place {
    let place = Place::new(12, 60);
    for (file, other) in [(3, 1), (7, 1), (9, 5)] {
        let mut copy = documents(60, other);
        // The first document is a near duplicate, and the others are exact ones.
        copy.replace_range(..1, "A");
        fs::write(place.at(&format!("inputs/{file:03}.txt")), copy).expect("writable");
    }
    fs::create_dir(place.at("books")).expect("writable");
    fs::write(place.at("books/a.txt"), documents(80, 50)).expect("writable");
    place
}

/// The arguments of a preparation with sources, weights and the removal of duplicates.
fn weighted<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let options = ["--remove-duplicates", "near", "--source", "books:2.5=books"];
    [&prepare(out)[..], &options, more].concat()
}

#[test]
fn parts_joined_are_the_data_of_one_machine() {
    let place = place();
    place.succeed(&weighted("whole", &[]));
    let whole = contents(&place.at("whole"));
    let manifest = String::from_utf8_lossy(&whole[Path::new("prepared.json")]).into_owned();
    assert!(manifest.contains("exact_duplicates") && manifest.contains("near_duplicates"), "{manifest}");
    // More parts than there are files leave some without text.
    for (of, out) in [(1, "one"), (2, "two"), (3, "three"), (17, "many")] {
        let numbers: Vec<String> = (1..=of).rev().map(|number| format!("{number}/{of}")).collect();
        for number in &numbers {
            let words = place.succeed(&weighted(out, &["--part", number]));
            assert!(words.contains(&format!("{out}: part {number}, ")), "{words}");
        }
        let words = place.succeed(&weighted(out, &["--part", &numbers[0]]));
        assert!(words.contains(&format!("{out}: part {} is up to date", numbers[0])), "{words}");
        place.succeed(&weighted(out, &["--join"]));
        assert!(contents(&place.at(out)) == whole, "{of} parts");
        assert!(!place.at(&format!("{out}.parts")).exists() && !place.at(&format!(".{out}.partial")).exists());
        let words = place.succeed(&weighted(out, &["--join"]));
        assert!(words.contains("up to date"), "{words}");
        place.succeed(&weighted(out, &["--part", &numbers[0]]));
        assert!(!place.at(&format!("{out}.parts")).exists(), "data that is complete needs no parts");
    }
}

#[test]
fn lost_parts_are_named_and_made_again_alone() {
    let place = place();
    place.succeed(&weighted("whole", &[]));
    let join = weighted("data", &["--join"]);
    place.fails(&join, 1, &["data.parts: requires the parts of a preparation, got none"]);
    for part in ["1/4", "2/4", "4/4"] {
        place.succeed(&weighted("data", &["--part", part]));
    }
    place.fails(&join, 1, &["data.parts: requires 4 complete parts, got 3 without 3/4; prepare these parts"]);
    place.succeed(&weighted("data", &["--part", "3/4"]));
    // A part without one of its files, and one whose journal ends early, are incomplete.
    fs::remove_file(place.at("data.parts/2-of-4/train-00000.spool")).expect("a spool");
    let journal = place.at("data.parts/4-of-4/journal.jsonl");
    let lines = fs::read(&journal).expect("a journal");
    fs::write(&journal, &lines[..lines.len() - 20]).expect("writable");
    place.fails(&join, 1, &["requires 4 complete parts, got 2 without 2/4, 4/4"]);
    for part in ["2/4", "4/4"] {
        let words = place.succeed(&weighted("data", &["--part", part]));
        assert!(words.contains(&format!("part {part}, ")), "{words}");
    }
    // Damage of the same size is found: when the parts are joined, or when the part is made again.
    // The part that was made again wrote its blocks to a new file.
    let spool = place.at("data.parts/2-of-4/train-00001.spool");
    let mut bytes = fs::read(&spool).expect("a spool");
    // The last token of every block: a block that has nothing but duplicates is not read.
    let journal = fs::read_to_string(place.at("data.parts/2-of-4/journal.jsonl")).expect("a journal");
    for line in journal.lines() {
        let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let block = &record["tokenized"][1]["train"];
        if block["file"] == 1 {
            let [offset, length] = ["offset", "bytes"].map(|key| block[key].as_u64().expect("a number") as usize);
            bytes[offset + length - 1] ^= 1;
        }
    }
    fs::write(&spool, bytes).expect("writable");
    place.fails(&join, 1, &["data.parts/2-of-4/train-00001.spool: requires the tokens that were written"]);
    let words = place.succeed(&weighted("data", &["--part", "2/4"]));
    assert!(words.contains("part 2/4, "), "{words}");
    place.succeed(&join);
    assert!(contents(&place.at("data")) == contents(&place.at("whole")));
}

#[test]
fn parts_of_other_preparations_are_refused() {
    let place = place();
    for part in ["1/2", "2/2"] {
        place.succeed(&weighted("data", &["--part", part]));
    }
    let other_seed = weighted("data", &["--join", "--seed", "4"]);
    place.fails(&other_seed, 1, &["data.parts/1-of-2", "seed: 4", "an interrupted preparation with seed: 0"]);
    place.fails(&weighted("data", &["--part", "1/2", "--seed", "4"]), 1, &["seed: 4", "set force"]);
    place.succeed(&weighted("data", &["--part", "1/3"]));
    place.fails(&weighted("data", &["--join"]), 1, &["parts of one preparation, got of 2 parts and of 3 parts"]);
    for part in ["0/2", "3/2", "1", "1/2/3", "a/b"] {
        place.fails(&weighted("data", &["--part", part]), 2, &["requires NUMBER/PARTS with a number from 1"]);
    }
    // Complete data keeps the parts of other data.
    place.succeed(&weighted("kept", &[]));
    place.succeed(&weighted("kept", &["--part", "1/1", "--seed", "4", "--force"]));
    place.succeed(&weighted("kept", &["--join"]));
    assert!(place.at("kept.parts/1-of-1").exists());
    place.succeed(&weighted("kept", &["--join", "--seed", "4", "--force"]));
    assert!(!place.at("kept.parts").exists());
    place.fails(&weighted("data", &["--part", "1/2", "--join"]), 2, &["cannot be used with"]);
}

#[test]
fn killed_parts_and_a_killed_join_resume() {
    let place = Place::new(40, 200);
    place.succeed(&prepare("whole"));
    let whole = contents(&place.at("whole"));
    let run = |more: &[&'static str]| [&prepare("data")[..], more].concat();
    let lines = |path: &str| fs::read(place.at(path)).unwrap_or_default().iter().filter(|&&byte| byte == b'\n').count();
    let mut kills = 0;
    for (part, journal) in [("1/2", "data.parts/1-of-2/journal.jsonl"), ("2/2", "data.parts/2-of-2/journal.jsonl")] {
        for at in [2, 25, 50] {
            let mut child =
                place.command(&run(&["--part", part])).stderr(Stdio::null()).spawn().expect("lambert starts");
            while lines(journal) < at && child.try_wait().expect("a child").is_none() {
                std::thread::sleep(Duration::from_micros(200));
            }
            child.kill().expect("a child can be killed");
            kills += !child.wait().expect("a child").success() as u32;
        }
        place.succeed(&run(&["--part", part]));
    }
    assert!(kills >= 3, "killed {kills} times");
    // While shards are written.
    let mut kills = 0;
    for at in [3, 8] {
        let mut child = place.command(&run(&["--join"])).stderr(Stdio::null()).spawn().expect("lambert starts");
        while lines(".data.partial/journal.jsonl") < at && child.try_wait().expect("a child").is_none() {
            std::thread::sleep(Duration::from_micros(200));
        }
        child.kill().expect("a child can be killed");
        kills += !child.wait().expect("a child").success() as u32;
    }
    assert!(kills >= 1, "killed {kills} times");
    place.fails(&prepare("data"), 1, &["got an interrupted join of 2 parts; repeat the command that began it"]);
    place.succeed(&run(&["--join"]));
    assert!(contents(&place.at("data")) == whole);
}

/// Runs a shell with `lambert` on the PATH.
#[track_caller]
fn shell(place: &Place, arguments: &[&str], environment: &[(&str, &str)]) {
    let program = Path::new(env!("CARGO_BIN_EXE_lambert")).parent().expect("a directory").display().to_string();
    let path = format!("{program}:{}", std::env::var("PATH").expect("a PATH"));
    let mut command = Command::new(arguments[0]);
    command.args(&arguments[1..]).envs(environment.iter().copied()).env("PATH", path).current_dir(place.0.path());
    let output = command.output().expect("a shell starts");
    assert!(output.status.success(), "{arguments:?} {environment:?}\n{}", text(&output));
}

#[test]
fn the_jobs_of_slurm_and_kubernetes_prepare_parts_and_join_them() {
    let place = Place::new(6, 40);
    let arguments = |out| ["inputs", "--tokenizer", "tokenizer", "--out", out];
    place.succeed(&[&["prepare"], &arguments("whole")[..]].concat());
    let whole = contents(&place.at("whole"));

    let launch = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/launch");
    let script = launch.join("prepare.sbatch").display().to_string();
    let slurm = [&["bash", &script], &arguments("slurm")[..]].concat();
    for id in ["1", "2", "3"] {
        // The third part is submitted alone.
        let (count, parts) = if id == "3" { ("1", "3") } else { ("3", "") };
        let parts = [("SLURM_ARRAY_TASK_ID", id), ("SLURM_ARRAY_TASK_COUNT", count), ("PARTS", parts)];
        shell(&place, &slurm, &parts);
    }
    shell(&place, &slurm, &[]);
    assert!(contents(&place.at("slurm")) == whole);

    let jobs = fs::read_to_string(launch.join("prepare-job.yaml")).expect("a manifest");
    let commands: Vec<&str> = jobs.lines().filter_map(|line| line.trim().strip_prefix("- exec lambert ")).collect();
    let [part, join] = commands[..] else { panic!("{commands:?}") };
    let environment = [("TEXT", "inputs"), ("TOKENIZER", "tokenizer"), ("OUT", "kubernetes"), ("PARTS", "2")];
    for (index, arguments) in [("0", part), ("1", part), ("", join)] {
        let environment = [&environment[..], &[("JOB_COMPLETION_INDEX", index)]].concat();
        shell(&place, &["sh", "-c", &format!("exec lambert {arguments}")], &environment);
    }
    assert!(contents(&place.at("kubernetes")) == whole);
}
