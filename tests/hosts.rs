//! A run on several hosts, up to where the devices take over: who is here, what all must have in common, which rows each
//! host makes, and what hosts tell each other through their devices. The hosts are processes, or threads that do as they.

mod common;
#[path = "common/etcd.rs"]
mod etcd;

use std::process::{Child, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use common::steps::spec;
use common::{Workshop, text};
use etcd::Etcd;
use lambert::bert::{BertConfig, Precision, Preset};
use lambert::data::{ExampleConfig, Examples, Prepared, Split};
use lambert::key_value;
use lambert::pjrt::{Buffer, Platform, PlatformChoice};
use lambert::rendezvous::agreement::fact;
use lambert::rendezvous::heartbeat::{Rhythm, Watch};
use lambert::rendezvous::session::Session;
use lambert::rendezvous::{Place, meet};
use lambert::runtime::collective::Exchange;
use lambert::runtime::compile::Compiled;
use lambert::runtime::devices::{Devices, Share};
use lambert::runtime::hosts::Hosts;
use lambert::runtime::prefetch::{Scalars, Source, send};
use lambert::runtime::state::{StateLayout, TrainState};
use lambert::schedule::{Phase, Schedule};
use lambert::shape::HostTensor;
use lambert::step::{METRICS, StepSpec, TrainStep};

/// A place to meet, with its server if it needs one.
struct Meeting {
    coordinator: String,
    _folder: Option<tempfile::TempDir>,
    etcd: Option<Etcd>,
}

/// A directory, and etcd.
fn meetings() -> Vec<Meeting> {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = folder.path().join("hosts").to_str().unwrap().to_owned();
    let directory = Meeting { coordinator, _folder: Some(folder), etcd: None };
    let etcd =
        Etcd::start().map(|etcd| Meeting { coordinator: etcd.coordinator("meeting"), _folder: None, etcd: Some(etcd) });
    [Some(directory), etcd].into_iter().flatten().collect()
}

impl Meeting {
    fn join(&self, host: usize, hosts: usize, seconds: f64) -> anyhow::Result<Session> {
        let timeout = Duration::from_secs_f64(seconds);
        meet(Place { host, hosts, store: key_value::open(&self.coordinator)?, timeout })
    }

    /// What each of the hosts `numbers` does, side by side.
    fn each<T: Send>(&self, numbers: &[usize], act: impl Fn(usize) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let act = &act;
            let threads: Vec<_> = numbers.iter().map(|&host| scope.spawn(move || act(host))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }
}

fn words<T>(result: anyhow::Result<T>) -> String {
    format!("{:#}", result.err().expect("must fail"))
}

#[test]
fn hosts_meet_agree_and_part() {
    for meeting in meetings() {
        // Twice at one place: what the first attempt left is not taken for anyone.
        for attempt in 0..2 {
            let arrived = AtomicUsize::new(0);
            let sessions = meeting.each(&[0, 1, 2, 3], |host| {
                std::thread::sleep(Duration::from_millis(30 * (3 - host) as u64));
                arrived.fetch_add(1, Ordering::SeqCst);
                let session = meeting.join(host, 4, 30.0).unwrap();
                assert_eq!(arrived.load(Ordering::SeqCst), 4, "nobody goes on before all are here");
                session.agree("run", &fact("the seed", attempt)).unwrap();
                arrived.fetch_add(1, Ordering::SeqCst);
                session.barrier("middle").unwrap();
                assert_eq!(arrived.load(Ordering::SeqCst), 8, "nobody passes before all are there");
                // Devices find each other in a store that only this session has.
                session.store().put(&format!("node:{host}"), &[host as u8]).unwrap();
                let others: Vec<Vec<u8>> = (0..4)
                    .map(|other| session.store().get(&format!("node:{other}"), Duration::from_secs(20)).unwrap())
                    .collect();
                assert_eq!(others, [[0], [1], [2], [3]]);
                session.barrier("devices").unwrap();
                session.end().unwrap();
                session
            });
            let left = sessions[0].store();
            assert_eq!(left.try_get("node:1").unwrap(), None, "the end leaves nothing of the session");
        }
    }
}

#[test]
fn a_host_that_never_comes_is_named_by_those_who_waited() {
    for meeting in meetings() {
        // A host 2 was here once, and is gone.
        let gone = words(meeting.join(2, 4, 0.1));
        assert!(gone.contains("for host 0, which did not come"), "{gone}");
        let said = meeting.each(&[0, 1, 3], |host| words(meeting.join(host, 4, 1.5)));
        for (host, said) in [0, 1, 3].iter().zip(&said) {
            // Who hears of host 0's end says what it said.
            assert!(said.starts_with("host 0 of 4 (") || said.starts_with(&format!("host {host} of 4 (")), "{said}");
            assert!(
                said.contains("for host 2, which did not come") && said.contains("--coordinator-timeout"),
                "{said}"
            );
        }
    }
}

/// Far longer than hosts that are there take to answer each other.
const PATIENCE: f64 = 60.0;

/// What each of `processes` (host, of how many, seconds until it starts) says when it fails, long before its patience ends.
fn soon_told(meeting: &Meeting, processes: &[(usize, usize, f64)]) -> Vec<String> {
    let numbers: Vec<usize> = (0..processes.len()).collect();
    meeting.each(&numbers, |number| {
        let (host, hosts, later) = processes[number];
        std::thread::sleep(Duration::from_secs_f64(later));
        let begin = Instant::now();
        let said = words(meeting.join(host, hosts, PATIENCE));
        assert!(begin.elapsed() < Duration::from_secs(20), "{host} of {hosts} waited {:?}: {said}", begin.elapsed());
        said
    })
}

#[test]
fn processes_with_one_number_are_told_and_those_who_wait_for_them() {
    for meeting in meetings() {
        let said = meeting.each(&[1, 1], |host| words(meeting.join(host, 2, 10.0)));
        for said in said {
            assert!(said.contains("two processes are host 1: "), "{said}");
            assert!(said.contains("give every process a --host of its own, from 0 to 1"), "{said}");
        }
        // Host 3 would never come.
        for (number, processes) in [
            (1, [(0, 4, 0.0), (2, 4, 0.0), (1, 4, 0.3), (1, 4, 0.6)]),
            (0, [(1, 4, 0.0), (2, 4, 0.0), (0, 4, 0.3), (0, 4, 0.6)]),
        ] {
            for said in soon_told(&meeting, &processes) {
                assert!(said.contains(&format!("two processes are host {number}: ")), "{said}");
            }
        }
    }
}

#[test]
fn hosts_that_disagree_about_their_number_are_told() {
    for meeting in meetings() {
        for processes in [
            &[(0, 2, 0.0), (1, 3, 0.0)][..],
            // Host 0 does not look for a number as high as this one, and host 1 waits with it.
            &[(0, 3, 0.0), (1, 3, 0.0), (3, 4, 0.0)],
            &[(0, 3, 0.0), (1, 3, 0.0), (3, 4, 1.0)],
            &[(0, 4, 0.0), (1, 4, 0.0), (2, 3, 0.5)],
        ] {
            let numbers: Vec<usize> = processes.iter().map(|&(_, hosts, _)| hosts).collect();
            let (least, most) = (numbers.iter().min().unwrap(), numbers.iter().max().unwrap());
            for said in soon_told(&meeting, processes) {
                assert!(said.contains("the hosts disagree about their number: host "), "{said}");
                assert!(
                    said.contains(&format!("--hosts {least}")) && said.contains(&format!("--hosts {most}")),
                    "{said}"
                );
            }
        }
        // None of this is taken for an answer to those who come after.
        let met = meeting.each(&[0, 1], |host| meeting.join(host, 2, PATIENCE).map(|session| session.hosts()));
        assert!(met.iter().all(|hosts| matches!(hosts, Ok(2))), "{met:?}");
    }
}

#[test]
fn who_comes_late_to_a_run_of_other_hosts_is_told_of_it() {
    for meeting in meetings() {
        let sessions = meeting.each(&[0, 1], |host| Arc::new(meeting.join(host, 2, PATIENCE).unwrap()));
        // They have met, and are gone: what they left is no run.
        let alone = words(meeting.join(2, 3, 1.0));
        assert!(alone.contains("for host 0, which did not come"), "{alone}");
        let watches = [0, 1].map(|host| watch(&sessions[host]));
        for late in [2, 0, 1] {
            let [said] = soon_told(&meeting, &[(late, 3, 0.0)]).try_into().unwrap();
            assert!(said.contains("a run of 2 hosts is under way at "), "{said}");
            assert!(said.contains("led by host 0 (") && said.contains(&format!("host {late} of 3;")), "{said}");
        }
        // One of as many hosts waits to take the place of one that is lost, and says in the end why it did not.
        let said = words(meeting.join(1, 2, 1.0));
        assert!(said.contains("a run of 2 hosts is under way at "), "{said}");
        drop(watches);
        let alone = words(meeting.join(2, 3, 1.0));
        assert!(alone.contains("for host 0, which did not come"), "{alone}");
    }
}

#[test]
fn whoever_waits_with_host_0_hears_that_it_stops() {
    for meeting in meetings() {
        let begin = Instant::now();
        let said = meeting.each(&[0, 1], |host| words(meeting.join(host, 3, [1.5, PATIENCE][host])));
        assert!(begin.elapsed() < Duration::from_secs(20));
        for said in said {
            assert!(said.starts_with("host 0 of 3 (") && said.contains("for host 2, which did not come"), "{said}");
        }
    }
}

#[test]
fn who_gives_up_tells_the_others_and_who_differs_is_named() {
    for meeting in meetings() {
        let said = meeting.each(&[0, 1, 2], |host| {
            let session = meeting.join(host, 3, 30.0).unwrap();
            if host == 2 {
                session.give_up("its disk is full");
                return String::new();
            }
            words(session.barrier("later"))
        });
        for said in &said[..2] {
            assert!(
                said.starts_with("host 2 (") && said.contains("has given up, and with it the run: its disk is full"),
                "{said}"
            );
        }
        let said = meeting.each(&[0, 1, 2], |host| {
            let session = meeting.join(host, 3, 30.0).unwrap();
            words(session.agree("run", &fact("the program", if host == 1 { "new" } else { "old" })))
        });
        for said in said {
            assert!(said.contains("the hosts do not mean the same run: host 1 ("), "{said}");
            assert!(said.contains("differs in the program (new instead of old)"), "{said}");
        }
        // Who was there at the start and then stays away.
        let said = meeting.each(&[0, 1], |host| {
            let session = meeting.join(host, 2, 0.8).unwrap();
            if host == 0 { words(session.barrier("end")) } else { String::new() }
        });
        assert!(
            said[0].starts_with("host 1 (") && said[0].contains("did not come to the point \"end\""),
            "{}",
            said[0]
        );
    }
}

/// Watches as a run does, in a quicker rhythm; what it says of a lost host can be received.
fn watch(session: &Arc<Session>) -> (Watch, Receiver<String>) {
    let rhythm = Rhythm { beat: Duration::from_millis(40), silence: Duration::from_millis(1500) };
    let (sender, receiver) = channel();
    let lost = move |why| sender.send(why).unwrap_or_default();
    (Watch::start(session.clone(), rhythm, lost).unwrap(), receiver)
}

#[test]
fn whoever_falls_silent_among_the_steps_is_named_on_all_hosts() {
    let long = Duration::from_secs(20);
    for meeting in meetings() {
        // Who is lost, and by what: it never says that it is there, or gives up.
        for (lost, gives_up) in [(2, false), (0, false), (2, true)] {
            let said = meeting.each(&[0, 1, 2], |host| {
                let session = Arc::new(meeting.join(host, 3, 30.0).unwrap());
                if host == lost {
                    if gives_up {
                        session.give_up("its disk is full");
                    }
                    return String::new();
                }
                let (_watch, heard) = watch(&session);
                heard.recv_timeout(long).expect("it is told")
            });
            let sentence =
                if gives_up { "has given up, and with it the run: its disk is full" } else { "not been heard of" };
            for (host, said) in said.iter().enumerate().filter(|(host, _)| *host != lost) {
                assert!(said.starts_with(&format!("host {lost} (")) && said.contains(sentence), "{host}: {said}");
            }
        }
        // Nobody is missed who is there, or has ended in order, however much earlier than the others.
        meeting.each(&[0, 1, 2], |host| {
            let session = Arc::new(meeting.join(host, 3, 30.0).unwrap());
            let (watch, heard) = watch(&session);
            if host != 1 {
                let nothing = heard.recv_timeout(Duration::from_millis(3500));
                assert_eq!(nothing, Err(RecvTimeoutError::Timeout));
            }
            drop(watch);
            session.end().unwrap();
        });
    }
}

/// Starts `lambert pretrain` as host `host`, with further arguments.
fn start(workshop: &Workshop, host: usize, more: &[&str]) -> Child {
    let number = host.to_string();
    let arguments = [&["pretrain", "run.toml", "--platform", "cpu", "--host", &number], more].concat();
    let mut command = workshop.command(&arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("lambert starts")
}

fn end(child: Child) -> String {
    let output: Output = child.wait_with_output().expect("it ends");
    let words = text(&output);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(!words.contains("panicked"), "{words}");
    assert_eq!(words.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{words}");
    words
}

#[test]
fn processes_meet_and_are_told_what_is_wrong() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    let etcd = Etcd::start();
    let mut coordinators = vec![Vec::new()];
    coordinators.extend(etcd.iter().map(|etcd| vec!["--coordinator".to_owned(), etcd.coordinator("run")]));
    for coordinator in coordinators {
        let run = |hosts: &str, processes: &[(usize, &[&str])]| -> Vec<String> {
            let common: Vec<&str> =
                ["--hosts", hosts].into_iter().chain(coordinator.iter().map(String::as_str)).collect();
            let begin = |(host, more): &(usize, &[&str])| start(&workshop, *host, &[&common, *more].concat());
            let children: Vec<Child> = processes.iter().map(begin).collect();
            children.into_iter().map(end).collect()
        };
        // All is well up to the devices: those of this plugin are within one process.
        for said in run("3", &[(0, &[]), (1, &[]), (2, &[])]) {
            assert!(said.contains("all 3 hosts are here"), "{said}");
            assert!(
                said.contains("--hosts 3 requires a runtime that spans them") && said.contains("knows 1"),
                "{said}"
            );
        }
        // Who would wait for ever is spared a longer time than the clock knows.
        let for_ever = ["--coordinator-timeout", "18446744073709551615"];
        for said in run("2", &[(0, &for_ever), (1, &["--set", "seed=12"])]) {
            assert!(said.contains("error: the hosts do not mean the same run: host 1 ("), "{said}");
            assert!(said.contains("differs in the run file (seed)"), "{said}");
        }
        for said in run("2", &[(0, &["--coordinator-timeout", "2"])]) {
            assert!(said.contains("waited 2 s at") && said.contains("for host 1, which did not come"), "{said}");
        }
        for said in run("2", &[(1, &[]), (1, &[])]) {
            assert!(said.contains("error: two processes are host 1: "), "{said}");
        }
    }
    assert!(!workshop.path("run/metrics.jsonl").exists(), "nothing was begun");
    assert!(workshop.path("run/hosts").is_dir(), "they meet in the run directory if nothing else is said");
}

#[test]
fn options_of_hosts_are_checked_and_slurm_is_understood() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    let fails = |arguments: &[&str], slurm: &[(&str, &str)], said: &str| {
        let arguments = [&["pretrain", "run.toml", "--coordinator-timeout", "1"], arguments].concat();
        let output = workshop.command(&arguments).envs(slurm.iter().copied()).output().expect("lambert starts");
        assert!(text(&output).contains(said), "{said:?} is not in {}", text(&output));
        assert_eq!(output.status.code(), Some(1));
    };
    fails(&["--hosts", "2"], &[], "--hosts 2 requires --host, this process's number from 0 to 1");
    fails(&["--hosts", "0"], &[], "--hosts requires 1 to 65536, got 0");
    fails(&["--hosts", "9223372036854775807", "--host", "0"], &[], "--hosts requires 1 to 65536");
    fails(
        &["--hosts", "20", "--host", "0"],
        &[],
        "for host 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 and 3 more,",
    );
    fails(&["--hosts", "2", "--host", "2"], &[], "--host 2 requires --hosts to be more than that, got 2");
    fails(&["--host", "1"], &[], "--host 1 requires --hosts to be more than that, got 1");
    fails(&["--coordinator", "here"], &[], "--coordinator here requires --hosts and --host");
    fails(&["--hosts", "2", "--host", "0", "--coordinator", "etcd://x"], &[], "requires a directory, etcd://host:port");
    fails(&[], &[("SLURM_PROCID", "1"), ("SLURM_NTASKS", "3")], "host 1 of 3");
    fails(&[], &[("SLURM_PROCID", "1"), ("SLURM_NTASKS", "three")], "SLURM_NTASKS requires a number, got \"three\"");
    // What is typed comes before what Slurm says, and a batch script outside srun is alone.
    fails(&["--hosts", "4", "--host", "3"], &[("SLURM_PROCID", "1"), ("SLURM_NTASKS", "8")], "host 3 of 4");
    // They wait for nobody, and come to what is wrong with this plugin.
    let alone = ["--platform", "./text.txt"];
    fails(&alone, &[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "1")], "text.txt cannot be opened");
    fails(&alone, &[("SLURM_JOB_ID", "7"), ("SLURM_NTASKS", "8")], "text.txt cannot be opened");
}

const SEED: u64 = 11;
/// Sequence length and predictions of the two phases.
const SHAPES: [(usize, usize); 2] = [(24, 4), (48, 8)];

/// What feeds a run of the workshop's data, with batches of `global_batch` in both phases.
fn source(workshop: &Workshop, global_batch: usize) -> Source {
    let phase = |(sequence_length, predictions): (usize, usize)| -> Phase {
        let text = format!(
            "sequence_length = {sequence_length}\npredictions = {predictions}\nglobal_batch = {global_batch}\n\
             micro_batch = 1\nsteps = 6\nlearning_rate = 0.02"
        );
        toml::from_str(&text).unwrap()
    };
    let prepared = Arc::new(Prepared::open(&workshop.path("data")).unwrap());
    let examples = |(phase, (length, predictions))| {
        let config = ExampleConfig { seed: SEED, phase, ..ExampleConfig::bert(length, predictions) };
        Arc::new(Examples::new(prepared.clone(), Split::Train, config).unwrap())
    };
    Source {
        schedule: Schedule::new(SHAPES.map(phase).to_vec()).unwrap(),
        seed: SEED,
        examples: (0..).zip(SHAPES).map(examples).collect(),
        sequences_per_row: vec![1; SHAPES.len()],
        inputs: vec![Vec::new(); SHAPES.len()],
    }
}

#[test]
fn the_rows_of_all_hosts_are_the_batch_of_one() {
    let workshop = Workshop::new();
    // 256 has the powers of two as divisors, 240 also 3, 5, 15, 48, 60 …; in phase 2 the sequences are longer.
    for batch in [256, 240] {
        let source = source(&workshop, batch);
        // The last steps reach into further epochs of this small corpus.
        for step in [0, 5, source.schedule.steps() - 1] {
            let whole: Vec<(&str, HostTensor)> =
                source.batch(step, Share::ALL).unwrap().tensors().into_iter().collect();
            for hosts in (1..=256).filter(|hosts| batch % hosts == 0) {
                let mut joined: Vec<Vec<u8>> = vec![Vec::new(); whole.len()];
                for host in 0..hosts {
                    let share = Share { first: host, count: 1, of: hosts };
                    let part = source.batch(step, share).unwrap();
                    assert_eq!(part.rows, batch / hosts);
                    for (all, (_, tensor)) in joined.iter_mut().zip(part.tensors()) {
                        all.extend_from_slice(tensor.bytes());
                    }
                }
                for ((name, tensor), joined) in whole.iter().zip(&joined) {
                    assert!(tensor.bytes() == joined, "{name} of step {step} by {hosts} hosts");
                }
            }
        }
    }
}

fn cpu(devices: usize) -> Devices {
    match Devices::open(&PlatformChoice::Platform(Platform::Cpu), Some(devices)) {
        Ok(devices) => devices,
        Err(error) => panic!("this test needs a CPU plugin: {error:#}"),
    }
}

/// Three steps on four devices that `hosts` hosts feed, each its own: the metrics, bit for bit.
fn metrics_fed_by(hosts: usize, spec: &StepSpec, source: &Source, devices: &Devices, step: &Compiled) -> Vec<Vec<u64>> {
    let layout = StateLayout::of(spec);
    let held = layout.len();
    let mut state = TrainState::initial(layout, SEED, devices).unwrap();
    let each = devices.len() / hosts;
    let mut metrics = |number: u64| {
        let plan = source.schedule.at(number).unwrap();
        let mut fed = Vec::new();
        for (host, mine) in devices.devices.chunks(each).enumerate() {
            let share = Share { first: host * each, count: each, of: devices.len() };
            let batch = source.batch(number, share).unwrap();
            let scalars = Scalars::of(&plan, number, SEED, share.rows(plan.global_batch).start);
            fed.extend(send(&devices.client, mine, &step.fed_inputs(), &batch, &scalars).unwrap());
        }
        let arguments: Vec<Vec<&Buffer>> =
            state.buffers().iter().zip(&fed).map(|(state, fed)| state.iter().chain(fed).collect()).collect();
        let mut outputs = step.executable.execute(&arguments).unwrap();
        let reports: Vec<Vec<Buffer>> = outputs.iter_mut().map(|outputs| outputs.split_off(held)).collect();
        state.replace(outputs);
        let at = step.outputs[held..].iter().position(|value| value.name == "metrics").unwrap();
        let metrics = reports[0][at].to_host().unwrap().to_f64();
        assert_eq!(metrics.len(), METRICS.len());
        metrics.into_iter().map(f64::to_bits).collect()
    };
    (0..3).map(&mut metrics).collect()
}

#[test]
fn devices_fed_by_several_hosts_take_the_same_steps() {
    let workshop = Workshop::new();
    let source = source(&workshop, 8);
    let devices = cpu(4);
    let vocabulary = source.examples[0].prepared().vocabulary().len();
    let (sequence_length, predictions) = SHAPES[0];
    let model = BertConfig {
        hidden_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 32,
        max_position_embeddings: 48,
        ..Preset::Tiny.config(vocabulary)
    };
    let spec =
        StepSpec { precision: Precision::F32, sequence_length, predictions, ..spec(&model, 8, 2, devices.len()) };
    let step = Compiled::new(&devices, || Ok(TrainStep::build(&spec)?.program)).unwrap();
    let alone = metrics_fed_by(1, &spec, &source, &devices, &step);
    assert!(alone[0] != alone[1], "the steps change something");
    for hosts in [2, 4] {
        assert_eq!(metrics_fed_by(hosts, &spec, &source, &devices, &step), alone, "{hosts} hosts");
    }
}

#[test]
fn hosts_that_cannot_part_say_so_and_have_not_failed() {
    for mut meeting in meetings() {
        let devices = cpu(1);
        let session = Arc::new(meeting.join(0, 1, 1.0).unwrap());
        let hosts = Hosts::new(&devices, Some(session)).unwrap();
        match meeting.etcd.take() {
            Some(etcd) => drop(etcd),
            None => {
                std::fs::remove_dir_all(&meeting.coordinator).unwrap();
                std::fs::write(&meeting.coordinator, "no directory any more").unwrap();
            }
        }
        let said = hosts.part().expect("the place is gone");
        assert!(said.starts_with("this host is done, but not all parted in order: "), "{said}");
        assert!(said.contains("cannot be reached") || said.contains(&meeting.coordinator), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let alone = Hosts::new(&cpu(1), None).unwrap();
    assert_eq!(alone.part(), None);
}

#[test]
fn every_host_hears_the_words_of_every_replica() {
    let devices = cpu(4);
    let exchange = Exchange::new(&devices, 3).unwrap();
    let words =
        |round: u32| -> Vec<Vec<u32>> { (0..4).map(|replica| vec![replica, round, u32::MAX - replica]).collect() };
    // Two under way at once, as votes are while steps run.
    let under_way: Vec<_> = (0..2).map(|round| exchange.start(&words(round)).unwrap()).collect();
    for (round, exchanging) in under_way.into_iter().enumerate() {
        assert_eq!(exchanging.wait().unwrap(), words(round as u32));
    }
    let error = exchange.start(&words(0)[..3]).err().expect("a device is left out").to_string();
    assert!(error.contains("3 words for each of 4 devices"), "{error}");
    assert_eq!(devices.share(), Share { first: 0, count: 4, of: 4 });
    assert_eq!(Arc::new(devices).first_replicas(), [0]);
}
