//! Studies: optimizers compared over batch sizes, with equal tuning for each.
//!
//! A study file ([`StudyFile`]) names a run file, batch sizes, numbers of training sequences and optimizers with the values to try.
//! Each combination is a [`Trial`], an ordinary run with a run file and a run directory of its own, which a process of its own trains
//! ([`runner`]). The best trial of each optimizer, batch and number of sequences is trained again with other seeds. [`results`]
//! summarises the trials, [`table`] and [`page`] show them.

pub mod file;
pub mod page;
pub mod plan;
pub mod points;
pub mod results;
pub mod runner;
pub mod table;
pub mod trial;

pub use file::StudyFile;
pub use plan::Plan;
pub use results::Results;
pub use trial::{Trial, TrialResult};
