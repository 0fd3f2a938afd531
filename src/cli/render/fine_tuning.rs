//! The text that `lambert finetune` prints: the settings of a run, and the results of several seeds.

use comfy_table::CellAlignment;

use crate::bert::Head;
use crate::metrics::Spread;
use crate::output::table;
use crate::run::fine_tuning::FineTuning;
use crate::runtime::devices::Devices;
use crate::train::fine_tuning::SeedResult;
use crate::units::counted;

/// Formats the settings of `run`, line by line.
pub fn settings(run: &FineTuning, devices: &Devices) -> String {
    let (settings, data, model, phase) = (&run.run, &run.data, &run.model, run.phase());
    let [train, dev] = [(&data.train, "training example"), (&data.dev, "dev example")]
        .map(|(examples, noun)| counted(examples.len() as u64, noun));
    let mut lines = vec![
        format!("{} on {}", settings.name, devices.describe()),
        format!("task: {}", task(&data.head)),
        format!(
            "data: {train} from {}, {dev} from {}, sequence length {}",
            settings.task.train.display(),
            settings.task.dev.display(),
            phase.sequence_length
        ),
    ];
    if data.train.truncated() > 0 {
        let (noun, limit) = match data.head {
            Head::QuestionAnswering => ("training question", "max_query_length"),
            _ => ("training example", "sequence_length"),
        };
        lines.push(format!("  truncated to {limit}: {}", counted(data.train.truncated() as u64, noun)));
    }
    lines.push(format!(
        "model: {}, hidden size {}, dropout {} (hidden) and {} (attention), precision {}",
        counted(model.num_hidden_layers as u64, "layer"),
        model.hidden_size,
        model.hidden_dropout_prob,
        model.attention_probs_dropout_prob,
        settings.precision.compute(),
    ));
    // The first line of the description is the name.
    let optimizer: Vec<String> = settings
        .optimizer
        .describe()
        .into_iter()
        .skip(1)
        .map(|(name, value)| format!("{} {value}", name.trim()))
        .collect();
    lines.push(format!("optimizer: {}, {}", settings.optimizer.name(), optimizer.join(", ")));
    let epochs = match settings.train.epochs {
        1.0 => "1 epoch".to_owned(),
        epochs => format!("{epochs} epochs"),
    };
    lines.push(format!(
        "schedule: {} of {} ({epochs}); learning rate: {}",
        counted(phase.steps, "step"),
        counted(phase.global_batch as u64, "example"),
        phase.describe_learning_rate()
    ));
    lines.push(format!("evaluation: every {}", counted(run.evaluate_every(), "step")));
    lines.join("\n") + "\n"
}

fn task(head: &Head) -> String {
    match head {
        Head::SequenceClassification { labels } => format!("sequence classification: {}", labels.join(", ")),
        Head::Regression => "regression".to_owned(),
        Head::TokenClassification { labels } => format!("token classification: {}", labels.join(", ")),
        Head::QuestionAnswering => "question answering".to_owned(),
        Head::Pretraining => "pretraining".to_owned(),
    }
}

/// Returns the spread over the seeds that have ended of every metric that all of them have, without baselines and numbers of
/// examples.
pub fn spreads(results: &[SeedResult]) -> Vec<(String, Spread)> {
    let ended: Vec<&SeedResult> = results.iter().filter(|result| !result.outcome.is_incomplete()).collect();
    let names = ended.first().map_or(&[][..], |first| &first.metrics).iter().map(|(name, _)| name);
    let is_metric = |name: &&String| !["_baseline", "examples", "total"].iter().any(|end| name.ends_with(end));
    let of_seed =
        |result: &SeedResult, name: &str| result.metrics.iter().find(|(own, _)| own == name).map(|(_, value)| *value);
    names
        .filter(is_metric)
        .filter_map(|name| {
            let values: Option<Vec<f64>> = ended.iter().map(|result| of_seed(result, name)).collect();
            Some((name.clone(), Spread::of(&values?)))
        })
        .collect()
}

/// Formats a table with a row for each metric: its mean and standard deviation over the seeds, and its baseline.
pub fn seeds(results: &[SeedResult]) -> String {
    let mut table = table::ruled();
    let seeds: Vec<String> = results.iter().map(|result| format!("seed {}", result.seed)).collect();
    let header = ["best checkpoint".to_owned(), "mean".to_owned(), "std. dev.".to_owned(), "baseline".to_owned()];
    table.set_header(header.into_iter().chain(seeds));
    let value = |result: &SeedResult, name: &str| {
        let found = result.metrics.iter().find(|(own, _)| own == name);
        found.map_or(String::new(), |(_, value)| format!("{value:.4}"))
    };
    for (name, spread) in spreads(results) {
        let baseline = results.first().map_or(String::new(), |first| value(first, &format!("{name}_baseline")));
        let deviation = if spread.deviation.is_finite() { format!("{:.4}", spread.deviation) } else { String::new() };
        let row = [name.clone(), format!("{:.4}", spread.mean), deviation, baseline];
        table.add_row(row.into_iter().chain(results.iter().map(|result| value(result, &name))));
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Outcome;

    #[test]
    fn metrics_of_seeds_are_averaged_without_baselines_and_numbers_of_examples() {
        let result = |seed: u64, accuracy: f64| SeedResult {
            seed,
            outcome: Outcome::Finished,
            best: None,
            metrics: [("accuracy", accuracy), ("accuracy_baseline", 0.5), ("NoAns_total", 4.0), ("examples", 10.0)]
                .map(|(name, value)| (name.to_owned(), value))
                .to_vec(),
            goodput: None,
        };
        let results = [result(1, 0.7), result(2, 0.9)];
        let spreads = spreads(&results);
        assert_eq!(spreads.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["accuracy"]);
        assert!((spreads[0].1.mean - 0.8).abs() < 1e-12 && (spreads[0].1.deviation - 0.02f64.sqrt()).abs() < 1e-12);
        let table = seeds(&results);
        assert!(table.contains("0.8000") && table.contains("0.1414") && table.contains("0.5000"), "{table}");
    }
}
