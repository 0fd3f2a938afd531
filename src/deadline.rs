//! A time limit for a loop that polls until something happens.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Pauses between two polls grow from the first to the longest: processes mostly start together, and a person must not
/// notice the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// A point in time after which a loop gives up, with the pauses between its attempts.
#[derive(Debug)]
pub struct Deadline {
    /// None if it is beyond the range of the clock.
    end: Option<Instant>,
    pause: Duration,
}

impl Deadline {
    /// Returns the deadline that lies `timeout` after now.
    pub fn after(timeout: Duration) -> Deadline {
        Deadline { end: Instant::now().checked_add(timeout), pause: FIRST_PAUSE }
    }

    /// Returns the time that is left.
    pub fn remaining(&self) -> Duration {
        self.end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()))
    }

    /// Returns whether no time is left.
    pub fn is_over(&self) -> bool {
        self.remaining().is_zero()
    }

    /// Sleeps for one pause, or for the remaining time if that is shorter; returns false if no time was left.
    pub fn sleep(&mut self) -> bool {
        let remaining = self.remaining();
        if remaining.is_zero() {
            return false;
        }
        sleep(self.pause.min(remaining));
        self.pause = (self.pause * 3 / 2).min(LONGEST_PAUSE);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadline_expires_after_its_timeout() {
        let (begin, timeout) = (Instant::now(), Duration::from_millis(20));
        let mut deadline = Deadline::after(timeout);
        while deadline.sleep() {}
        assert!(begin.elapsed() >= timeout && deadline.is_over());
        assert!(!Deadline::after(Duration::MAX).is_over(), "a timeout beyond the clock never ends");
    }
}
