//! The heat map of a run's trust ratios: layers by steps.

use super::ReportedRun;
use crate::report::log::Scalars;
use crate::report::metrics::TRUST_RATIOS;
use crate::report::pages::plot::{Axis, HeatMap, Scale, Unit, heat_map};

/// Rows of a heat map at most; with more tensors, a row is a layer.
const MAX_ROWS: usize = 40;

/// Draws the heat map of `run`; an empty text if its log has no trust ratios.
pub fn figure(run: &ReportedRun) -> anyhow::Result<String> {
    let lines: Vec<(u64, &Scalars)> = run.log.lines(TRUST_RATIOS).collect();
    let Some((_, last)) = lines.last() else { return Ok(String::new()) };
    let mut rows: Vec<String> = Vec::new();
    let by_tensor = last.len() <= MAX_ROWS;
    let row_of = |tensor: &str| if by_tensor { tensor.to_owned() } else { layer(tensor).to_owned() };
    let mut tensors: Vec<&String> = last.keys().collect();
    tensors.sort_by_key(|tensor| numbered(tensor));
    for row in tensors.iter().map(|tensor| row_of(tensor)) {
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    let value = |row: &String, scalars: &Scalars| {
        geometric_mean(scalars.iter().filter(|(tensor, _)| row_of(tensor) == *row).map(|(_, ratio)| *ratio))
    };
    let values: Vec<Vec<f64>> =
        rows.iter().map(|row| lines.iter().map(|(_, scalars)| value(row, scalars)).collect()).collect();
    let columns: Vec<f64> = lines.iter().map(|(step, _)| *step as f64).collect();
    let rows: Vec<String> = rows.iter().map(|row| short_name(row)).collect();
    let x = Axis { label: "step", scale: Scale::Linear, unit: Unit::Number };
    heat_map(&format!("{}: trust ratio", run.name), x, &HeatMap { rows: &rows, columns: &columns, values: &values })
}

/// Returns the beginning of a tensor's name that is common to its layer: up to the last number or, without one, the first two parts.
fn layer(tensor: &str) -> &str {
    let ends: Vec<usize> = tensor.match_indices('.').map(|(at, _)| at).chain([tensor.len()]).collect();
    let begins = std::iter::once(0).chain(ends.iter().map(|end| end + 1));
    let parts: Vec<(&str, usize)> = begins.zip(&ends).map(|(begin, &end)| (&tensor[begin..end], end)).collect();
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()) && !part.is_empty();
    let numbered = parts.iter().rev().find(|(part, _)| is_number(part)).map(|(_, end)| *end);
    &tensor[..numbered.unwrap_or(parts[1.min(parts.len() - 1)].1)]
}

/// Returns a sort key that puts layer 2 before layer 10.
fn numbered(tensor: &str) -> Vec<(Option<u64>, String)> {
    tensor.split('.').map(|part| (part.parse().ok(), part.to_owned())).collect()
}

/// Shortens a name for the axis: the first part, which all have, is left out, and so is "encoder.".
fn short_name(row: &str) -> String {
    let short = row.strip_prefix("bert.").unwrap_or(row);
    short.strip_prefix("encoder.").unwrap_or(short).to_owned()
}

/// Returns the geometric mean of the positive values; NaN without one.
fn geometric_mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) =
        values.filter(|value| *value > 0.0).fold((0.0, 0.0), |(sum, n), value| (sum + value.ln(), n + 1.0));
    f64::exp(sum / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_of_a_layer_share_a_row() {
        assert_eq!(layer("bert.encoder.layer.11.output.dense.weight"), "bert.encoder.layer.11");
        assert_eq!(layer("bert.embeddings.word_embeddings.weight"), "bert.embeddings");
        assert_eq!(layer("resnet.encoder.stages.0.layers.2.shortcut.weight"), "resnet.encoder.stages.0.layers.2");
        assert_eq!(layer("weight"), "weight");
        assert!(numbered("layer.2.x") < numbered("layer.10.x"));
        assert_eq!(short_name("bert.encoder.layer.3"), "layer.3");
        assert_eq!(geometric_mean([1.0, 4.0, 0.0].into_iter()), 2.0);
        assert!(geometric_mean([].into_iter()).is_nan());
    }
}
