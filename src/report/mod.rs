//! What a person or a tool reads about a run: metrics files, TensorBoard, progress, the summary and HTML pages.

pub mod data_page;
pub mod evaluation;
pub mod finished_step;
pub mod metrics;
pub mod progress;
pub mod summary;
pub mod svg;
pub mod tensorboard;
