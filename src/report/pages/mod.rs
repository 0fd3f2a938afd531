//! Self-contained HTML pages with inline SVG plots: [`data`] about prepared data, [`runs`] about one or several runs.

pub mod data;
pub mod html;
pub mod plot;
pub mod runs;
