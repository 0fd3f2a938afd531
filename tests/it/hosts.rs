//! The rendezvous of several hosts, before devices exist: attendance, agreement on the run, heartbeats, and the rows of each
//! host. The hosts are threads, or processes that fail before they open a device.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::common::hosts::*;
use crate::common::{Workshop, text};
use lambert::rendezvous::agreement::fact;
use lambert::rendezvous::heartbeat::{Rhythm, Watch};
use lambert::rendezvous::session::Session;
use lambert::runtime::devices::Share;
use lambert::shape::HostTensor;

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
