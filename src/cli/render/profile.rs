//! Formats the profile of a compiled step as tables for people and as JSON for programs.

use comfy_table::{CellAlignment, Table};
use serde_json::{Value, json};

use crate::hlo::proto::ShapeProto;
use crate::output::table;
use crate::plan::profile::executions::{Loop, TripCount};
use crate::plan::profile::kernels::Kernel;
use crate::plan::profile::shapes::{bytes, text as shape_text};
use crate::plan::profile::{Place, Profile, Sum};
use crate::units::{byte_size, counted, quantity, step_time, thousands};

/// The most lines of a list of places; JSON has all.
const MOST_LINES: usize = 10;
/// The most characters of a shape or an operand list.
const WIDEST: usize = 44;

/// Formats the profile of `what`: totals, and one table for each question.
pub fn to_text(profile: &Profile, what: &str) -> String {
    let kinds = profile.kinds.iter().map(|(kind, sum)| (vec![kind.name().to_owned()], *sum));
    let scopes = profile.scopes.iter().map(|(scope, sum)| (vec![scope.clone()], *sum));
    let mut sections = vec![summary(profile, what)];
    sections.push(sums(profile, &["kind"], kinds, usize::MAX));
    sections.push(sums(profile, &["scope"], scopes, usize::MAX));
    sections.push(costliest(profile));
    sections.push(squares(profile));
    let lists =
        [("copies, transposes and conversions", &profile.copies), ("f32 matrix products", &profile.f32_products)];
    for (title, places) in lists {
        if places.is_empty() {
            sections.push(format!("{title}: none"));
            continue;
        }
        let rows = places.iter().map(|(Place { scope, shape }, sum)| (vec![scope.clone(), shape.clone()], *sum));
        sections.push(sums(profile, &[title, "result"], rows, MOST_LINES));
    }
    format!("\n{}\n", sections.join("\n\n"))
}

fn summary(profile: &Profile, what: &str) -> String {
    let (total, layer) = (&profile.total, &profile.layer);
    let time = match profile.rates {
        Some([narrow, f32, memory]) => format!(
            "at least {} at {}FLOP/s (f32 products: {}FLOP/s) and {}/s of memory",
            step_time(total.seconds),
            quantity(narrow),
            quantity(f32),
            byte_size(memory),
        ),
        None => "no times, because the rates of the device are unknown".to_owned(),
    };
    let mut lines = vec![format!(
        "profile of {what}, one step on one device: {}, {}, {}FLOP in matrix products; {time}",
        counted(total.kernels as u64, "kernel"),
        byte_size(total.bytes()),
        quantity(total.products),
    )];
    lines.push(format!(
        "FLOP in matrix products / FLOP of the model: {:.3} (the model's {}FLOP include the whole last layer)",
        profile.executed_over_model(),
        quantity(profile.model_flops),
    ));
    let mut loops = profile.loops.iter().map(describe_loop).peekable();
    if loops.peek().is_some() {
        lines.push(format!("loops: {}", loops.collect::<Vec<_>>().join("; ")));
    }
    if layer.kernels > 0.0 {
        lines.push(format!(
            "one layer, forward and backward, in one micro-batch: {:.1} kernels; {} in matrix products, {} in other kernels",
            layer.kernels,
            byte_size(layer.product_bytes),
            byte_size(layer.other_bytes),
        ));
    }
    lines.join("\n")
}

fn describe_loop(entered: &Loop) -> String {
    let source = match entered.source {
        TripCount::Compiler => "counted by the compiler",
        TripCount::Condition => "bound of its condition",
        TripCount::Expected => "expected; depends on the data",
    };
    format!("{} runs {} ({source})", entered.name, counted(entered.iterations as u64, "time"))
}

/// Formats one row for each group: its names, and its costs.
fn sums(
    profile: &Profile,
    names: &[&str],
    rows: impl ExactSizeIterator<Item = (Vec<String>, Sum)>,
    most: usize,
) -> String {
    let mut table = table::plain();
    // Without rates, no kernel has a time.
    let time = profile.rates.map(|_| "time");
    let costs = ["kernels", "bytes", "product FLOP", "other operations"].into_iter().chain(time).chain(["share"]);
    table.set_header(names.iter().copied().chain(costs));
    let hidden = rows.len().saturating_sub(most);
    for (mut cells, sum) in rows.take(most) {
        cells.iter_mut().for_each(|cell| *cell = shortened(cell));
        cells.extend([
            thousands(sum.kernels.round() as u64),
            byte_size(sum.bytes()),
            positive(sum.products, quantity),
            positive(sum.elementwise, quantity),
        ]);
        cells.extend(time.map(|_| positive(sum.seconds, step_time)));
        cells.push(format!("{:.1} %", 100.0 * share(profile, &sum)));
        table.add_row(cells);
    }
    align(&mut table, names.len());
    with_hidden(&table, hidden)
}

/// Appends the number of rows that a table leaves out.
fn with_hidden(table: &Table, hidden: usize) -> String {
    match hidden {
        0 => table.to_string(),
        more => format!("{table}\n  … and {more} more (all with --json)"),
    }
}

/// Formats the arrays that grow with the square of the sequence length: only their own bytes are known, not a time.
fn squares(profile: &Profile) -> String {
    let title = "arrays of the square of the sequence length";
    if profile.squares.is_empty() {
        return format!("{title}: none");
    }
    let mut table = table::plain();
    table.set_header([title, "array", "written", "bytes", "share of all bytes"]);
    for (Place { scope, shape }, sum) in profile.squares.iter().take(MOST_LINES) {
        table.add_row([
            shortened(scope),
            shape.clone(),
            counted(sum.kernels.round() as u64, "time"),
            byte_size(sum.written),
            format!("{:.1} %", 100.0 * sum.written / profile.total.bytes()),
        ]);
    }
    align(&mut table, 2);
    with_hidden(&table, profile.squares.len().saturating_sub(MOST_LINES))
}

fn costliest(profile: &Profile) -> String {
    let mut table = table::plain();
    table.set_header([
        "costliest kernels",
        "kind",
        "scope",
        "result",
        "largest operands",
        "executions",
        "time each",
        "share",
    ]);
    for kernel in &profile.costliest {
        table.add_row([
            kernel.name.clone(),
            kernel.kind.name().to_owned(),
            shortened(&kernel.scope),
            shortened(&shape_text(&kernel.shape)),
            shortened(&operands(kernel)),
            thousands(kernel.executions as u64),
            kernel.seconds.map_or_else(|| byte_size(kernel.cost.bytes()), microseconds),
            format!("{:.1} %", 100.0 * share(profile, &Sum::of(kernel))),
        ]);
    }
    align(&mut table, 5);
    table.to_string()
}

/// Right-aligns the columns after the first `names`.
fn align(table: &mut Table, names: usize) {
    table.column_iter_mut().skip(names).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
}

/// Returns the share of the step's time, or of its bytes if times are unknown.
fn share(profile: &Profile, sum: &Sum) -> f64 {
    let (part, whole) = match profile.rates {
        Some(_) => (sum.seconds, profile.total.seconds),
        None => (sum.bytes(), profile.total.bytes()),
    };
    if whole > 0.0 { part / whole } else { 0.0 }
}

fn positive(value: f64, format: impl Fn(f64) -> String) -> String {
    if value > 0.0 { format(value) } else { "–".to_owned() }
}

fn microseconds(seconds: f64) -> String {
    format!("{:.1} µs", 1e6 * seconds)
}

/// Formats the two largest operands.
fn operands(kernel: &Kernel) -> String {
    let mut shapes: Vec<&ShapeProto> = kernel.operands.iter().collect();
    shapes.sort_by(|a, b| bytes(b).total_cmp(&bytes(a)));
    shapes.into_iter().take(2).map(shape_text).collect::<Vec<_>>().join(", ")
}

/// Replaces the middle of a long text by `…`.
fn shortened(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    if characters.len() <= WIDEST {
        return text.to_owned();
    }
    let (head, tail) = (&characters[..WIDEST / 2], &characters[characters.len() - WIDEST / 2 + 1..]);
    head.iter().chain(&['…']).chain(tail).collect()
}

/// Formats the values of the tables as one JSON object, in bytes, seconds and operations of a step on one device.
pub fn to_json(profile: &Profile) -> Value {
    let places = |places: &[(Place, Sum)]| -> Value {
        let of = |(Place { scope, shape }, sum): &(Place, Sum)| {
            with(sum_json(profile, sum), [("scope", scope), ("result", shape)])
        };
        places.iter().map(of).collect()
    };
    json!({
        "total": sum_json(profile, &profile.total),
        "model_flops": profile.model_flops,
        "product_flops_over_model_flops": profile.executed_over_model(),
        "loops": profile.loops,
        "layer": {
            "kernels": profile.layer.kernels,
            "product_bytes": profile.layer.product_bytes,
            "other_bytes": profile.layer.other_bytes,
        },
        "peak_rates_per_device": profile.rates.map(|[narrow, f32, memory]| json!({
            "flops": narrow,
            "flops_f32": f32,
            "memory_bandwidth": memory,
        })),
        "kinds": profile.kinds.iter().map(|(kind, sum)| with(sum_json(profile, sum), [("kind", kind)])).collect::<Vec<_>>(),
        "scopes": profile.scopes.iter().map(|(scope, sum)| with(sum_json(profile, sum), [("scope", scope)])).collect::<Vec<_>>(),
        "costliest": profile.costliest.iter().map(|kernel| kernel_json(profile, kernel)).collect::<Vec<_>>(),
        "square_arrays": squares_json(&profile.squares),
        "copies": places(&profile.copies),
        "f32_products": places(&profile.f32_products),
    })
}

fn squares_json(squares: &[(Place, Sum)]) -> Value {
    let of = |(Place { scope, shape }, sum): &(Place, Sum)| json!({ "scope": scope, "array": shape, "times": sum.kernels, "written_bytes": sum.written });
    squares.iter().map(of).collect()
}

fn kernel_json(profile: &Profile, kernel: &Kernel) -> Value {
    let sum = with(sum_json(profile, &Sum::of(kernel)), [("name", &kernel.name), ("scope", &kernel.scope)]);
    let sum = with(sum, [("kind", &kernel.kind)]);
    let operands: Vec<String> = kernel.operands.iter().map(shape_text).collect();
    with(with(sum, [("result", &shape_text(&kernel.shape))]), [("operands", &operands)])
}

fn sum_json(profile: &Profile, sum: &Sum) -> Value {
    json!({
        "kernels": sum.kernels,
        "read_bytes": sum.read,
        "written_bytes": sum.written,
        "product_flops": sum.products,
        "other_operations": sum.elementwise,
        "seconds": profile.rates.map(|_| sum.seconds),
        "share": share(profile, sum),
    })
}

/// Adds keys to an object.
fn with<const N: usize>(mut object: Value, keys: [(&str, &(impl serde::Serialize + ?Sized)); N]) -> Value {
    for (key, value) in keys {
        object[key] = json!(value);
    }
    object
}
