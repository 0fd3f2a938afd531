//! Handles Ctrl-C and SIGTERM. After the first signal the training loop finishes its step, saves and ends. The second signal
//! ends the process immediately, without saving.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::output::note;

/// The exit code of an interrupted run, which is the shells' code for SIGINT.
pub const INTERRUPTED: u8 = 130;

/// The number of received signals. A process has one set of signal handlers, so there is one counter.
static RECEIVED: AtomicU32 = AtomicU32::new(0);

/// The installed signal handler; it reports whether a signal was received.
#[derive(Clone, Copy, Debug)]
pub struct Interrupt(());

impl Interrupt {
    /// Handles SIGINT, SIGTERM and SIGHUP from now on. It may be called many times; the handler is installed once.
    ///
    /// # Errors
    /// If another part of the process has installed handlers.
    pub fn install() -> anyhow::Result<Interrupt> {
        static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
        INSTALLED
            .get_or_init(|| ctrlc::set_handler(on_signal).map_err(|error| error.to_string()))
            .clone()
            .map(|()| Interrupt(()))
            .map_err(|error| anyhow::anyhow!("cannot install the handler for Ctrl-C: {error}"))
    }

    /// Returns whether a signal was received.
    pub fn is_requested(self) -> bool {
        RECEIVED.load(Ordering::Relaxed) > 0
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
