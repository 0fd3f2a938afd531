//! Plots as inline SVG, coloured by the page's style sheet, with a tooltip on every mark.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 220.0;
/// Margins for the labels.
const LEFT: f64 = 56.0;
const BELOW: f64 = 34.0;
const ABOVE: f64 = 10.0;
const RIGHT: f64 = 14.0;
/// Maximum number of labels on the horizontal axis.
const MAX_LABELS: usize = 12;

/// One bar of a bar chart.
pub struct Column {
    /// The label below the bar.
    pub label: String,
    /// The height of the bar in the unit of the axis.
    pub value: f64,
    /// The text shown when the pointer is over the bar.
    pub tooltip: String,
}

/// The unit of the vertical axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A whole number of items.
    Count,
    /// A share of 1, shown in percent.
    Share,
}

impl Unit {
    /// Returns a round step of at least `least` between the labels of the axis.
    fn step(self, least: f64) -> f64 {
        match self {
            Unit::Count => round_step(least).max(1.0),
            Unit::Share => round_step(least),
        }
    }

    /// Formats a value on the axis: `1.5 k`, `0.5 %`.
    fn label(self, value: f64) -> String {
        match (self, value) {
            (Unit::Share, share) => format!("{} %", (1e6 * share).round() / 1e4),
            (_, v) if v >= 1e9 => format!("{:.3} G", v / 1e9),
            (_, v) if v >= 1e6 => format!("{:.3} M", v / 1e6),
            (_, v) if v >= 1e4 => format!("{:.1} k", v / 1e3),
            (_, v) => format!("{v:.0}"),
        }
    }
}

/// Draws a bar chart.
pub fn bars(columns: &[Column], caption: &str, unit: Unit) -> String {
    let most = columns.iter().map(|column| column.value).fold(0.0, f64::max);
    let mut plot = Plot::new(caption, most, unit);
    let step = plot.inner_width() / columns.len().max(1) as f64;
    let every = columns.len().div_ceil(MAX_LABELS).max(1);
    for (i, Column { label, value, tooltip }) in columns.iter().enumerate() {
        let (x, y) = (LEFT + i as f64 * step, plot.y(*value));
        plot.body += &format!(
            r#"<rect x="{:.1}" y="{y:.1}" width="{:.1}" height="{:.1}"><title>{}</title></rect>"#,
            x + 0.1 * step,
            0.8 * step,
            (HEIGHT - BELOW - y).max(0.0),
            escape(tooltip)
        );
        if i % every == 0 {
            plot.label(x + 0.5 * step, label);
        }
    }
    plot.finish()
}

/// Draws a curve over a logarithmic axis through `points` (x ≥ 1, ascending; y from 0 to 1, shown in percent).
pub fn share_curve(points: &[(f64, f64)], caption: &str) -> String {
    let mut plot = Plot::new(caption, 1.0, Unit::Share);
    let last = points.last().map_or(1.0, |point| point.0.ln()).max(f64::MIN_POSITIVE);
    let width = plot.inner_width();
    let at = |x: f64| LEFT + width * x.ln() / last;
    let path: Vec<String> = points.iter().map(|&(x, y)| format!("{:.1},{:.1}", at(x), plot.y(y))).collect();
    plot.body += &format!(r#"<polyline points="{}"/>"#, path.join(" "));
    for &(x, y) in points {
        let tooltip = format!("{x:.0} most frequent tokens of the vocabulary: {:.2} % of the text", 100.0 * y);
        let (x, y) = (at(x), plot.y(y));
        plot.body += &format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="3"><title>{tooltip}</title></circle>"#);
    }
    let powers = (0..).map(|power| 10f64.powi(power)).take_while(|&x| x.ln() <= last);
    powers.for_each(|x| plot.label(at(x), &format!("{x:.0}")));
    plot.finish()
}

/// Returns the smallest of 1, 2 or 5 times a power of ten that is at least `step`; 1 if `step` is not positive.
fn round_step(step: f64) -> f64 {
    if step <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= step).unwrap_or(10.0);
    factor * power
}

/// Escapes text for HTML.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            _ => escaped.push(c),
        }
    }
    escaped
}

/// A plot in progress, with a vertical axis from 0 to at least `most` in round steps.
struct Plot {
    most: f64,
    body: String,
}

impl Plot {
    fn new(caption: &str, most: f64, unit: Unit) -> Plot {
        let step = unit.step(most / 4.0);
        let steps = (most / step).ceil().max(1.0);
        let mut plot = Plot { most: steps * step, body: String::new() };
        let _ = write!(
            plot.body,
            r#"<figure><figcaption>{}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">"#,
            escape(caption)
        );
        for i in 0..=steps as usize {
            let value = i as f64 * step;
            let y = plot.y(value);
            let _ = write!(
                plot.body,
                r#"<line x1="{LEFT}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}"/><text class="y" x="{:.1}" y="{:.1}">{}</text>"#,
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0,
                escape(&unit.label(value))
            );
        }
        plot
    }

    fn inner_width(&self) -> f64 {
        WIDTH - LEFT - RIGHT
    }

    fn y(&self, value: f64) -> f64 {
        let inner = HEIGHT - BELOW - ABOVE;
        ABOVE + inner * (1.0 - value / self.most)
    }

    /// Adds a label below the horizontal axis.
    fn label(&mut self, x: f64, text: &str) {
        let _ =
            write!(self.body, r#"<text class="x" x="{x:.1}" y="{:.1}">{}</text>"#, HEIGHT - BELOW + 18.0, escape(text));
    }

    fn finish(self) -> String {
        self.body + "</svg></figure>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_steps() {
        assert_eq!([0.0, 1.0, 1.1, 30.0, 0.04].map(round_step), [1.0, 1.0, 2.0, 50.0, 0.05]);
    }

    #[test]
    fn axis_labels_are_distinct() {
        let values = [1e-4, 0.003, 0.07, 0.15, 0.9, 1.0, 2.0, 3.0, 7.0, 40.0, 9_000.0, 12_345.0, 3e6, 7e9];
        for (most, unit) in values.into_iter().flat_map(|most| [(most, Unit::Count), (most, Unit::Share)]) {
            let plot = Plot::new("caption", most, unit).finish();
            let labels = plot.split("class=\"y\"").skip(1).map(|text| text.split(['>', '<']).nth(1).unwrap());
            let labels: Vec<&str> = labels.collect();
            let distinct: std::collections::BTreeSet<&&str> = labels.iter().collect();
            assert!(labels.len() >= 2 && distinct.len() == labels.len(), "{most} {unit:?}: {labels:?}");
        }
    }

    #[test]
    fn bar_heights_are_proportional_to_values() {
        let column = |value: f64| Column { label: "<a>".into(), value, tooltip: "a & b".into() };
        let svg = bars(&[column(4.0), column(1.0)], "caption", Unit::Count);
        let heights: Vec<f64> = svg
            .split("<rect ")
            .skip(1)
            .map(|mark| mark.split("height=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            .collect();
        // The axis ends at 4, in steps of 1.
        let full = HEIGHT - BELOW - ABOVE;
        assert_eq!(heights, [full, full / 4.0]);
        assert!(svg.contains("&lt;a&gt;") && svg.contains("a &amp; b"));
    }
}
