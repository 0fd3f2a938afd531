//! Self-contained HTML pages with inline SVG plots.

pub mod data;
pub mod svg;
