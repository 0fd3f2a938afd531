//! The history of a run for experiment trackers: one JSON object for each step, with the keys of the history of Weights & Biases
//! (`_step`, `_timestamp`, `_runtime`), which `wandb.log` and `trackio.log` take.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::goodput::{EVALUATION, START, TRAIN};
use super::log::RunLog;

/// Returns the objects of all steps that count, in their order. The scalars of training and evaluation are `train/NAME` and
/// `evaluation/NAME`; `_timestamp` is the time of the step in seconds since 1970, `_runtime` the seconds since the first start.
pub fn history(log: &RunLog) -> Vec<Map<String, Value>> {
    let begin = log.lines(START).next().and_then(|(step, _)| log.time(START, step));
    let mut steps: BTreeMap<u64, Map<String, Value>> = BTreeMap::new();
    for kind in [TRAIN, EVALUATION] {
        for (step, scalars) in log.lines(kind) {
            let object = steps.entry(step).or_default();
            object.insert("_step".to_owned(), step.into());
            if let Some(time) = log.time(kind, step) {
                object.insert("_timestamp".to_owned(), time.into());
                object.extend(begin.map(|begin| ("_runtime".to_owned(), (time - begin).into())));
            }
            object.extend(scalars.iter().map(|(name, &value)| (format!("{kind}/{name}"), value.into())));
        }
    }
    steps.into_values().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checkpoint::METRICS_FILE;

    #[test]
    fn a_step_is_one_object_with_the_scalars_of_training_and_evaluation() {
        let folder = tempfile::tempdir().unwrap();
        let lines = [
            r#"{"kind":"start","step":0,"time":10.0,"seconds":1.0}"#,
            r#"{"kind":"train","step":1,"time":12.0,"loss":9.0,"grad_norm":null}"#,
            r#"{"kind":"train","step":2,"time":13.0,"loss":8.0}"#,
            r#"{"kind":"start","step":1,"time":20.0,"seconds":1.0}"#,
            r#"{"kind":"train","step":2,"time":21.0,"loss":7.5}"#,
            r#"{"kind":"trust_ratios","step":2,"time":21.0,"bert.embeddings":1.5}"#,
            r#"{"kind":"evaluation","step":2,"time":22.5,"mlm_loss":8.5}"#,
        ];
        std::fs::write(folder.path().join(METRICS_FILE), lines.join("\n")).unwrap();
        let found = history(&RunLog::read(folder.path()).unwrap().unwrap()).into_iter().map(Value::Object);
        let first = json!({"_step": 1, "_timestamp": 12.0, "_runtime": 2.0, "train/loss": 9.0});
        let second = json!({
            "_step": 2, "_timestamp": 22.5, "_runtime": 12.5, "train/loss": 7.5, "evaluation/mlm_loss": 8.5,
        });
        assert_eq!(found.collect::<Vec<_>>(), [first, second]);
    }
}
