//! The results of a study as text.

use comfy_table::{CellAlignment, Table};

use super::results::{CellResult, KeptBatch, Results};
use crate::metrics::Spread;
use crate::output::table;
use crate::units::{counted, thousands};

impl Results {
    /// Formats the tables: the value of each optimizer and batch, the steps to the target, and up to which batch each optimizer keeps
    /// its value.
    pub fn to_text(&self) -> String {
        let mut sequences: Vec<u64> = self.cells.iter().map(|cell| cell.sequences).collect();
        sequences.dedup();
        let mut text = String::new();
        for sequences in sequences {
            text += &format!("{} on held-out examples after {} sequences\n", self.metric, thousands(sequences));
            text += &format!("{}\n\n", self.table(sequences, &value));
            if let Some(target) = self.target {
                text += &format!("steps until {} is at most {target}\n", self.metric);
                text += &format!("{}\n\n", self.table(sequences, &steps));
            }
        }
        if let Some(baseline) = self.baseline {
            text += &format!("baseline: {baseline:.4}\n");
        }
        for kept in &self.kept {
            text += &format!("{}\n", kept.to_text());
        }
        for edge in self.edges() {
            text += &format!("{edge}\n");
        }
        text + &format!("{} of {} have ended", thousands(self.ended as u64), counted(self.trials as u64, "trial"))
    }

    /// Returns the table of one number of sequences: a row for each batch, a column for each optimizer.
    fn table(&self, sequences: u64, cell: &dyn Fn(&CellResult) -> String) -> Table {
        let of_sequences = || self.cells.iter().filter(|cell| cell.sequences == sequences);
        let mut batches: Vec<u64> = of_sequences().map(|cell| cell.batch).collect();
        batches.dedup();
        let mut table = table::ruled();
        let names = of_sequences().filter(|cell| cell.batch == batches[0]).map(|cell| cell.optimizer.clone());
        table.set_header(std::iter::once("batch".to_owned()).chain(names));
        for batch in &batches {
            let cells = of_sequences().filter(|cell| cell.batch == *batch).map(cell);
            table.add_row(std::iter::once(thousands(*batch)).chain(cells));
        }
        table.column_iter_mut().for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        table
    }
}

impl KeptBatch {
    /// Describes the result in a sentence.
    pub fn to_text(&self) -> String {
        let KeptBatch { optimizer, sequences, up_to, falls_off_at } = self;
        let (up_to, sequences) = (thousands(*up_to), thousands(*sequences));
        match falls_off_at {
            Some(batch) => format!(
                "{optimizer}, {sequences} sequences: keeps its value up to batch {up_to}, falls off at {}",
                thousands(*batch)
            ),
            None => format!(
                "{optimizer}, {sequences} sequences: keeps its value up to batch {up_to}, the largest one that was trained"
            ),
        }
    }
}

/// Formats the value of a cell: `5.2104 ± 0.0031`, `diverged`, or nothing yet.
pub fn value(cell: &CellResult) -> String {
    let mut text = match (cell.mean, cell.standard_deviation) {
        (Some(mean), Some(deviation)) => format!("{mean:.4} ± {deviation:.4}"),
        (Some(mean), None) => format!("{mean:.4}"),
        _ if cell.tuned > 0 && cell.diverged == cell.tuned || cell.diverged_seeds > 0 => return "diverged".to_owned(),
        _ => return String::new(),
    };
    if cell.diverged_seeds > 0 {
        text += &format!(" ({} diverged)", cell.diverged_seeds);
    }
    text
}

/// Formats the mean of the steps to the target: `1,204`, or `not reached`.
pub fn steps(cell: &CellResult) -> String {
    match cell.steps_to_target.as_slice() {
        [] if cell.mean.is_some() => "not reached".to_owned(),
        [] => String::new(),
        reached if reached.len() < cell.values.len() => {
            format!("{} of {} seeds", reached.len(), cell.values.len())
        }
        reached => thousands(Spread::of(reached).mean.round() as u64),
    }
}
