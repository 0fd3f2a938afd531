//! The catalogue of published optimizers, for the help of the verbs that train.

use crate::optim::{CatalogueEntry, OptimizerConfig};

/// Lists the presets of every kind of optimizer, a line for each, with the implementation.
pub fn catalogue() -> String {
    let catalogue = OptimizerConfig::catalogue();
    let width = catalogue.iter().map(|entry| entry.name.len()).max().unwrap_or_default();
    let mut lines =
        vec![format!("Presets of [optimizer]: kind ({} by default), preset, source", OptimizerConfig::DEFAULT_KIND)];
    let line =
        |CatalogueEntry { kind, name, source, .. }: &CatalogueEntry| format!("  {kind:<6} {name:<width$}  {source}");
    lines.extend(catalogue.iter().map(line));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn help_of_pretrain_lists_every_preset_with_its_source() {
        let command = <crate::cli::Cli as clap::CommandFactory>::command();
        let help = command.find_subcommand("pretrain").unwrap().clone().render_long_help().to_string();
        for entry in super::OptimizerConfig::catalogue() {
            let start = format!("  {:<6} {} ", entry.kind, entry.name);
            let line = help.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{start}"));
            // A longer line would be wrapped.
            assert!(line.ends_with(entry.source) && line.chars().count() <= 100, "{line}");
        }
    }
}
