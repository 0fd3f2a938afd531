//! Data and checkpoints in a bucket: the program itself against a server that speaks S3, on a port of this machine.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::s3::Server;
use crate::common::{Workshop, metrics, text};

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

    /// `lambert` on a machine that has no copies but those it has made itself.
    fn command(&self, machine: &str, arguments: &[&str]) -> Command {
        let caches = self.workshop.path(machine);
        std::fs::create_dir_all(caches.join("lambert")).unwrap();
        // Plugins are looked for where copies lie.
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

    /// What it says when it fails.
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

/// The endpoint of a server that answers everything with `status`.
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

/// Files below `directory` with their bytes, hidden ones left out.
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
fn prepared_data_goes_to_a_bucket_and_comes_back_checked() {
    let site = Site::new();
    let said = site.prepared("maker", "s3://pod/corpora/wiki", &[]);
    assert!(said.contains("s3://pod/corpora/wiki: "), "{said}");
    let copies = |machine: &str| site.workshop.path(machine).join("lambert/buckets/s3/pod%2Fcorpora%2Fwiki");
    assert_eq!(site.server.keys("pod", "corpora/").len(), files(&copies("maker")).len());

    // Another machine gets the same bytes, once.
    let inspected = site.succeed("reader", &["inspect", "s3://pod/corpora/wiki", "--check"]);
    assert!(inspected.contains("fetching"), "{inspected}");
    assert!(files(&copies("reader")) == files(&copies("maker")));
    let again = site.succeed("reader", &["inspect", "s3://pod/corpora/wiki", "--check"]);
    assert!(!again.contains("fetching"), "{again}");

    // A copy that was changed is not believed, and need not be prepared again.
    let key = first_shard(&site, "corpora/wiki/");
    let lost = copies("reader").join(key.strip_prefix("corpora/wiki/").unwrap());
    let shard = std::fs::read(&lost).unwrap();
    let mut changed = shard.clone();
    *changed.last_mut().unwrap() ^= 1;
    std::fs::write(&lost, changed).unwrap();
    let said = site.fail("reader", &["inspect", "s3://pod/corpora/wiki", "--check"]);
    assert!(said.contains("is a copy of s3://pod/corpora/wiki; remove it, and it is fetched again"), "{said}");

    // What is lost is fetched again, and nothing else is.
    std::fs::remove_file(&lost).unwrap();
    let inspected = site.succeed("reader", &["inspect", "s3://pod/corpora/wiki", "--check"]);
    assert!(inspected.contains("fetching"), "{inspected}");
    assert!(files(&copies("reader")) == files(&copies("maker")));

    // A changed object is found by its sha256, and leaves nothing that could be taken for the right one.
    let mut changed = shard.clone();
    changed[shard.len() / 2] ^= 1;
    site.server.put(&format!("pod/{key}"), changed);
    let said = site.fail("third", &["inspect", "s3://pod/corpora/wiki"]);
    assert!(said.contains(&format!("s3://pod/{key} requires sha256 ")), "{said}");
    let left = files(&copies("third"));
    assert!(left.iter().all(|(name, _)| !key.ends_with(name) && name != "prepared.json"), "{left:?}");
    // The rest was fetched, and does not need to be fetched again when the object is right.
    site.server.put(&format!("pod/{key}"), shard);
    site.succeed("third", &["inspect", "s3://pod/corpora/wiki", "--check"]);
    assert!(files(&copies("third")) == files(&copies("maker")));

    // The same again sends nothing; something else replaces nothing unless it is told to.
    site.server.refuse_writes(1);
    site.prepared("maker", "s3://pod/corpora/wiki", &[]);
    assert_eq!(site.server.writes_to_refuse(), 1);
    site.server.refuse_writes(0);
    let other = ["--seed", "5"];
    let mut line = site.prepare("other", "s3://pod/corpora/wiki", &other);
    line.pop();
    let said = site.fail("other", &line.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(said.contains("s3://pod/corpora/wiki/prepared.json: requires this data, or none"), "{said}");
    site.prepared("other", "s3://pod/corpora/wiki", &["--seed", "5", "--force"]);
    // A copy of what was there before follows.
    site.succeed("reader", &["inspect", "s3://pod/corpora/wiki", "--check"]);
    assert!(files(&copies("reader")) == files(&copies("other")));
}

#[test]
fn streams_that_break_are_taken_up_and_names_are_as_they_are_written() {
    let site = Site::new();
    // Characters that mean something in an address of the web, or to a shell.
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

    // A way that breaks for ever leaves nothing that could be taken for data, and nothing that is in the way later.
    site.server.cut_reads(usize::MAX, 1024);
    let said = site.fail("patient", &["inspect", &address]);
    assert!(said.contains(&format!("cannot read {address}/")) && said.contains("try again later"), "{said}");
    assert!(copy("patient").iter().all(|file| copy("maker").contains(file) && file.0 != "prepared.json"));
    site.server.cut_reads(0, 0);
    site.succeed("patient", &["inspect", &address, "--check"]);
    assert!(copy("patient") == copy("maker"));
}

#[test]
fn a_way_that_breaks_again_and_again_is_taken_for_as_long_as_it_leads_on() {
    let site = Site::new();
    let text = std::fs::read_to_string(site.workshop.path("text.txt")).unwrap();
    std::fs::write(site.workshop.path("text.txt"), text.repeat(5_400_000 / text.len())).unwrap();
    site.prepared("maker", "s3://pod/wiki", &[]);
    let key = first_shard(&site, "wiki/");
    // More often than one request is repeated.
    let (breaks, bytes) = (12, 100_000);
    let size = site.server.get(&format!("pod/{key}")).unwrap().len();
    assert!(size > (breaks + 4) * bytes, "{size} bytes");
    site.server.cut_reads(breaks, bytes);
    site.succeed("reader", &["inspect", "s3://pod/wiki", "--check"]);
    assert_eq!(site.server.reads_to_cut(), 0);
}

#[test]
fn what_a_bucket_lacks_or_names_wrongly_is_named() {
    let site = Site::new();
    site.prepared("maker", "s3://pod/wiki", &[]);
    let key = first_shard(&site, "wiki/");
    site.server.delete(&format!("pod/{key}"));
    let said = site.fail("reader", &["inspect", "s3://pod/wiki"]);
    assert!(said.contains(&format!("s3://pod/{key} requires ")) && said.contains("found no such object"), "{said}");

    // A manifest must not make files elsewhere.
    let shard = key.strip_prefix("wiki/").unwrap();
    let manifest = String::from_utf8(site.server.get("pod/wiki/prepared.json").unwrap()).unwrap();
    for outside in ["../../../../outside", "/outside", "a//outside"] {
        site.server.put("pod/wiki/prepared.json", manifest.replace(shard, outside).into_bytes());
        let said = site.fail("reader", &["inspect", "s3://pod/wiki"]);
        assert!(said.contains("requires a name of parts between single slashes"), "{said}");
    }
}

/// A run file whose run is saved in the bucket after every step, and whose data lies there.
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
fn a_run_goes_on_on_another_machine_from_what_the_bucket_holds() {
    let site = Site::new();
    site.prepared("one", "s3://pod/wiki", &[]);
    site.workshop.run_file("straight.toml", "straight", |text| text);
    site.succeed("one", &["pretrain", "straight.toml", "--platform", "cpu"]);
    let straight = |name: &str| std::fs::read(site.workshop.path("straight/step-00000010").join(name)).ok();
    let expected = ["model.safetensors", "optimizer.safetensors"].map(straight);

    // One machine is lost on the way.
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

    // Its run is not started over by mistake; another machine goes on, with the same steps.
    let said = site.fail("two", &["pretrain", "run.toml", "--platform", "cpu"]);
    assert!(said.contains("s3://pod/runs/small already holds a run"), "{said}");
    let said = site.succeed("two", &["pretrain", "run.toml", "--platform", "cpu", "--resume"]);
    assert!(said.contains("fetching step"), "{said}");
    assert!(tensors_of(&site, "step-00000010") == expected, "weights or moments differ");
    let keys = site.server.keys("pod", "runs/small/");
    let mut steps: Vec<&str> =
        keys.iter().filter_map(|key| key.split('/').nth(2)).filter(|n| n.contains("step")).collect();
    steps.dedup();
    assert_eq!(steps, ["step-00000009", "step-00000010"]);
    let log = site.workshop.path("log");
    std::fs::create_dir(&log).unwrap();
    std::fs::write(log.join("metrics.jsonl"), site.server.get("pod/runs/small/metrics.jsonl").unwrap()).unwrap();
    assert!(metrics(&log) == metrics(&site.workshop.path("straight")), "the journal is not whole");

    // What reads models reads them there.
    let evaluated =
        site.succeed("three", &["evaluate", "s3://pod/runs/small", "--data", "s3://pod/wiki", "--platform", "cpu"]);
    assert!(evaluated.contains("(step 10)"), "{evaluated}");
    site.succeed("three", &["export", "s3://pod/runs/small/step-00000009", "--out", "exported"]);
    assert!(site.workshop.path("exported/model.safetensors").exists());

    // A damaged checkpoint is passed over and kept; the one before it leads to the same end.
    let key = "pod/runs/small/step-00000010/optimizer.safetensors";
    let mut damaged = site.server.get(key).unwrap();
    let at = damaged.len() - 9;
    damaged[at] ^= 16;
    site.server.put(key, damaged.clone());
    let said = site.succeed("four", &["pretrain", "run.toml", "--platform", "cpu", "--resume"]);
    assert!(
        said.contains("skipped: s3://pod/runs/small/step-00000010/optimizer.safetensors requires sha256"),
        "{said}"
    );
    assert!(tensors_of(&site, "step-00000010") == expected, "weights or moments differ");
    assert!(tensors_of(&site, "step-00000010.replaced-1")[1] == Some(damaged));

    // A checkpoint that lacks its marker is none.
    site.server.delete("pod/runs/small/step-00000010/state.json");
    let said = site.succeed("five", &["export", "s3://pod/runs/small", "--out", "before"]);
    assert!(said.contains("(step 9, "), "{said}");
}

#[test]
fn google_storage_is_spoken_to_in_its_own_dialect() {
    let site = Site::new();
    site.prepared("one", "gs://pod/wiki", &[]);
    run_file(&site, "run.toml", "gs");
    site.succeed("two", &["pretrain", "run.toml", "--platform", "cpu"]);
    assert!(site.workshop.path("two/lambert/buckets/gs/pod%2Fruns%2Fsmall/step-00000010").exists());
    let done = site.succeed("three", &["pretrain", "run.toml", "--platform", "cpu", "--resume"]);
    assert!(done.contains("small is complete: 10 steps are done"), "{done}");
}

#[test]
fn a_busy_server_is_waited_for_and_what_cannot_be_sent_is_kept_and_sent_later() {
    let site = Site::new();
    // Nine repetitions outlast seven refusals in a row, and the seconds that these take.
    site.server.refuse_writes(7);
    site.prepared("one", "s3://pod/wiki", &[]);
    assert_eq!(site.server.writes_to_refuse(), 0);

    site.workshop.run_file("run.toml", "s3://pod/runs/small", |text| {
        let (first, _) = text.rsplit_once("[[phase]]").expect("two phases");
        first.replace("[checkpoint]", "[checkpoint]\ncache = \"scratch/small\"")
    });
    site.server.refuse_writes(usize::MAX);
    let said = site.fail("one", &["pretrain", "run.toml", "--platform", "cpu"]);
    assert!(
        said.contains("the newest checkpoint is not in s3://pod/runs/small yet; it is whole on this machine"),
        "{said}"
    );
    assert!(said.contains("cannot write s3://pod/runs/small/") && said.contains("503"), "{said}");
    assert!(said.contains("to resume: lambert pretrain run.toml --resume"), "{said}");
    let saved = site.workshop.path("scratch/small/step-00000006");
    assert!(saved.join("state.json").exists());
    assert!(site.server.keys("pod", "runs/").is_empty());

    site.server.refuse_writes(0);
    let said = site.succeed("one", &["pretrain", "run.toml", "--platform", "cpu", "--resume"]);
    assert!(said.contains("sent s3://pod/runs/small/step-00000006"), "{said}");
    let sent = site.server.get("pod/runs/small/step-00000006/model.safetensors");
    assert!(sent == std::fs::read(saved.join("model.safetensors")).ok());
}

#[test]
fn every_way_to_miss_a_bucket_is_answered_with_the_next_move() {
    let site = Site::new();
    site.workshop.run_file("run.toml", "runs", |text| text);
    let expect = |arguments: &[&str], parts: &[&str]| {
        let said = site.fail("one", arguments);
        parts.iter().for_each(|part| assert!(said.contains(part), "{part:?} is not in\n{said}"));
    };
    let pretrain = |set: &'static str| ["pretrain", "run.toml", "--platform", "cpu", "--set", set];
    expect(
        &["inspect", "s3://absent/wiki"],
        &["s3://absent/wiki/prepared.json", "the bucket does not exist", "create it"],
    );
    expect(&["inspect", "s3://pod/nothing"], &["s3://pod/nothing: requires an object prepared.json, got none"]);
    expect(&["evaluate", "s3://pod/nothing", "--data", "data"], &["s3://pod/nothing requires a checkpoint", "step-…"]);
    expect(
        &["export", "s3://pod/step-00000007", "--out", "x"],
        &["s3://pod/step-00000007/state.json is damaged", "not there"],
    );
    expect(&pretrain("checkpoint.directory=s3://absent/run"), &["[checkpoint] directory", "the bucket does not exist"]);
    expect(&pretrain("data.path=hdfs://pod/wiki"), &["hdfs://pod/wiki", "s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"]);
    expect(&pretrain("data.cache=x"), &["[data] cache", "data is on this machine"]);
    // A directory that is something else does not become a copy.
    site.prepared("one", "s3://pod/wiki", &[]);
    let mine =
        ["pretrain", "run.toml", "--platform", "cpu", "--set", "data.path=s3://pod/wiki", "--set", "data.cache=data"];
    expect(&mine, &["data is there and is not a copy of s3://pod/wiki", "name another directory"]);

    let endpoints = [
        ("http://10.255.255.1:9", ["its endpoint is at http:// on another machine", "AWS_ALLOW_HTTP=true"]),
        ("http://127.0.0.1:9", ["Connection refused", "correct AWS_REGION and AWS_ENDPOINT_URL, or try again later"]),
        (&answering("HTTP/1.1 301 Moved Permanently"), ["redirect", "correct AWS_REGION and AWS_ENDPOINT_URL"]),
        (&answering("HTTP/1.1 400 Bad Request"), ["400 Bad Request", "correct AWS_REGION and AWS_ENDPOINT_URL"]),
        (&answering("HTTP/1.1 403 Forbidden"), ["access is refused", "ask for the right to it"]),
        (&answering("HTTP/1.1 503 Slow Down"), ["503", "try again later"]),
    ];
    std::thread::scope(|scope| {
        for (endpoint, parts) in endpoints {
            let mut command = site.command("one", &["inspect", "s3://pod/wiki"]);
            command.env("AWS_ENDPOINT_URL", endpoint);
            scope.spawn(move || {
                let begin = Instant::now();
                let said = text(&command.output().unwrap());
                assert!(parts.iter().all(|part| said.contains(part)), "{parts:?} are not in\n{said}");
                let asked_again = ["Connection refused", "503"].contains(&parts[0]);
                assert_eq!(begin.elapsed() > Duration::from_secs(6), asked_again, "{said}");
            });
        }
    });

    let mut command = site.command("one", &["inspect", "gs://pod/wiki"]);
    command.env_remove("STORAGE_EMULATOR_HOST").env("GOOGLE_APPLICATION_CREDENTIALS", "nowhere.json");
    let said = text(&command.output().unwrap());
    assert!(said.contains("gs://pod/wiki") && said.contains("GOOGLE_APPLICATION_CREDENTIALS"), "{said}");
    let mut command = site.command("one", &["inspect", "s3://pod/wiki"]);
    // A metadata server that does not answer, as on every machine that is not rented.
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    command.env("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9");
    let said = text(&command.output().unwrap());
    assert!(said.contains("no credentials were found") && said.contains("AWS_ACCESS_KEY_ID"), "{said}");
}
