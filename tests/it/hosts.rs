//! The rendezvous of several hosts before devices exist: missing hosts, checks for equal values, heartbeats, and the rows of
//! each host. The hosts are threads, or processes that fail before they open a device.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::common::hosts::*;
use crate::common::{Workshop, text};
use lambert::batch::ReplicaRange;
use lambert::rendezvous::agreement::shared_value;
use lambert::rendezvous::heartbeat::{HeartbeatConfig, PeerMonitor};
use lambert::rendezvous::session::Session;

fn error_of<T>(result: anyhow::Result<T>) -> String {
    format!("{:#}", result.err().expect("must fail"))
}

#[test]
fn hosts_rendezvous_compare_values_and_shut_down() {
    for coordinator in coordinators() {
        // Twice at one coordinator: values of the first attempt are not taken for hosts of the second.
        for attempt in 0..2 {
            let arrived = AtomicUsize::new(0);
            let sessions = coordinator.each(&[0, 1, 2, 3], |host| {
                std::thread::sleep(Duration::from_millis(30 * (3 - host) as u64));
                arrived.fetch_add(1, Ordering::SeqCst);
                let session = coordinator.join(host, 4, 30.0).unwrap();
                assert_eq!(arrived.load(Ordering::SeqCst), 4, "no host continues before all have joined");
                session.check_equal("run", &shared_value("the seed", attempt)).unwrap();
                arrived.fetch_add(1, Ordering::SeqCst);
                session.barrier("middle").unwrap();
                assert_eq!(arrived.load(Ordering::SeqCst), 8, "no host passes the barrier before all have reached it");
                // Devices find each other in a store of this session alone.
                session.device_store().put(&format!("node:{host}"), &[host as u8]).unwrap();
                let others: Vec<Vec<u8>> = (0..4)
                    .map(|other| session.device_store().get(&format!("node:{other}"), Duration::from_secs(20)).unwrap())
                    .collect();
                assert_eq!(others, [[0], [1], [2], [3]]);
                session.barrier("devices").unwrap();
                session.shutdown().unwrap();
                session
            });
            let left = sessions[0].device_store();
            assert_eq!(left.try_get("node:1").unwrap(), None, "shutdown removes the session's values");
        }
    }
}

#[test]
fn a_missing_host_is_named_by_every_waiting_host() {
    for coordinator in coordinators() {
        // A host 2 joined once, and has ended.
        let ended = error_of(coordinator.join(2, 4, 0.1));
        assert!(ended.contains("host 0 did not join"), "{ended}");
        let messages = coordinator.each(&[0, 1, 3], |host| error_of(coordinator.join(host, 4, 1.5)));
        for (host, message) in [0, 1, 3].iter().zip(&messages) {
            // A host that reads host 0's abort reports its message.
            assert!(
                message.starts_with("host 0 of 4 (") || message.starts_with(&format!("host {host} of 4 (")),
                "{message}"
            );
            assert!(
                message.contains("host 2 did not join") && message.contains("raise the coordinator timeout"),
                "{message}"
            );
        }
    }
}

/// Far longer than running hosts take to answer each other.
const LONG_TIMEOUT: f64 = 60.0;

/// Returns the error of each of `processes` (host, number of hosts, delay in seconds); each fails long before its timeout.
fn errors_before_timeout(coordinator: &Coordinator, processes: &[(usize, usize, f64)]) -> Vec<String> {
    let numbers: Vec<usize> = (0..processes.len()).collect();
    coordinator.each(&numbers, |number| {
        let (host, hosts, delay) = processes[number];
        std::thread::sleep(Duration::from_secs_f64(delay));
        let begin = Instant::now();
        let message = error_of(coordinator.join(host, hosts, LONG_TIMEOUT));
        assert!(begin.elapsed() < Duration::from_secs(20), "{host} of {hosts} waited {:?}: {message}", begin.elapsed());
        message
    })
}

#[test]
fn processes_with_the_same_number_fail_and_so_do_waiting_hosts() {
    for coordinator in coordinators() {
        let messages = coordinator.each(&[1, 1], |host| error_of(coordinator.join(host, 2, 10.0)));
        for message in messages {
            assert!(message.contains("two processes were started as host 1: "), "{message}");
            assert!(message.contains("give every process its own host number, from 0 to 1"), "{message}");
        }
        // Host 3 is never started.
        for (number, processes) in [
            (1, [(0, 4, 0.0), (2, 4, 0.0), (1, 4, 0.3), (1, 4, 0.6)]),
            (0, [(1, 4, 0.0), (2, 4, 0.0), (0, 4, 0.3), (0, 4, 0.6)]),
        ] {
            for message in errors_before_timeout(&coordinator, &processes) {
                assert!(message.contains(&format!("two processes were started as host {number}: ")), "{message}");
            }
        }
    }
}

#[test]
fn hosts_with_different_host_counts_fail() {
    for coordinator in coordinators() {
        for processes in [
            &[(0, 2, 0.0), (1, 3, 0.0)][..],
            // Host 0 does not read a number as high as host 3's, and host 1 waits with host 0.
            &[(0, 3, 0.0), (1, 3, 0.0), (3, 4, 0.0)],
            &[(0, 3, 0.0), (1, 3, 0.0), (3, 4, 1.0)],
            &[(0, 4, 0.0), (1, 4, 0.0), (2, 3, 0.5)],
        ] {
            let numbers: Vec<usize> = processes.iter().map(|&(_, hosts, _)| hosts).collect();
            let (least, most) = (numbers.iter().min().unwrap(), numbers.iter().max().unwrap());
            for message in errors_before_timeout(&coordinator, processes) {
                assert!(message.contains("the hosts disagree about the number of hosts: host "), "{message}");
                assert!(
                    message.contains(&format!("one of {least}")) && message.contains(&format!("one of {most}")),
                    "{message}"
                );
            }
        }
        // A later attempt does not read these values as answers.
        let joined =
            coordinator.each(&[0, 1], |host| coordinator.join(host, 2, LONG_TIMEOUT).map(|session| session.hosts()));
        assert!(joined.iter().all(|hosts| matches!(hosts, Ok(2))), "{joined:?}");
    }
}

#[test]
fn a_late_host_reports_the_run_in_progress() {
    for coordinator in coordinators() {
        let sessions = coordinator.each(&[0, 1], |host| Arc::new(coordinator.join(host, 2, LONG_TIMEOUT).unwrap()));
        // They have joined and ended: their values are not a run in progress.
        let alone = error_of(coordinator.join(2, 3, 1.0));
        assert!(alone.contains("host 0 did not join"), "{alone}");
        let monitors = [0, 1].map(|host| monitor(&sessions[host]));
        for late in [2, 0, 1] {
            let [message] = errors_before_timeout(&coordinator, &[(late, 3, 0.0)]).try_into().unwrap();
            assert!(message.contains("a run of 2 hosts is in progress at "), "{message}");
            assert!(
                message.contains("led by host 0 (") && message.contains(&format!("host {late} of 3;")),
                "{message}"
            );
        }
        // A host of an equally large run waits to replace a lost host, and reports the run in progress after its timeout.
        let message = error_of(coordinator.join(1, 2, 1.0));
        assert!(message.contains("a run of 2 hosts is in progress at "), "{message}");
        drop(monitors);
        let alone = error_of(coordinator.join(2, 3, 1.0));
        assert!(alone.contains("host 0 did not join"), "{alone}");
    }
}

#[test]
fn a_timeout_of_host_0_ends_the_wait_of_all_hosts() {
    for coordinator in coordinators() {
        let begin = Instant::now();
        let messages = coordinator.each(&[0, 1], |host| error_of(coordinator.join(host, 3, [1.5, LONG_TIMEOUT][host])));
        assert!(begin.elapsed() < Duration::from_secs(20));
        for message in messages {
            assert!(message.starts_with("host 0 of 3 (") && message.contains("host 2 did not join"), "{message}");
        }
    }
}

#[test]
fn aborting_and_differing_hosts_are_named() {
    for coordinator in coordinators() {
        let messages = coordinator.each(&[0, 1, 2], |host| {
            let session = coordinator.join(host, 3, 30.0).unwrap();
            if host == 2 {
                session.abort("its disk is full");
                return String::new();
            }
            error_of(session.barrier("later"))
        });
        for message in &messages[..2] {
            assert!(
                message.starts_with("host 2 (") && message.contains("failed, so the run was aborted: its disk is full"),
                "{message}"
            );
        }
        let messages = coordinator.each(&[0, 1, 2], |host| {
            let session = coordinator.join(host, 3, 30.0).unwrap();
            error_of(session.check_equal("run", &shared_value("the program", if host == 1 { "new" } else { "old" })))
        });
        for message in messages {
            assert!(message.contains("the hosts were started with different runs: host 1 ("), "{message}");
            assert!(message.contains("differs in the program (new instead of old)"), "{message}");
        }
        // A host that joined does not reach the barrier.
        let messages = coordinator.each(&[0, 1], |host| {
            let session = coordinator.join(host, 2, 0.8).unwrap();
            if host == 0 { error_of(session.barrier("end")) } else { String::new() }
        });
        assert!(
            messages[0].starts_with("host 1 (") && messages[0].contains("did not reach the barrier \"end\""),
            "{}",
            messages[0]
        );
    }
}

/// Starts a monitor with short intervals; its message about a lost host can be received.
fn monitor(session: &Arc<Session>) -> (PeerMonitor, Receiver<String>) {
    let config = HeartbeatConfig { interval: Duration::from_millis(40), timeout: Duration::from_millis(1500) };
    let (sender, receiver) = channel();
    let on_failure = move |message| sender.send(message).unwrap_or_default();
    (PeerMonitor::start(session.clone(), config, on_failure).unwrap(), receiver)
}

#[test]
fn a_host_without_heartbeat_is_named_on_all_hosts() {
    let long = Duration::from_secs(20);
    for coordinator in coordinators() {
        // The lost host, and whether it aborts or writes no heartbeat.
        for (lost, aborts) in [(2, false), (0, false), (2, true)] {
            let messages = coordinator.each(&[0, 1, 2], |host| {
                let session = Arc::new(coordinator.join(host, 3, 30.0).unwrap());
                if host == lost {
                    if aborts {
                        session.abort("its disk is full");
                    }
                    return String::new();
                }
                let (_monitor, messages) = monitor(&session);
                messages.recv_timeout(long).expect("the lost host is reported")
            });
            let expected =
                if aborts { "failed, so the run was aborted: its disk is full" } else { "is lost: no heartbeat for" };
            for (host, message) in messages.iter().enumerate().filter(|(host, _)| *host != lost) {
                assert!(
                    message.starts_with(&format!("host {lost} (")) && message.contains(expected),
                    "{host}: {message}"
                );
            }
        }
        // A running host, and one that finished earlier than the others, are not reported.
        coordinator.each(&[0, 1, 2], |host| {
            let session = Arc::new(coordinator.join(host, 3, 30.0).unwrap());
            let (monitor, messages) = monitor(&session);
            if host != 1 {
                let nothing = messages.recv_timeout(Duration::from_millis(3500));
                assert_eq!(nothing, Err(RecvTimeoutError::Timeout));
            }
            drop(monitor);
            session.shutdown().unwrap();
        });
    }
}

#[test]
fn host_options_are_checked_and_default_to_slurm() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    let fails = |arguments: &[&str], slurm: &[(&str, &str)], expected: &str| {
        let arguments = [&["pretrain", "run.toml", "--coordinator-timeout", "1"], arguments].concat();
        let output = workshop.command(&arguments).envs(slurm.iter().copied()).output().expect("lambert starts");
        assert!(text(&output).contains(expected), "{expected:?} is not in {}", text(&output));
        assert_eq!(output.status.code(), Some(1));
    };
    fails(&["--hosts", "2"], &[], "--hosts 2 requires --host, the number of this process from 0 to 1");
    fails(&["--hosts", "0"], &[], "--hosts requires 1 to 65536, got 0");
    fails(&["--hosts", "9223372036854775807", "--host", "0"], &[], "--hosts requires 1 to 65536");
    fails(
        &["--hosts", "20", "--host", "0"],
        &[],
        "host 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 and 3 more did not join",
    );
    fails(&["--hosts", "2", "--host", "2"], &[], "--host 2 requires --hosts of at least 3, got 2");
    fails(&["--host", "1"], &[], "--host 1 requires --hosts of at least 2, got 1");
    fails(&["--coordinator", "here"], &[], "--coordinator here requires --hosts and --host");
    fails(&["--hosts", "2", "--host", "0", "--coordinator", "etcd://x"], &[], "requires a directory, etcd://host:port");
    fails(&[], &[("SLURM_PROCID", "1"), ("SLURM_NTASKS", "3")], "host 1 of 3");
    fails(&[], &[("SLURM_PROCID", "1"), ("SLURM_NTASKS", "three")], "SLURM_NTASKS requires a number, got \"three\"");
    // Options override Slurm's variables, and a batch script outside srun is a single host.
    fails(&["--hosts", "4", "--host", "3"], &[("SLURM_PROCID", "1"), ("SLURM_NTASKS", "8")], "host 3 of 4");
    // A single host does not wait, and reports the broken plugin.
    let alone = ["--platform", "./text.txt"];
    fails(&alone, &[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "1")], "text.txt cannot be opened");
    fails(&alone, &[("SLURM_JOB_ID", "7"), ("SLURM_NTASKS", "8")], "text.txt cannot be opened");
}

#[test]
fn rows_of_all_hosts_equal_the_batch_of_a_single_host() {
    let workshop = Workshop::new();
    // 256 has the powers of two as divisors, 240 also 3, 5, 15, 48, 60 …; in phase 2 the sequences are longer.
    for batch in [256, 240] {
        let source = source(&workshop, batch);
        // The last steps reach into further epochs of this small corpus.
        for step in [0, 5, source.schedule.steps() - 1] {
            let whole = source.batch(step, ReplicaRange::SINGLE).unwrap().tensors;
            for hosts in (1..=256).filter(|hosts| batch % hosts == 0) {
                let mut joined: Vec<Vec<u8>> = vec![Vec::new(); whole.len()];
                for host in 0..hosts {
                    let share = ReplicaRange { first: host, count: 1, of: hosts };
                    let part = source.batch(step, share).unwrap();
                    assert_eq!(part.rows, batch / hosts);
                    for (all, (_, tensor)) in joined.iter_mut().zip(&part.tensors) {
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
