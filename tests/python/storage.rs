//! Data and checkpoints in a bucket: the command line with a local server that speaks the S3 and Google Storage protocols.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::labelled::{KINDS, LabelledFiles};
use crate::common::{Workshop, metrics, text};
use crate::s3::Server;

/// A server with the bucket `pod`, and prepared data beside it.
struct Site {
    server: Server,
    workshop: Workshop,
}

impl Site {
    fn new() -> Site {
        let site = Site { server: Server::start(), workshop: Workshop::new() };
        site.server.create_bucket("pod");
        site
    }

    /// Returns a `lambert` command of `machine`, which has a cache directory of its own.
    fn command(&self, machine: &str, arguments: &[&str]) -> Command {
        let caches = self.workshop.path(machine);
        std::fs::create_dir_all(caches.join("lambert")).unwrap();
        // Plugins are searched for in the cache directory too.
        let installed = user_cache().join("lambert/plugins");
        if installed.exists() && !caches.join("lambert/plugins").exists() {
            std::os::unix::fs::symlink(installed, caches.join("lambert/plugins")).unwrap();
        }
        let mut command = self.workshop.command(arguments);
        command.envs(self.server.environment()).env("XDG_CACHE_HOME", caches);
        command
    }

    fn lambert(&self, machine: &str, arguments: &[&str]) -> Output {
        self.command(machine, arguments).output().expect("lambert starts")
    }

    fn succeed(&self, machine: &str, arguments: &[&str]) -> String {
        let output = self.lambert(machine, arguments);
        assert!(output.status.success(), "lambert {arguments:?}\n{}", text(&output));
        text(&output)
    }

    /// Runs a command that must fail; returns its output.
    fn fail(&self, machine: &str, arguments: &[&str]) -> String {
        let output = self.lambert(machine, arguments);
        assert_eq!(output.status.code(), Some(1), "lambert {arguments:?}\n{}", text(&output));
        text(&output)
    }

    fn prepare(&self, machine: &str, address: &str, more: &[&str]) -> Vec<String> {
        let line = ["prepare", "text.txt", "--tokenizer", "tokenizer", "--held-out", "0.2", "--out", address];
        line.iter().chain(more).map(|word| (*word).to_owned()).chain(std::iter::once(machine.to_owned())).collect()
    }

    /// Runs `lambert prepare` to `address`.
    fn prepared(&self, machine: &str, address: &str, more: &[&str]) -> String {
        let mut line = self.prepare(machine, address, more);
        let machine = line.pop().expect("it is the last word");
        self.succeed(&machine, &line.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// Returns the endpoint of a server that answers every request with `status`.
fn answering(status: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("this machine has a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
    let answer = format!("{status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let _ = client.read(&mut [0; 4096]).and_then(|_| client.write_all(answer.as_bytes()));
        }
    });
    endpoint
}

fn user_cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from)
}

/// Returns the files below `directory` with their bytes, without hidden files.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    fn walk(root: &Path, directory: &Path, found: &mut Vec<(String, Vec<u8>)>) {
        for entry in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap()) {
            let name = entry.path().strip_prefix(root).unwrap().display().to_string();
            match entry.file_type().unwrap().is_dir() {
                _ if entry.file_name().to_str().unwrap().starts_with('.') => {}
                true => walk(root, &entry.path(), found),
                false => found.push((name, std::fs::read(entry.path()).unwrap())),
            }
        }
    }
    let mut found = Vec::new();
    walk(directory, directory, &mut found);
    found.sort();
    found
}

fn first_shard(site: &Site, prefix: &str) -> String {
    let keys = site.server.keys("pod", prefix);
    keys.into_iter().find(|key| key.contains("train") && !key.contains("json")).expect("a shard")
}

#[test]
fn parts_of_a_preparation_are_joined_through_the_bucket() {
    let site = Site::new();
    site.workshop.succeed(&["prepare", "text.txt", "--tokenizer", "tokenizer", "--held-out", "0.2", "--out", "whole"]);
    let address = "s3://pod/parts/wiki";
    let join_early = || {
        let line = site.prepare("a", address, &["--join"]);
        let (machine, line) = line.split_last().expect("a command");
        site.fail(machine, &line.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let words = join_early();
    assert!(words.contains("requires the parts of a preparation, got none"), "{words}");
    for (machine, part) in [("a", "1/3"), ("b", "2/3")] {
        site.prepared(machine, address, &["--part", part]);
    }
    let words = join_early();
    assert!(words.contains("3 complete parts, got 2 without 3/3"), "{words}");
    site.prepared("c", address, &["--part", "3/3"]);
    // Again, by a machine that has none of its files.
    site.prepared("d", address, &["--part", "3/3"]);
    let words = site.prepared("a", address, &["--join"]);
    assert!(words.contains("uploaded"), "{words}");
    assert_eq!(site.server.keys("pod", "parts/wiki.parts"), [""; 0]);
    site.succeed("e", &["inspect", address, "--examples", "1"]);
    for file in ["prepared.json", "train-00000.safetensors"] {
        let there = site.server.get(&format!("pod/parts/wiki/{file}"));
        assert!(there == std::fs::read(site.workshop.path("whole").join(file)).ok(), "{file}");
    }
}

#[test]
fn prepared_data_is_uploaded_downloaded_and_checked() {
    let site = Site::new();
    let output = site.prepared("maker", "s3://pod/corpora/wiki", &[]);
    assert!(output.contains("s3://pod/corpora/wiki: "), "{output}");
    let copies = |machine: &str| site.workshop.path(machine).join("lambert/buckets/s3/pod%2Fcorpora%2Fwiki");
    assert_eq!(site.server.keys("pod", "corpora/").len(), files(&copies("maker")).len());

    // Another machine downloads the same bytes, once.
    let inspected = site.succeed("reader", &["inspect", "s3://pod/corpora/wiki", "--check"]);
    assert!(inspected.contains("downloading"), "{inspected}");
    assert!(files(&copies("reader")) == files(&copies("maker")));
    let again = site.succeed("reader", &["inspect", "s3://pod/corpora/wiki", "--check"]);
    assert!(!again.contains("downloading"), "{again}");

    // A changed copy is detected, and can be downloaded again.
    let key = first_shard(&site, "corpora/wiki/");
    let lost = copies("reader").join(key.strip_prefix("corpora/wiki/").unwrap());
    let shard = std::fs::read(&lost).unwrap();
    let mut changed = shard.clone();
    *changed.last_mut().unwrap() ^= 1;
    std::fs::write(&lost, changed).unwrap();
    let output = site.fail("reader", &["inspect", "s3://pod/corpora/wiki", "--check"]);
    assert!(output.contains("is a copy of s3://pod/corpora/wiki; remove it to download it again"), "{output}");

    // A missing file is downloaded again, and no other.
    std::fs::remove_file(&lost).unwrap();
    let inspected = site.succeed("reader", &["inspect", "s3://pod/corpora/wiki", "--check"]);
    assert!(inspected.contains("downloading"), "{inspected}");
    assert!(files(&copies("reader")) == files(&copies("maker")));

    // A changed object is detected by its sha256, and no file of it stays.
    let mut changed = shard.clone();
    changed[shard.len() / 2] ^= 1;
    site.server.put(&format!("pod/{key}"), changed);
    let output = site.fail("third", &["inspect", "s3://pod/corpora/wiki"]);
    assert!(output.contains(&format!("s3://pod/{key} requires sha256 ")), "{output}");
    let left = files(&copies("third"));
    assert!(left.iter().all(|(name, _)| !key.ends_with(name) && name != "prepared.json"), "{left:?}");
    // The other files stay, and only the restored object is downloaded.
    site.server.put(&format!("pod/{key}"), shard);
    site.succeed("third", &["inspect", "s3://pod/corpora/wiki", "--check"]);
    assert!(files(&copies("third")) == files(&copies("maker")));

    // Equal data is not uploaded again; other data replaces nothing without --force.
    site.server.refuse_writes(1);
    site.prepared("maker", "s3://pod/corpora/wiki", &[]);
    assert_eq!(site.server.writes_to_refuse(), 1);
    site.server.refuse_writes(0);
    let other = ["--seed", "5"];
    let mut line = site.prepare("other", "s3://pod/corpora/wiki", &other);
    line.pop();
    let output = site.fail("other", &line.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(output.contains("s3://pod/corpora/wiki/prepared.json: requires the same data, or none"), "{output}");
    site.prepared("other", "s3://pod/corpora/wiki", &["--seed", "5", "--force"]);
    // An old copy is updated.
    site.succeed("reader", &["inspect", "s3://pod/corpora/wiki", "--check"]);
    assert!(files(&copies("reader")) == files(&copies("other")));
}

#[test]
fn interrupted_downloads_resume_and_names_are_unchanged() {
    let site = Site::new();
    // Characters with a meaning in a URL or a shell.
    let prefix = "a #1+{~50%25}[x]*?/wiki";
    let address = format!("s3://pod/{prefix}");
    site.prepared("maker", &address, &[]);
    assert!(
        site.server.keys("pod", "").contains(&format!("{prefix}/prepared.json")),
        "{:?}",
        site.server.keys("pod", "")
    );
    let copy = |machine: &str| {
        let copies = std::fs::read_dir(site.workshop.path(machine).join("lambert/buckets/s3")).unwrap();
        let mut copies = copies.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
        files(&copies.next().expect("a copy"))
    };

    site.server.cut_reads(3, 1024);
    site.succeed("reader", &["inspect", &address, "--check"]);
    assert_eq!(site.server.reads_to_cut(), 0);
    assert!(copy("reader") == copy("maker"));

    // A download that never succeeds leaves no file that looks complete, and does not hinder a later one.
    site.server.cut_reads(usize::MAX, 1024);
    let output = site.fail("patient", &["inspect", &address]);
    assert!(output.contains(&format!("cannot read {address}/")) && output.contains("try again later"), "{output}");
    assert!(copy("patient").iter().all(|file| copy("maker").contains(file) && file.0 != "prepared.json"));
    site.server.cut_reads(0, 0);
    site.succeed("patient", &["inspect", &address, "--check"]);
    assert!(copy("patient") == copy("maker"));
}

#[test]
fn a_download_resumes_as_long_as_it_makes_progress() {
    let site = Site::new();
    let text = std::fs::read_to_string(site.workshop.path("text.txt")).unwrap();
    std::fs::write(site.workshop.path("text.txt"), text.repeat(5_400_000 / text.len())).unwrap();
    site.prepared("maker", "s3://pod/wiki", &[]);
    let key = first_shard(&site, "wiki/");
    // More interruptions than the number of retries of a request.
    let (breaks, bytes) = (12, 100_000);
    let size = site.server.get(&format!("pod/{key}")).unwrap().len();
    assert!(size > (breaks + 4) * bytes, "{size} bytes");
    site.server.cut_reads(breaks, bytes);
    site.succeed("reader", &["inspect", "s3://pod/wiki", "--check"]);
    assert_eq!(site.server.reads_to_cut(), 0);
}

#[test]
fn missing_objects_and_invalid_names_are_reported() {
    let site = Site::new();
    site.prepared("maker", "s3://pod/wiki", &[]);
    let key = first_shard(&site, "wiki/");
    site.server.delete(&format!("pod/{key}"));
    let output = site.fail("reader", &["inspect", "s3://pod/wiki"]);
    assert!(
        output.contains(&format!("s3://pod/{key} requires ")) && output.contains("found no such object"),
        "{output}"
    );

    // A manifest cannot create files outside its directory.
    let shard = key.strip_prefix("wiki/").unwrap();
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&site.server.get("pod/wiki/prepared.json").unwrap()).unwrap();
    manifest.as_object_mut().unwrap().remove("sha256").unwrap();
    let manifest = manifest.to_string();
    for outside in ["../../../../outside", "/outside", "a//outside"] {
        site.server.put("pod/wiki/prepared.json", manifest.replace(shard, outside).into_bytes());
        let output = site.fail("reader", &["inspect", "s3://pod/wiki"]);
        assert!(output.contains("requires a name whose parts are separated by single slashes"), "{output}");
    }
}

/// Writes a run file with its data in the bucket, and a checkpoint in the bucket after every step.
fn run_file(site: &Site, name: &str, scheme: &str) {
    site.workshop.run_file(name, &format!("{scheme}://pod/runs/small"), |text| {
        text.replace("path = \"data\"", &format!("path = \"{scheme}://pod/wiki\""))
            .replace("every = 0\nkeep = 0", "every = 1\nkeep = 2")
    });
}

fn tensors_of(site: &Site, step: &str) -> [Option<Vec<u8>>; 2] {
    ["model.safetensors", "optimizer.safetensors"].map(|file| site.server.get(&format!("pod/runs/small/{step}/{file}")))
}

#[test]
fn a_run_resumes_on_another_machine_from_the_bucket() {
    let site = Site::new();
    site.prepared("one", "s3://pod/wiki", &[]);
    site.workshop.run_file("straight.toml", "straight", |text| text);
    site.succeed("one", &["pretrain", "straight.toml", "--platform", "cpu"]);
    let straight = |name: &str| std::fs::read(site.workshop.path("straight/step-00000010").join(name)).ok();
    let expected = ["model.safetensors", "optimizer.safetensors"].map(straight);

    // The first machine is lost during the run.
    run_file(&site, "run.toml", "s3");
    let mut child = site.command("one", &["pretrain", "run.toml", "--platform", "cpu"]);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begin = Instant::now();
    while site.server.get("pod/runs/small/step-00000003/state.json").is_none() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended too early");
        assert!(begin.elapsed() < Duration::from_secs(300), "the run did not get that far");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();

    // Its run is not restarted by mistake; another machine resumes it with the same losses.
    let output = site.fail("two", &["pretrain", "run.toml", "--platform", "cpu"]);
    assert!(output.contains("s3://pod/runs/small already holds a run"), "{output}");
    let output = site.succeed("two", &["pretrain", "run.toml", "--platform", "cpu", "--resume"]);
    assert!(output.contains("downloading step"), "{output}");
    assert!(tensors_of(&site, "step-00000010") == expected, "weights or moments differ");
    let keys = site.server.keys("pod", "runs/small/");
    let mut steps: Vec<&str> =
        keys.iter().filter_map(|key| key.split('/').nth(2)).filter(|n| n.contains("step")).collect();
    steps.dedup();
    assert_eq!(steps, ["step-00000009", "step-00000010"]);
    let log = site.workshop.path("log");
    std::fs::create_dir(&log).unwrap();
    std::fs::write(log.join("metrics.jsonl"), site.server.get("pod/runs/small/metrics.jsonl").unwrap()).unwrap();
    assert!(metrics(&log) == metrics(&site.workshop.path("straight")), "the metrics are incomplete");

    // Verbs that read models read them from the bucket.
    let evaluated =
        site.succeed("three", &["evaluate", "s3://pod/runs/small", "--data", "s3://pod/wiki", "--platform", "cpu"]);
    assert!(evaluated.contains("(step 10)"), "{evaluated}");
    site.succeed("three", &["export", "s3://pod/runs/small/step-00000009", "--out", "exported"]);
    assert!(site.workshop.path("exported/model.safetensors").exists());

    // A damaged checkpoint is skipped and kept; resuming from the one before gives the same weights.
    let key = "pod/runs/small/step-00000010/optimizer.safetensors";
    let mut damaged = site.server.get(key).unwrap();
    let at = damaged.len() - 9;
    damaged[at] ^= 16;
    site.server.put(key, damaged.clone());
    let output = site.succeed("four", &["pretrain", "run.toml", "--platform", "cpu", "--resume"]);
    assert!(
        output.contains("skipped: s3://pod/runs/small/step-00000010/optimizer.safetensors requires sha256"),
        "{output}"
    );
    assert!(tensors_of(&site, "step-00000010") == expected, "weights or moments differ");
    assert!(tensors_of(&site, "step-00000010.replaced-1")[1] == Some(damaged));

    // A checkpoint without its state.json is incomplete.
    site.server.delete("pod/runs/small/step-00000010/state.json");
    let output = site.succeed("five", &["export", "s3://pod/runs/small", "--out", "before"]);
    assert!(output.contains("(step 9, "), "{output}");
}

#[test]
fn the_best_checkpoint_of_a_fine_tuning_run_is_downloaded() {
    let (site, files) = (Site::new(), LabelledFiles::new());
    let run = files.run(KINDS[0], "run").replace(&files.path("run").display().to_string(), "s3://pod/runs/small");
    std::fs::write(site.workshop.path("run.toml"), run).unwrap();
    let early =
        ["checkpoint.keep=1", "checkpoint.every=0", "evaluate.every=2", "evaluate.patience=2", "train.epochs=20"];
    let early = early.iter().flat_map(|set| ["--set", set]);
    let fine_tune: Vec<&str> = ["finetune", "run.toml", "--platform", "cpu"].into_iter().chain(early).collect();
    assert!(site.succeed("one", &fine_tune).contains("stopped early"));
    let keys = site.server.keys("pod", "runs/small/step-");
    let mut steps: Vec<&str> = keys.iter().filter_map(|key| key.split('/').nth(2)).collect();
    steps.dedup();
    let [best, newest] = steps[..] else { panic!("requires the best and the newest checkpoint, got {steps:?}") };

    let said = site.succeed("two", &["export", "s3://pod/runs/small", "--out", "exported"]);
    assert!(said.contains(best) && said.contains("has the best accuracy") && !said.contains(newest), "{said}");

    // Another run starts from it: its head is kept, because the labels are the same.
    let again =
        ["import=s3://pod/runs/small", "checkpoint.directory=again", "train.epochs=0.25", "train.warmup={steps=0}"];
    let again = again.iter().flat_map(|set| ["--set", set]);
    let fine_tune: Vec<&str> = ["finetune", "run.toml", "--platform", "cpu"].into_iter().chain(again).collect();
    let said = site.succeed("three", &fine_tune);
    assert!(said.contains("downloading step") && said.contains("has the best accuracy"), "{said}");
    let step: u64 = best.trim_start_matches("step-").parse().unwrap();
    let log = site.workshop.path("log");
    std::fs::create_dir(&log).unwrap();
    std::fs::write(log.join("metrics.jsonl"), site.server.get("pod/runs/small/metrics.jsonl").unwrap()).unwrap();
    let accuracy = |run: &Path, step: u64| metrics(run)[&("evaluation".to_owned(), step)]["accuracy"].as_f64();
    assert_eq!(accuracy(&site.workshop.path("again"), 0), accuracy(&log, step));
}

#[test]
fn a_run_is_stored_in_google_cloud_storage() {
    let site = Site::new();
    site.prepared("one", "gs://pod/wiki", &[]);
    run_file(&site, "run.toml", "gs");
    site.succeed("two", &["pretrain", "run.toml", "--platform", "cpu"]);
    assert!(site.workshop.path("two/lambert/buckets/gs/pod%2Fruns%2Fsmall/step-00000010").exists());
    let done = site.succeed("three", &["pretrain", "run.toml", "--platform", "cpu", "--resume"]);
    assert!(done.contains("small is complete after 10 steps"), "{done}");
}

#[test]
fn requests_to_a_busy_server_are_retried_and_failed_uploads_are_sent_later() {
    let site = Site::new();
    // Nine retries outlast seven rejected requests in a row.
    site.server.refuse_writes(7);
    site.prepared("one", "s3://pod/wiki", &[]);
    assert_eq!(site.server.writes_to_refuse(), 0);

    site.workshop.run_file("run.toml", "s3://pod/runs/small", |text| {
        let (first, _) = text.rsplit_once("[[phase]]").expect("two phases");
        first.replace("[checkpoint]", "[checkpoint]\ncache = \"scratch/small\"")
    });
    site.server.refuse_writes(usize::MAX);
    let output = site.fail("one", &["pretrain", "run.toml", "--platform", "cpu"]);
    assert!(
        output
            .contains("the newest checkpoint was not uploaded to s3://pod/runs/small; it is complete on this machine"),
        "{output}"
    );
    assert!(output.contains("cannot write s3://pod/runs/small/") && output.contains("503"), "{output}");
    assert!(output.contains("to resume: lambert pretrain run.toml --resume"), "{output}");
    let saved = site.workshop.path("scratch/small/step-00000006");
    assert!(saved.join("state.json").exists());
    assert!(site.server.keys("pod", "runs/").is_empty());

    site.server.refuse_writes(0);
    let output = site.succeed("one", &["pretrain", "run.toml", "--platform", "cpu", "--resume"]);
    assert!(output.contains("uploaded s3://pod/runs/small/step-00000006"), "{output}");
    let uploaded = site.server.get("pod/runs/small/step-00000006/model.safetensors");
    assert!(uploaded == std::fs::read(saved.join("model.safetensors")).ok());
}

#[test]
fn damaged_local_checkpoints_are_not_uploaded() {
    let site = Site::new();
    site.prepared("one", "s3://pod/wiki", &[]);
    run_file(&site, "run.toml", "s3");
    site.succeed("one", &["pretrain", "run.toml", "--platform", "cpu"]);
    let saved = site.workshop.path("one/lambert/buckets/s3/pod%2Fruns%2Fsmall/step-00000010/optimizer.safetensors");
    let before = site.server.keys("pod", "runs/small/");

    // The bucket loses its newest checkpoint, and the local one is damaged: the older one in the bucket must stay.
    for key in before.iter().filter(|key| key.contains("step-00000010")) {
        site.server.delete(&format!("pod/{key}"));
    }
    let mut damaged = std::fs::read(&saved).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(&saved, damaged).unwrap();
    let output = site.succeed("one", &["pretrain", "run.toml", "--platform", "cpu", "--resume"]);
    assert!(output.contains("step-00000010 was not uploaded: it is damaged"), "{output}");
    // The step was trained and saved again.
    assert_eq!(site.server.keys("pod", "runs/small/").len(), before.len());
    let uploaded = site.server.get("pod/runs/small/step-00000010/optimizer.safetensors");
    assert!(uploaded == std::fs::read(&saved).ok(), "the saved and the uploaded checkpoint differ");
}

/// Writes a run file whose second phase, from step 7 on, has a learning rate with which training diverges.
fn diverging_run_file(site: &Site, name: &str, directory: &str) {
    site.workshop.run_file(name, directory, |text| {
        let text = text.replace("every = 0\nkeep = 0", "every = 2\nkeep = 1").replace("steps = 4\n", "steps = 14\n");
        text.replace("learning_rate = 0.01", "learning_rate = 10.0")
    });
}

/// Returns the names of the checkpoints below a prefix of the bucket, also of those that were set aside.
fn checkpoints(site: &Site, prefix: &str) -> Vec<String> {
    let keys = site.server.keys("pod", prefix);
    let mut names: Vec<String> = keys
        .iter()
        .filter_map(|key| key.strip_prefix(prefix)?.split_once('/'))
        .map(|(name, _)| name.to_owned())
        .collect();
    names.dedup();
    names
}

#[test]
fn a_diverged_run_in_a_bucket_resumes_from_its_good_checkpoint_on_every_machine() {
    let site = Site::new();
    let lower = ["--set", "phase.2.learning_rate=0.01"];
    diverging_run_file(&site, "good.toml", "good");
    site.succeed("one", &[&["pretrain", "good.toml", "--platform", "cpu"], &lower[..]].concat());
    let good = std::fs::read(site.workshop.path("good/step-00000020/model.safetensors")).unwrap();

    diverging_run_file(&site, "bad.toml", "s3://pod/runs/bad");
    let output = site.lambert("one", &["pretrain", "bad.toml", "--platform", "cpu"]);
    let words = text(&output);
    assert_eq!(output.status.code(), Some(4), "{words}");
    let [left, aside] = &checkpoints(&site, "runs/bad/")[..] else { panic!("{words}") };
    assert!(left == "step-00000006" && aside.ends_with(".diverged-1"), "{left} {aside}");
    assert!(words.contains(&format!("was renamed to s3://pod/runs/bad/{aside}")), "{words}");
    let copy = |machine: &str| site.workshop.path(machine).join("lambert/buckets/s3/pod%2Fruns%2Fbad");
    assert!(copy("one").join(left).exists() && copy("one").join(aside).exists());
    let metrics = site.server.get("pod/runs/bad/metrics.jsonl").unwrap();
    assert_eq!(metrics, std::fs::read(copy("one").join("metrics.jsonl")).unwrap(), "the last lines were not uploaded");
    assert!(String::from_utf8_lossy(&metrics).contains("\"kind\":\"divergence\""));

    // A machine that trained until then, and does not know that another one went on and diverged.
    let plain = aside.split_once('.').unwrap().0;
    std::fs::rename(copy("one").join(aside), copy("one").join(plain)).unwrap();
    let resume = [&["pretrain", "bad.toml", "--platform", "cpu", "--resume", "--accept-changes"], &lower[..]].concat();
    let words = site.succeed("one", &resume);
    assert!(
        words.contains(&format!("{plain} was renamed to ")) && words.contains("as in s3://pod/runs/bad: training had"),
        "{words}"
    );
    assert!(site.server.get("pod/runs/bad/step-00000020/model.safetensors").as_ref() == Some(&good));

    // A machine without a copy resumes a run that went back as often as allowed.
    diverging_run_file(&site, "back.toml", "s3://pod/runs/back");
    let twice = ["--set", "divergence.action=\"roll_back\"", "--set", "divergence.max_roll_backs=2"];
    let output = site.lambert("one", &[&["pretrain", "back.toml", "--platform", "cpu"], &twice[..]].concat());
    let words = text(&output);
    assert_eq!(output.status.code(), Some(4), "{words}");
    assert_eq!(words.matches("the run goes back to step 6 and leaves out").count(), 2, "{words}");
    let names = checkpoints(&site, "runs/back/");
    assert_eq!(names.iter().filter(|name| !name.contains("diverged")).collect::<Vec<_>>(), ["step-00000006"]);
    let resume = [&["pretrain", "back.toml", "--platform", "cpu", "--resume", "--accept-changes"], &lower[..]].concat();
    site.succeed("two", &resume);
    assert!(site.server.get("pod/runs/back/step-00000020/model.safetensors").as_ref() == Some(&good));
}

#[test]
fn errors_of_a_bucket_say_what_to_do_next() {
    let site = Site::new();
    site.workshop.run_file("run.toml", "runs", |text| text);
    let expect = |arguments: &[&str], parts: &[&str]| {
        let output = site.fail("one", arguments);
        parts.iter().for_each(|part| assert!(output.contains(part), "{part:?} is not in\n{output}"));
    };
    let pretrain = |set: &'static str| ["pretrain", "run.toml", "--platform", "cpu", "--set", set];
    expect(
        &["inspect", "s3://absent/wiki"],
        &["s3://absent/wiki/prepared.json", "the bucket does not exist", "create it"],
    );
    expect(&["inspect", "s3://pod/nothing"], &["s3://pod/nothing: requires an object prepared.json, got none"]);
    expect(
        &["evaluate", "s3://pod/nothing", "--data", "data"],
        &["s3://pod/nothing requires a complete checkpoint", "step-…"],
    );
    expect(
        &["export", "s3://pod/step-00000007", "--out", "x"],
        &["s3://pod/step-00000007/state.json is damaged", "does not exist"],
    );
    expect(&pretrain("checkpoint.directory=s3://absent/run"), &["[checkpoint] directory", "the bucket does not exist"]);
    expect(&pretrain("data.path=hdfs://pod/wiki"), &["hdfs://pod/wiki", "s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"]);
    expect(&pretrain("data.cache=x"), &["[data] cache", "data is a local directory"]);
    // A directory with other files does not become a copy.
    site.prepared("one", "s3://pod/wiki", &[]);
    let mine =
        ["pretrain", "run.toml", "--platform", "cpu", "--set", "data.path=s3://pod/wiki", "--set", "data.cache=data"];
    expect(&mine, &["data is not a copy of s3://pod/wiki", "choose another cache directory"]);

    let endpoints = [
        (
            "http://10.255.255.1:9",
            ["the endpoint is unencrypted (http://) and on another machine", "AWS_ALLOW_HTTP=true"],
        ),
        ("http://127.0.0.1:9", ["Connection refused", "correct AWS_REGION and AWS_ENDPOINT_URL, or try again later"]),
        (&answering("HTTP/1.1 301 Moved Permanently"), ["redirect", "correct AWS_REGION and AWS_ENDPOINT_URL"]),
        (&answering("HTTP/1.1 400 Bad Request"), ["400 Bad Request", "correct AWS_REGION and AWS_ENDPOINT_URL"]),
        (&answering("HTTP/1.1 403 Forbidden"), ["access is denied", "request access to it"]),
        (&answering("HTTP/1.1 503 Slow Down"), ["503", "try again later"]),
    ];
    std::thread::scope(|scope| {
        for (endpoint, parts) in endpoints {
            let mut command = site.command("one", &["inspect", "s3://pod/wiki"]);
            command.env("AWS_ENDPOINT_URL", endpoint);
            scope.spawn(move || {
                let begin = Instant::now();
                let output = text(&command.output().unwrap());
                assert!(parts.iter().all(|part| output.contains(part)), "{parts:?} are not in\n{output}");
                let asked_again = ["Connection refused", "503"].contains(&parts[0]);
                assert_eq!(begin.elapsed() > Duration::from_secs(6), asked_again, "{output}");
            });
        }
    });

    let mut command = site.command("one", &["inspect", "gs://pod/wiki"]);
    command.env_remove("STORAGE_EMULATOR_HOST").env("GOOGLE_APPLICATION_CREDENTIALS", "nowhere.json");
    let output = text(&command.output().unwrap());
    assert!(output.contains("gs://pod/wiki") && output.contains("GOOGLE_APPLICATION_CREDENTIALS"), "{output}");
    let mut command = site.command("one", &["inspect", "s3://pod/wiki"]);
    // A metadata server that does not answer, as outside a cloud.
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    command.env("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9");
    let output = text(&command.output().unwrap());
    assert!(output.contains("no credentials were found") && output.contains("AWS_ACCESS_KEY_ID"), "{output}");
}
