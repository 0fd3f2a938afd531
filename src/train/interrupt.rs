//! Requests to the training loop: signals and the time limit. After Ctrl-C or SIGTERM the loop finishes its step, saves and ends;
//! the second such signal ends the process immediately, without saving. After SIGUSR1 the loop saves and continues.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Instant;

use crate::output::note;

/// The exit code of an interrupted run, which is the shells' code for SIGINT.
pub const INTERRUPTED: u8 = 130;

/// The exit code of a run that reached its time limit: EX_TEMPFAIL of sysexits.h, which asks to try again later.
pub const TIME_LIMIT: u8 = 75;

/// The number of received signals that end the run. A process has one set of signal handlers, so there is one counter.
static RECEIVED: AtomicU32 = AtomicU32::new(0);

/// A signal that asks for a checkpoint was received.
static SAVE: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// A request to the training loop, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Request {
    /// Train the next step.
    #[default]
    Continue,
    /// Save and continue.
    Save,
    /// Save and end, because the time is over.
    TimeLimit,
    /// Save and end.
    Interrupt,
}

impl Request {
    /// Returns the request with the number `vote` in the order of this type; a greater number is the strongest one.
    pub fn of_vote(vote: u32) -> Request {
        [Request::Continue, Request::Save, Request::TimeLimit].get(vote as usize).copied().unwrap_or(Request::Interrupt)
    }

    /// Returns whether the run is to end.
    pub fn ends(self) -> bool {
        self >= Request::TimeLimit
    }
}

/// The installed signal handlers, and the time limit.
#[derive(Clone, Copy, Debug)]
pub struct Interrupt {
    deadline: Option<Instant>,
}

impl Interrupt {
    /// Handles SIGINT, SIGTERM, SIGHUP and SIGUSR1 from now on. It may be called many times; the handlers are installed once.
    /// The run ends after `deadline`.
    ///
    /// # Errors
    /// If another part of the process has installed handlers.
    pub fn install(deadline: Option<Instant>) -> anyhow::Result<Interrupt> {
        static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
        let install = || {
            ctrlc::set_handler(on_signal).map_err(|error| error.to_string())?;
            #[cfg(unix)]
            signal_hook::flag::register(signal_hook::consts::SIGUSR1, SAVE.clone())
                .map_err(|error| error.to_string())?;
            Ok(())
        };
        INSTALLED
            .get_or_init(install)
            .clone()
            .map(|()| Interrupt { deadline })
            .map_err(|error| anyhow::anyhow!("cannot install the handlers of signals: {error}"))
    }

    /// Asks for the end of the run when standard input is closed, as the end of a parent process does that holds the other end of
    /// its pipe.
    ///
    /// # Errors
    /// If the system refuses the thread that reads it.
    pub fn end_with_input() -> std::io::Result<()> {
        let wait = || {
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            RECEIVED.fetch_max(1, Ordering::Relaxed);
        };
        std::thread::Builder::new().name("input".to_owned()).spawn(wait).map(drop)
    }

    /// Returns the strongest request. One to save is returned once.
    pub fn request(self) -> Request {
        let save = SAVE.swap(false, Ordering::Relaxed);
        if RECEIVED.load(Ordering::Relaxed) > 0 {
            Request::Interrupt
        } else if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            Request::TimeLimit
        } else if save {
            Request::Save
        } else {
            Request::Continue
        }
    }
}

fn on_signal() {
    if RECEIVED.fetch_add(1, Ordering::Relaxed) == 0 {
        note(format_args!(
            "\ninterrupted: finishing this step and saving; interrupt again to stop at once without saving"
        ));
    } else {
        note(
            "stopped at once, without saving; earlier checkpoints are complete, and the run can be resumed from the newest",
        );
        std::process::exit(i32::from(INTERRUPTED));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_strongest_request_of_all_hosts_is_the_result_of_their_vote() {
        let all = [Request::Continue, Request::Save, Request::TimeLimit, Request::Interrupt];
        assert!(all.is_sorted());
        for request in all {
            assert_eq!(Request::of_vote(request as u32), request);
            assert_eq!(request.ends(), [Request::TimeLimit, Request::Interrupt].contains(&request));
        }
    }

    #[test]
    fn a_time_limit_is_requested_from_its_deadline_on() {
        let now = Instant::now();
        assert_eq!(Interrupt { deadline: Some(now) }.request(), Request::TimeLimit);
        assert_eq!(Interrupt { deadline: Some(now + Duration::from_secs(3600)) }.request(), Request::Continue);
        assert_eq!(Interrupt { deadline: None }.request(), Request::Continue);
    }
}
