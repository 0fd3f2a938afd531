//! Progress through bytes of input: a bar with rate and time left on a terminal, a line now and then anywhere else.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use super::note;

const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// The display of one stage; it may be told from any thread.
pub struct ByteProgress {
    bar: ProgressBar,
    label: &'static str,
    started: Instant,
    last_line: Mutex<Instant>,
}

impl ByteProgress {
    pub fn new(label: &'static str, total: u64) -> Self {
        let form = "{prefix:<12} {bar:32} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
        let style = ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(total).with_style(style).with_prefix(label);
        ByteProgress { bar, label, started: Instant::now(), last_line: Mutex::new(Instant::now()) }
    }

    pub fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
        if !self.bar.is_hidden() {
            return;
        }
        let Ok(mut last_line) = self.last_line.try_lock() else { return };
        if last_line.elapsed() > PLAIN_INTERVAL {
            *last_line = Instant::now();
            let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
            let seconds = self.started.elapsed().as_secs_f64();
            let left = seconds * total.saturating_sub(done) as f64 / done.max(1) as f64;
            let rate = HumanBytes((done as f64 / seconds) as u64);
            note(format_args!(
                "{}: {} of {}, {rate}/s, {left:.0} s left",
                self.label,
                HumanBytes(done),
                HumanBytes(total)
            ));
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
