//! Tables for standard output, which fit the width of a terminal: cells that are too wide are wrapped.

use comfy_table::{ContentArrangement, Table, TableStyle, presets};
use console::Term;

/// Returns a table without lines.
pub fn plain() -> Table {
    of_style(presets::NOTHING)
}

/// Returns a table with lines between its rows.
pub fn ruled() -> Table {
    of_style(presets::UTF8_HORIZONTAL_ONLY)
}

/// Returns a table with a border.
pub fn bordered() -> Table {
    of_style(presets::UTF8_BORDERS_ONLY)
}

fn of_style(style: TableStyle) -> Table {
    let mut table = Table::new();
    table.load_style(style);
    // A file or a pipe has no width.
    if let Some((_, width)) = Term::stdout().size_checked().filter(|_| console::user_attended()) {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table
}
