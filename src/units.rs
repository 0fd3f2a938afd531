//! Human-readable numbers: a few digits and a unit. All output of bytes and durations uses these functions.

use std::time::Duration;

/// Formats a number with separators: `461,242,368`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a number of things with their noun, whose plural ends in `s`: `1 step`, `8,599 steps`.
pub fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(n), if n == 1 { "" } else { "s" })
}

/// Formats a number of bytes in decimal units: `4.04 GB`, `64.0 MB`, `1.5 kB`, `812 B`.
pub fn byte_size(bytes: f64) -> String {
    match bytes {
        b if b >= 1e12 => format!("{:.2} TB", b / 1e12),
        b if b >= 1e9 => format!("{:.2} GB", b / 1e9),
        b if b >= 1e6 => format!("{:.1} MB", b / 1e6),
        b if b >= 1e3 => format!("{:.1} kB", b / 1e3),
        b => format!("{b:.0} B"),
    }
}

/// Formats a number with three digits and a unit: `812`, `6.71k`, `1.02M`.
pub fn quantity(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        v if v >= 1e12 => (value / 1e12, "T"),
        v if v >= 1e9 => (value / 1e9, "G"),
        v if v >= 1e6 => (value / 1e6, "M"),
        v if v >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    match scaled.abs() {
        v if v >= 100.0 => format!("{scaled:.0}{unit}"),
        v if v >= 10.0 => format!("{scaled:.1}{unit}"),
        _ => format!("{scaled:.2}{unit}"),
    }
}

/// Formats a duration: `3.2 s`, `48 s`, `3 min 20 s`, `5 h 02 min`, `3 d 04 h`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round();
    if seconds < 10.0 {
        return format!("{:.1} s", duration.as_secs_f64());
    }
    match seconds as u64 {
        s if s < 60 => format!("{s} s"),
        s if s < 3600 => format!("{} min {:02} s", s / 60, s % 60),
        s if s < 86_400 => format!("{} h {:02} min", s / 3600, s % 3600 / 60),
        s => format!("{} d {:02} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// Formats the time of a step or of a part of it in seconds, with at least three digits: `1.571 ms`, `2.340 s`.
pub fn step_time(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{:.3} ms", 1e3 * s),
        s if s < 100.0 => format!("{s:.3} s"),
        // Estimates may exceed every duration.
        s => duration(Duration::try_from_secs_f64(s).unwrap_or(Duration::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_has_a_singular() {
        assert_eq!([0, 1, 2, 8_599].map(|n| counted(n, "step")), ["0 steps", "1 step", "2 steps", "8,599 steps"]);
    }

    #[test]
    fn numbers_have_few_digits_and_a_unit() {
        let quantities = [812.4, 6_712.0, 52.06, 0.7123, 1.0204e6, 989e12].map(quantity);
        assert_eq!(quantities, ["812", "6.71k", "52.1", "0.71", "1.02M", "989T"]);
        let sizes = [0.0, 812.0, 1_500.0, 64e6, 4.04e9, 1.5e12].map(byte_size);
        assert_eq!(sizes, ["0 B", "812 B", "1.5 kB", "64.0 MB", "4.04 GB", "1.50 TB"]);
        let durations = [3.21, 48.0, 200.0, 18_120.0, 273_600.0].map(|s| duration(Duration::from_secs_f64(s)));
        assert_eq!(durations, ["3.2 s", "48 s", "3 min 20 s", "5 h 02 min", "3 d 04 h"]);
        let steps = [0.001_571, 2.34, 200.0].map(step_time);
        assert_eq!(steps, ["1.571 ms", "2.340 s", "3 min 20 s"]);
        assert!(step_time(1e300).ends_with(" h"));
    }
}
