//! Plots as inline SVG: lines, bars and heat maps.
//!
//! Text and axes have the colour of the page's text, so one plot fits a light and a dark page. A plot is drawn 440 units wide and
//! scaled by the page; pages show several beside each other instead of wider ones, so labels stay readable on narrow screens.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;

use super::html::escape;

/// The size of a plot in its own units.
const WIDTH: u32 = 440;
const HEIGHT: u32 = 250;
/// The height of a row of a heat map, and that of what is around the rows.
const ROW: u32 = 15;
const AROUND_ROWS: u32 = 60;
/// The colour of text and axes, replaced by that of the page.
const INK: RGBColor = RGBColor(1, 2, 3);
/// Colours of series, told apart with most kinds of colour blindness, on light and on dark pages (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(140, 140, 140),
];
/// The index of the colour of text, for what belongs to no series.
pub const NEUTRAL: usize = usize::MAX;
/// Points of a curve at most; more are averaged.
const MAX_POINTS: usize = 240;
/// Labels of an axis at most.
const MAX_LABELS: usize = 6;

/// The numbers on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Proportional; the axis need not begin at zero.
    Linear,
    /// Proportional; the axis begins at zero.
    FromZero,
    /// Logarithmic; values that are not positive are left out.
    Log,
}

/// The unit of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Any number.
    Number,
    /// A share of 1, shown in percent.
    Share,
}

/// An axis of a plot.
#[derive(Clone, Copy, Debug)]
pub struct Axis<'a> {
    /// The text beside the axis; empty for none.
    pub label: &'a str,
    /// The scale.
    pub scale: Scale,
    /// The unit.
    pub unit: Unit,
}

/// The form of a series of points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A line, with the range of the values that each of its points averages as a band.
    Line,
    /// A line with a mark at every point.
    Marked,
    /// A dashed line, as of a baseline.
    Dashed,
}

/// Points of one kind, in the order of x.
#[derive(Clone, Debug)]
pub struct Series {
    /// x and y.
    pub points: Vec<(f64, f64)>,
    /// The number of the colour, from 0; they repeat. [`NEUTRAL`] is that of text.
    pub colour: usize,
    /// The style.
    pub style: Style,
}

/// A bar of a bar chart.
pub struct Bar {
    /// The label below the bar.
    pub label: String,
    /// The height.
    pub value: f64,
    /// The text shown when the pointer is over the bar.
    pub tooltip: String,
}

/// Rows of values over the steps of a run.
pub struct HeatMap<'a> {
    /// The name of each row, from top to bottom.
    pub rows: &'a [String],
    /// x of each column, ascending.
    pub columns: &'a [f64],
    /// `values[row][column]`; positive, shown on a logarithmic scale. Others are left out.
    pub values: &'a [Vec<f64>],
}

/// Draws a curve for each series; an empty text if none has a point.
///
/// # Errors
/// If the plot cannot be drawn.
pub fn lines(caption: &str, x: Axis<'_>, y: Axis<'_>, series: &[Series]) -> anyhow::Result<String> {
    let drawn: Vec<(&Series, Vec<Point>)> = series
        .iter()
        .map(|series| (series, averaged(&scaled(&series.points, x.scale, y.scale))))
        .filter(|(_, points)| !points.is_empty())
        .collect();
    let all = || drawn.iter().flat_map(|(_, points)| points);
    let (Some(across), Some(up)) = (extent(all().map(|p| p.x)), extent(all().flat_map(|p| [p.low, p.high]))) else {
        return Ok(String::new());
    };
    let plot = Plot { x: Ticks::new(across, x), y: Ticks::new(up, y) };
    let marked = drawn.iter().filter(|(series, _)| series.style == Style::Marked);
    let tooltip = |p: &Point| format!("{} {}: {}", x.label, number(p.x, x), number(p.mean, y)).trim().to_owned();
    let tooltips: Vec<String> = marked.flat_map(|(_, points)| points.iter().map(tooltip)).collect();
    figure(caption, HEIGHT, "<circle", &tooltips, |area| {
        plot.draw(area, (x, y), |chart| {
            for (series, points) in &drawn {
                let colour = colour_of(series.colour);
                let line: Vec<(f64, f64)> = points.iter().map(|p| (p.x, p.mean)).collect();
                if series.style == Style::Line && points.iter().any(|p| p.high > p.low) {
                    let above = points.iter().map(|p| (p.x, p.high));
                    let below = points.iter().rev().map(|p| (p.x, p.low));
                    let band: Vec<(f64, f64)> = above.chain(below).collect();
                    chart.draw_series(std::iter::once(Polygon::new(band, colour.mix(0.2))))?;
                }
                match series.style {
                    Style::Dashed => {
                        chart.draw_series(DashedLineSeries::new(line, 5, 4, colour.stroke_width(2)))?;
                    }
                    Style::Line => {
                        chart.draw_series(LineSeries::new(line, colour.stroke_width(2)))?;
                    }
                    Style::Marked => {
                        chart.draw_series(LineSeries::new(line.clone(), colour.stroke_width(2)))?;
                        chart.draw_series(line.into_iter().map(|at| Circle::new(at, 3, colour.filled())))?;
                    }
                }
            }
            Ok(())
        })
    })
}

/// Draws a bar chart.
///
/// # Errors
/// If the plot cannot be drawn.
pub fn bars(caption: &str, unit: Unit, bars: &[Bar]) -> anyhow::Result<String> {
    let highest = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let y = Axis { label: "", scale: Scale::FromZero, unit };
    let every = bars.len().div_ceil(2 * MAX_LABELS).max(1);
    let centres = (0..bars.len()).step_by(every).map(|i| i as f64 + 0.5).collect();
    let x = Ticks { range: 0.0..bars.len().max(1) as f64, at: centres };
    let plot = Plot { x, y: Ticks::new(0.0..highest, y) };
    let label = |at: &f64| bars.get(*at as usize).map_or(String::new(), |bar| bar.label.clone());
    let tooltips: Vec<String> = bars.iter().map(|bar| bar.tooltip.clone()).collect();
    figure(caption, HEIGHT, "<rect", &tooltips, |area| {
        plot.draw_with(area, ("", ""), &label, &|v| number(*v, y), |chart| {
            let rectangle = |(i, bar): (usize, &Bar)| {
                let left = i as f64;
                Rectangle::new([(left + 0.1, 0.0), (left + 0.9, bar.value)], COLOURS[0].filled())
            };
            chart.draw_series(bars.iter().enumerate().map(rectangle))?;
            Ok(())
        })
    })
}

/// Draws a heat map with its scale in the caption; an empty text if no value is positive.
///
/// # Errors
/// If the plot cannot be drawn.
pub fn heat_map(caption: &str, x: Axis<'_>, map: &HeatMap<'_>) -> anyhow::Result<String> {
    let positive = || map.values.iter().flatten().copied().filter(|value| *value > 0.0 && value.is_finite());
    let (Some(range), Some(&first), Some(&last)) =
        (extent(positive().map(f64::log10)), map.columns.first(), map.columns.last())
    else {
        return Ok(String::new());
    };
    // A column reaches to the next one, and the last one is as wide as the one before it.
    let width = if map.columns.len() > 1 { last - map.columns[map.columns.len() - 2] } else { 1.0 };
    let end = |column: usize| map.columns.get(column + 1).copied().unwrap_or(last + width);
    let rows = map.rows.len();
    let centres = (0..rows).map(|row| row as f64 + 0.5).collect();
    let across = Ticks::new(first..last + width, x);
    let plot = Plot {
        x: Ticks { range: first..last + width, at: across.at },
        y: Ticks { range: 0.0..rows as f64, at: centres },
    };
    // Rows are counted from the bottom.
    let name = |at: &f64| map.rows.get((rows - 1).saturating_sub(*at as usize)).cloned().unwrap_or_default();
    let [low, high] = [range.start, range.end].map(|exponent| short(10f64.powf(exponent)));
    let caption = format!("{caption} (dark: {low}, light: {high})");
    let cells = map.values.iter().enumerate().flat_map(|(row, values)| {
        let cells = values.iter().enumerate().map(move |(column, &value)| (row, column, value));
        cells.filter(|(.., value)| *value > 0.0 && value.is_finite())
    });
    let cells: Vec<(usize, usize, f64)> = cells.collect();
    let tooltip = |&(row, column, value): &(usize, usize, f64)| {
        format!("{}, {} {}: {}", map.rows[row], x.label, number(map.columns[column], x), short(value))
    };
    let tooltips: Vec<String> = cells.iter().map(tooltip).collect();
    figure(&caption, AROUND_ROWS + ROW * rows as u32, "<rect", &tooltips, |area| {
        plot.draw_with(area, (x.label, ""), &|v| number(*v, x), &name, |chart| {
            let cell = |&(row, column, value): &(usize, usize, f64)| {
                let share = (value.log10() - range.start) / (range.end - range.start);
                let bottom = (rows - 1 - row) as f64;
                let corners = [(map.columns[column], bottom), (end(column), bottom + 1.0)];
                Rectangle::new(corners, ViridisRGB.get_color(share).filled())
            };
            chart.draw_series(cells.iter().map(cell))?;
            Ok(())
        })
    })
}

fn colour_of(number: usize) -> RGBColor {
    if number == NEUTRAL { INK } else { COLOURS[number % COLOURS.len()] }
}

/// Draws a short piece of a series in the colour with this number, for a key.
pub fn swatch(colour: usize, style: Style) -> String {
    let RGBColor(red, green, blue) = colour_of(colour);
    let colour = if colour == NEUTRAL { "currentColor".to_owned() } else { format!("#{red:02x}{green:02x}{blue:02x}") };
    let dashes = if style == Style::Dashed { " stroke-dasharray=\"5 4\"" } else { "" };
    let mark = if style == Style::Marked {
        format!("<circle cx=\"12\" cy=\"5\" r=\"4\" fill=\"{colour}\"/>")
    } else {
        String::new()
    };
    format!(
        "<svg viewBox=\"0 0 24 10\"><line x1=\"0\" x2=\"24\" y1=\"5\" y2=\"5\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>{mark}</svg>"
    )
}

/// One point of a curve: the mean of some values, and their range.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    x: f64,
    mean: f64,
    low: f64,
    high: f64,
}

/// Converts points to the coordinates of the plot, which are decimal logarithms on a logarithmic axis.
fn scaled(points: &[(f64, f64)], x: Scale, y: Scale) -> Vec<(f64, f64)> {
    let convert = |value: f64, scale: Scale| if scale == Scale::Log { value.log10() } else { value };
    let points = points.iter().map(|&(at, value)| (convert(at, x), convert(value, y)));
    points.filter(|(at, value)| at.is_finite() && value.is_finite()).collect()
}

/// Averages neighbours, so that at most [`MAX_POINTS`] remain.
fn averaged(points: &[(f64, f64)]) -> Vec<Point> {
    let size = points.len().div_ceil(MAX_POINTS).max(1);
    let average = |values: &[(f64, f64)]| {
        let count = values.len() as f64;
        let [x, mean] =
            [values.iter().map(|v| v.0).sum::<f64>() / count, values.iter().map(|v| v.1).sum::<f64>() / count];
        let low = values.iter().map(|v| v.1).fold(f64::INFINITY, f64::min);
        let high = values.iter().map(|v| v.1).fold(f64::NEG_INFINITY, f64::max);
        Point { x, mean, low, high }
    };
    points.chunks(size).map(average).collect()
}

/// Returns the range of `values`, widened if it is empty; none without a value.
fn extent(values: impl Iterator<Item = f64>) -> Option<Range<f64>> {
    let range = values.fold(None, |range: Option<(f64, f64)>, value| {
        Some(range.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
    });
    let (low, high) = range?;
    let margin = if high > low { 0.0 } else { (0.05 * low.abs()).max(1e-9) };
    Some(low - margin..high + margin)
}

/// The range of an axis in the plot's coordinates, and where its labels are.
#[derive(Clone, Debug)]
struct Ticks {
    range: Range<f64>,
    at: Vec<f64>,
}

impl Ticks {
    /// Returns round labels for `range`, and the range widened to contain the bounds that the scale requires.
    fn new(range: Range<f64>, axis: Axis<'_>) -> Ticks {
        match axis.scale {
            Scale::Log => Ticks { at: logarithmic_ticks(&range), range },
            Scale::Linear => Ticks { at: linear_ticks(&range), range },
            Scale::FromZero => {
                let step = round_step(range.end.max(f64::MIN_POSITIVE) / 4.0);
                let range = 0.0..step * (range.end / step).ceil().max(1.0);
                Ticks { at: linear_ticks(&range), range }
            }
        }
    }
}

impl Ranged for Ticks {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (first, last): (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        first + (share * f64::from(last - first)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.at.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

/// Returns the multiples of a round step in `range`.
fn linear_ticks(range: &Range<f64>) -> Vec<f64> {
    let step = round_step((range.end - range.start) / (MAX_LABELS - 1) as f64);
    let (first, last) = ((range.start / step - 1e-9).ceil() as i64, (range.end / step + 1e-9).floor() as i64);
    (first..=last).map(|i| i as f64 * step).collect()
}

/// Returns decimal logarithms of round numbers in `range`: powers of ten, every other or more of them if there are many, with two and
/// five times each if there are few.
fn logarithmic_ticks(range: &Range<f64>) -> Vec<f64> {
    let decades = range.end - range.start;
    let inside = |at: &f64| *at >= range.start - 1e-9 && *at <= range.end + 1e-9;
    let powers = range.start.floor() as i64..=range.end.ceil() as i64;
    let factors: &[f64] = if decades < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let every = (decades / MAX_LABELS as f64).ceil().max(1.0) as i64;
    let of_power = |power: i64| factors.iter().map(move |factor: &f64| power as f64 + factor.log10());
    let ticks: Vec<f64> =
        powers.filter(|power| power.rem_euclid(every) == 0).flat_map(of_power).filter(inside).collect();
    // Less than a factor of two has no such number: label the ends.
    if ticks.len() < 2 { vec![range.start, range.end] } else { ticks }
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

/// Formats the label of an axis at the coordinate `at`.
fn number(at: f64, axis: Axis<'_>) -> String {
    let value = if axis.scale == Scale::Log { 10f64.powf(at) } else { at };
    match axis.unit {
        Unit::Number => short(value),
        Unit::Share => format!("{} %", short(100.0 * value)),
    }
}

/// Formats a number with three digits and a suffix or an exponent if it is very large or small: `12 k`, `0.002`, `5e-5`.
fn short(value: f64) -> String {
    let rounded = |scaled: f64| {
        let text = format!("{:.*}", (2 - scaled.abs().log10().floor() as i32).clamp(0, 6) as usize, scaled);
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    };
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 1e9 => rounded(value / 1e9) + " G",
        size if size >= 1e6 => rounded(value / 1e6) + " M",
        size if size >= 1e4 => rounded(value / 1e3) + " k",
        size if size < 1e-3 => {
            let power = size.log10().floor();
            format!("{}e{power}", rounded(value / 10f64.powf(power)))
        }
        _ => rounded(value),
    }
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Ticks, Ticks>>;

/// The axes of a plot.
struct Plot {
    x: Ticks,
    y: Ticks,
}

impl Plot {
    /// Draws the axes, with numbers as labels, and then what `content` draws.
    fn draw<'b>(
        &self,
        area: &DrawingArea<SVGBackend<'b>, Shift>,
        (x, y): (Axis<'_>, Axis<'_>),
        content: impl FnOnce(&mut Chart<'_, 'b>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.draw_with(area, (x.label, y.label), &|v| number(*v, x), &|v| number(*v, y), content)
    }

    fn draw_with<'b>(
        &self,
        area: &DrawingArea<SVGBackend<'b>, Shift>,
        (x, y): (&str, &str),
        x_label: &dyn Fn(&f64) -> String,
        y_label: &dyn Fn(&f64) -> String,
        content: impl FnOnce(&mut Chart<'_, 'b>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let longest = self.y.at.iter().map(|at| y_label(at).chars().count()).max().unwrap_or(0) as u32;
        let beside = 14 + 7 * longest + if y.is_empty() { 0 } else { 18 };
        let below = if x.is_empty() { 24 } else { 40 };
        let mut chart = ChartBuilder::on(area)
            .margin(6)
            .margin_right(18)
            .x_label_area_size(below)
            .y_label_area_size(beside)
            .build_cartesian_2d(self.x.clone(), self.y.clone())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(INK.mix(0.15))
            .axis_style(INK.mix(0.5))
            .label_style(("sans-serif", 13).into_font().color(&INK))
            .x_labels(self.x.at.len().max(1))
            .y_labels(self.y.at.len().max(1))
            .x_label_formatter(&x_label)
            .y_label_formatter(&y_label)
            .x_desc(x)
            .y_desc(y)
            .draw()?;
        content(&mut chart)
    }
}

/// Draws a plot of `height` units into a figure with a caption. The marks that begin with `mark` get `tooltips`, in the order in which
/// they are drawn.
fn figure(
    caption: &str,
    height: u32,
    mark: &str,
    tooltips: &[String],
    draw: impl FnOnce(&DrawingArea<SVGBackend<'_>, Shift>) -> anyhow::Result<()>,
) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        draw(&area)?;
        area.present()?;
    }
    // Inside HTML an SVG needs no name space, which reads like an address.
    let svg = svg.replace("#010203", "currentColor").replace(" xmlns=\"http://www.w3.org/2000/svg\"", "");
    let svg = with_tooltips(&svg, mark, tooltips);
    Ok(format!("<figure><figcaption>{}</figcaption>{}</figure>\n", escape(caption), svg.trim()))
}

/// Adds `tooltips`, which the plotting library does not have, to the empty elements that begin with `mark`.
fn with_tooltips(svg: &str, mark: &str, tooltips: &[String]) -> String {
    let mut parts = svg.split(mark);
    let mut titled = parts.next().unwrap_or_default().to_owned();
    for (i, part) in parts.enumerate() {
        titled += mark;
        match (part.split_once("/>"), tooltips.get(i)) {
            (Some((attributes, rest)), Some(tooltip)) => {
                let tag = &mark[1..];
                titled += &format!("{attributes}><title>{}</title></{tag}>{rest}", escape(tooltip));
            }
            _ => titled += part,
        }
    }
    titled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(scale: Scale) -> Axis<'static> {
        Axis { label: "", scale, unit: Unit::Number }
    }

    fn labels(range: Range<f64>, scale: Scale) -> Vec<String> {
        Ticks::new(range, axis(scale)).at.into_iter().map(|at| number(at, axis(scale))).collect()
    }

    #[test]
    fn labels_are_round_numbers() {
        assert_eq!(labels(0.0..9.3, Scale::FromZero), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(labels(6.13..9.02, Scale::Linear), ["7", "8", "9"]);
        assert_eq!(labels(-2.0..1.0, Scale::Log), ["0.01", "0.1", "1", "10"]);
        assert_eq!(labels(0.0..1.0, Scale::Log), ["1", "2", "5", "10"]);
        assert_eq!([0.0, 1.0, 1.1, 30.0, 0.04].map(round_step), [1.0, 1.0, 2.0, 50.0, 0.05]);
    }

    #[test]
    fn labels_of_an_axis_are_distinct_and_not_many() {
        let values = [1e-7, 1e-4, 0.003, 0.07, 0.9, 1.0, 2.0, 3.0, 7.0, 40.0, 9_000.0, 12_345.0, 3e6, 7e9];
        for (i, low) in values.into_iter().enumerate() {
            for high in values[i + 1..].iter().copied() {
                let logs = labels(f64::log10(low)..f64::log10(high), Scale::Log);
                for labels in [labels(low..high, Scale::Linear), labels(low..high, Scale::FromZero), logs] {
                    let distinct: std::collections::BTreeSet<&String> = labels.iter().collect();
                    assert!((2..=10).contains(&labels.len()), "{low} to {high}: {labels:?}");
                    assert_eq!(distinct.len(), labels.len(), "{low} to {high}: {labels:?}");
                }
            }
        }
    }

    #[test]
    fn many_points_are_averaged_and_keep_their_range() {
        let points: Vec<(f64, f64)> = (0..2 * MAX_POINTS).map(|i| (i as f64, (i % 2) as f64)).collect();
        let averaged = averaged(&points);
        assert_eq!(averaged.len(), MAX_POINTS);
        assert_eq!(averaged[1], Point { x: 2.5, mean: 0.5, low: 0.0, high: 1.0 });
    }

    #[test]
    fn a_plot_uses_the_colour_of_the_page_and_leaves_out_what_has_no_logarithm() {
        let series = |points: &[(f64, f64)]| Series { points: points.to_vec(), colour: 0, style: Style::Marked };
        let draw = |points| lines("a < b", axis(Scale::Linear), axis(Scale::Log), &[series(points)]).unwrap();
        let svg = draw(&[(1.0, 0.5), (2.0, 0.0), (3.0, f64::NAN), (4.0, 5.0)]);
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains("a &lt; b") && svg.contains("currentColor") && !svg.contains("#010203"), "{svg}");
        assert_eq!(draw(&[(1.0, 0.0)]), "");
    }

    #[test]
    fn bar_heights_are_proportional_to_values() {
        let bar = |value: f64| Bar { label: "<a>".into(), value, tooltip: format!("a & {value}") };
        let svg = bars("caption", Unit::Number, &[bar(4.0), bar(1.0)]).unwrap();
        let attribute = |mark: &str, name: &str| -> f64 {
            mark.split(&format!("{name}=\"")).nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
        };
        let heights: Vec<f64> = svg.split("<rect ").skip(1).map(|mark| attribute(mark, "height")).collect();
        assert!((heights[0] / heights[1] - 4.0).abs() < 0.1, "{heights:?}");
        assert!(svg.contains("&lt;a&gt;"));
        assert!(
            svg.contains("><title>a &amp; 4</title></rect>") && svg.contains("<title>a &amp; 1</title></rect>"),
            "{svg}"
        );
    }

    #[test]
    fn a_heat_map_has_a_cell_for_each_positive_value() {
        let rows = ["top".to_owned(), "bottom".to_owned()];
        let values = [vec![1.0, 10.0], vec![f64::NAN, 0.0]];
        let map = HeatMap { rows: &rows, columns: &[10.0, 20.0], values: &values };
        let svg = heat_map("ratios", axis(Scale::Linear), &map).unwrap();
        assert_eq!(svg.matches("<rect ").count(), 2);
        assert!(svg.contains("(dark: 1, light: 10)") && svg.contains("top") && svg.contains("bottom"));
    }
}
