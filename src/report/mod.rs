//! Reports of a run: `metrics.jsonl`, TensorBoard event files, the progress display, the summary table, and HTML [`pages`] about
//! prepared data and runs. The [`reporter`] passes each event to all of them; an [`evaluation`] stands beside its [`baselines`],
//! [`goodput`] is computed from the metrics, and [`log`] reads those that count; [`history`] has them in the
//! form of experiment trackers, and a [`model_card`] those of one checkpoint.

pub mod baselines;
pub mod descriptions;
pub mod evaluation;
pub mod events;
pub mod goodput;
pub mod history;
pub mod lines;
pub mod log;
pub mod metrics;
pub mod model_card;
pub mod pages;
pub mod progress;
pub mod reporter;
pub mod settings;
pub mod summary;
pub mod tensorboard;
