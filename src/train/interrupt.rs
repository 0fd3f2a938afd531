//! Ctrl-C and SIGTERM. The first asks: the loop finishes its step, saves and leaves. The second takes: the process ends
//! at once, and what was saved before is what there is.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::output::note;

/// Exit code of an interrupted run, as shells give it for SIGINT.
pub const INTERRUPTED: u8 = 130;

/// Signals seen so far. A process has one set of signal handlers, so there is one counter.
static SEEN: AtomicU32 = AtomicU32::new(0);

/// Proof that the handler is in place, and the way to ask whether it was called.
#[derive(Clone, Copy, Debug)]
pub struct Interrupt(());

impl Interrupt {
    /// Listens to SIGINT, SIGTERM and SIGHUP from now on. May be called many times; the handler is installed once.
    ///
    /// # Errors
    /// If another part of the process holds the handlers.
    pub fn listen() -> anyhow::Result<Interrupt> {
        static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
        INSTALLED
            .get_or_init(|| ctrlc::set_handler(on_signal).map_err(|error| error.to_string()))
            .clone()
            .map(|()| Interrupt(()))
            .map_err(|error| anyhow::anyhow!("cannot listen for Ctrl-C: {error}"))
    }

    /// True once a signal has come.
    pub fn asked(self) -> bool {
        SEEN.load(Ordering::Relaxed) > 0
    }
}

fn on_signal() {
    if SEEN.fetch_add(1, Ordering::Relaxed) == 0 {
        note(format_args!("\ninterrupted: finishing this step and saving; once more to quit at once without saving"));
    } else {
        note(
            "stopped at once, without saving; the checkpoints from before are whole, and --resume goes on from the newest",
        );
        std::process::exit(i32::from(INTERRUPTED));
    }
}
