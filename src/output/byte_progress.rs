//! Progress through a known amount of data: on a terminal a bar with rate and time left, elsewhere a line at intervals.

use std::fmt::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::{note, shows_bars};
use crate::units::{byte_size, duration, quantity};

const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// The progress of one stage; any thread may add to it.
pub struct ByteProgress {
    bar: ProgressBar,
    label: &'static str,
    amount: fn(f64) -> String,
    started: Instant,
    last_line: Mutex<Instant>,
}

impl ByteProgress {
    /// Returns the progress through `total` bytes.
    pub fn new(label: &'static str, total: u64) -> Self {
        ByteProgress::with_unit(label, total, byte_size)
    }

    /// Returns the progress through `total` tokens.
    pub fn of_tokens(label: &'static str, total: u64) -> Self {
        ByteProgress::with_unit(label, total, |tokens| format!("{} tokens", quantity(tokens)))
    }

    /// Runs `work` with a display of its progress through `total` bytes.
    pub fn during<T>(label: &'static str, total: u64, work: impl FnOnce(&(dyn Fn(u64) + Sync)) -> T) -> T {
        let progress = ByteProgress::new(label, total);
        let result = work(&|bytes| progress.add(bytes));
        progress.finish();
        result
    }

    fn with_unit(label: &'static str, total: u64, amount: fn(f64) -> String) -> Self {
        let form = "{prefix:<12} {bar:32} {done} of {total}, {rate}/s, {left} left";
        let style = ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar());
        let style = style
            .with_key("done", move |state: &ProgressState, w: &mut dyn Write| show(w, &amount(state.pos() as f64)))
            .with_key("total", move |_: &ProgressState, w: &mut dyn Write| show(w, &amount(total as f64)))
            .with_key("rate", move |state: &ProgressState, w: &mut dyn Write| show(w, &amount(state.per_sec())))
            .with_key("left", |state: &ProgressState, w: &mut dyn Write| show(w, &duration(state.eta())));
        let target = if shows_bars() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target).with_style(style).with_prefix(label);
        ByteProgress { bar, label, amount, started: Instant::now(), last_line: Mutex::new(Instant::now()) }
    }

    /// Adds `amount` to what is done.
    pub fn add(&self, amount: u64) {
        self.bar.inc(amount);
        if !self.bar.is_hidden() {
            return;
        }
        let Ok(mut last_line) = self.last_line.try_lock() else { return };
        if last_line.elapsed() > LINE_INTERVAL {
            *last_line = Instant::now();
            let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
            let seconds = self.started.elapsed().as_secs_f64();
            let left = seconds * total.saturating_sub(done) as f64 / done.max(1) as f64;
            note(format_args!(
                "{}: {} of {}, {}/s, {} left",
                self.label,
                (self.amount)(done as f64),
                (self.amount)(total as f64),
                (self.amount)(done as f64 / seconds),
                duration(Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX)),
            ));
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Writes a field of the bar; the bar's buffer accepts every write.
fn show(buffer: &mut dyn Write, text: &str) {
    let _ = buffer.write_str(text);
}
