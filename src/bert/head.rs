//! The head of a saved model: which of transformers' classes it is, and its labels, as `config.json` states them.

use serde_json::{Map, Value, json};

use super::ConfigError;

/// The head on the encoder of a saved model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// Masked language modelling and next-sentence prediction.
    Pretraining,
    /// One of several classes for each row.
    SequenceClassification {
        /// The names of the classes, by number.
        labels: Vec<String>,
    },
    /// One number for each row.
    Regression,
    /// One of several classes for each token.
    TokenClassification {
        /// The names of the classes, by number.
        labels: Vec<String>,
    },
    /// The first and the last token of an answer.
    QuestionAnswering,
}

impl Head {
    /// Returns the name of the class of transformers.
    pub const fn architecture(&self) -> &'static str {
        match self {
            Head::Pretraining => "BertForPreTraining",
            Head::SequenceClassification { .. } | Head::Regression => "BertForSequenceClassification",
            Head::TokenClassification { .. } => "BertForTokenClassification",
            Head::QuestionAnswering => "BertForQuestionAnswering",
        }
    }

    /// Returns the names of the classes, if the head has classes.
    pub fn labels(&self) -> Option<&[String]> {
        match self {
            Head::SequenceClassification { labels } | Head::TokenClassification { labels } => Some(labels),
            Head::Pretraining | Head::Regression | Head::QuestionAnswering => None,
        }
    }

    /// Returns the keys of `config.json` that state the head: the class, and its labels if it has any.
    pub fn to_config(&self) -> Map<String, Value> {
        let mut keys = Map::new();
        keys.insert("architectures".to_owned(), json!([self.architecture()]));
        let problem_type = match self {
            Head::SequenceClassification { .. } => Some("single_label_classification"),
            Head::Regression => Some("regression"),
            _ => None,
        };
        keys.extend(problem_type.map(|name| ("problem_type".to_owned(), name.into())));
        let single = [default_label(0)];
        let labels = match self {
            // transformers derives the number of outputs from the number of labels.
            Head::Regression => Some(&single[..]),
            _ => self.labels(),
        };
        if let Some(labels) = labels {
            let numbered = || labels.iter().enumerate();
            let id2label: Map<String, Value> = numbered().map(|(i, l)| (i.to_string(), l.clone().into())).collect();
            let label2id: Map<String, Value> = numbered().map(|(i, l)| (l.clone(), i.into())).collect();
            keys.insert("id2label".to_owned(), id2label.into());
            keys.insert("label2id".to_owned(), label2id.into());
        }
        keys
    }

    /// Reads the head from the keys of a `config.json`: the class in `architectures`, its labels in `id2label`. Classes without
    /// a head of this list are [`Head::Pretraining`], whose heads may be missing.
    ///
    /// # Errors
    /// If the labels are not numbered from 0, or the class predicts several labels or several numbers for a row.
    pub fn from_config(config: &Map<String, Value>) -> Result<Head, ConfigError> {
        match config.get("architectures").and_then(|classes| classes.get(0)).and_then(Value::as_str) {
            Some("BertForSequenceClassification") => sequence_head(labels(config)?, config.get("problem_type")),
            Some("BertForTokenClassification") => Ok(Head::TokenClassification { labels: labels(config)? }),
            Some("BertForQuestionAnswering") => Ok(Head::QuestionAnswering),
            _ => Ok(Head::Pretraining),
        }
    }
}

/// Returns the head of `BertForSequenceClassification`. Without `problem_type`, one label means regression, as in
/// transformers.
fn sequence_head(labels: Vec<String>, problem_type: Option<&Value>) -> Result<Head, ConfigError> {
    let problem_type = problem_type.filter(|value| !value.is_null());
    match (problem_type.map(Value::as_str), labels.len()) {
        (None | Some(Some("regression")), 1) => Ok(Head::Regression),
        (None | Some(Some("single_label_classification")), _) => Ok(Head::SequenceClassification { labels }),
        (Some(Some("regression")), several) => {
            Err(ConfigError::new("id2label", "one label for a regression", several.to_string()))
        }
        (Some(_), _) => {
            let requires = "single_label_classification or regression";
            Err(ConfigError::new("problem_type", requires, problem_type.unwrap_or(&Value::Null).to_string()))
        }
    }
}

/// Returns the names in `id2label` in the order of their numbers; without it, the names that transformers gives to
/// `num_labels` classes, two by default.
fn labels(config: &Map<String, Value>) -> Result<Vec<String>, ConfigError> {
    let Some(table) = config.get("id2label").filter(|value| !value.is_null()) else {
        let count = config.get("num_labels").and_then(Value::as_u64).unwrap_or(2);
        return Ok((0..count as usize).map(default_label).collect());
    };
    let invalid = || {
        let requires = "names of labels by number, as {\"0\": \"negative\", \"1\": \"positive\"}";
        ConfigError::new("id2label", requires, table.to_string())
    };
    let table = table.as_object().filter(|table| !table.is_empty()).ok_or_else(invalid)?;
    let name = |i: usize| table.get(&i.to_string()).and_then(Value::as_str).map(str::to_owned).ok_or_else(invalid);
    (0..table.len()).map(name).collect()
}

/// Returns the name that transformers gives to a label without a name.
fn default_label(number: usize) -> String {
    format!("LABEL_{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: Value) -> Result<Head, String> {
        Head::from_config(config.as_object().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_head_survives_its_configuration() {
        let labels = || ["O", "B-PER", "I-PER"].map(str::to_owned).to_vec();
        for head in [
            Head::Pretraining,
            Head::SequenceClassification { labels: labels() },
            Head::SequenceClassification { labels: vec!["only".to_owned()] },
            Head::Regression,
            Head::TokenClassification { labels: labels() },
            Head::QuestionAnswering,
        ] {
            assert_eq!(Head::from_config(&head.to_config()), Ok(head));
        }
        // More than ten labels: the order is that of the numbers, not of their digits.
        let head = Head::TokenClassification { labels: (0..12).map(|i| format!("L{i}")).collect() };
        assert_eq!(Head::from_config(&head.to_config()), Ok(head));
    }

    #[test]
    fn heads_of_transformers_are_read() {
        let sequence = |rest: Value| {
            let mut config = json!({"architectures": ["BertForSequenceClassification"]});
            config.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            read(config)
        };
        let two = Head::SequenceClassification { labels: vec!["LABEL_0".to_owned(), "LABEL_1".to_owned()] };
        assert_eq!(sequence(json!({})), Ok(two.clone()));
        assert_eq!(sequence(json!({"problem_type": null, "id2label": {"1": "LABEL_1", "0": "LABEL_0"}})), Ok(two));
        assert_eq!(sequence(json!({"id2label": {"0": "LABEL_0"}})), Ok(Head::Regression));
        assert_eq!(read(json!({"architectures": ["BertForMaskedLM"]})), Ok(Head::Pretraining));
        assert_eq!(read(json!({})), Ok(Head::Pretraining));
        let error = sequence(json!({"problem_type": "multi_label_classification"})).unwrap_err();
        assert!(error.contains("single_label_classification or regression, got \"multi_label"), "{error}");
        let error = sequence(json!({"id2label": {"0": "a", "2": "b"}})).unwrap_err();
        assert!(error.starts_with("id2label requires names of labels by number"), "{error}");
        let error = sequence(json!({"id2label": {"0": "a", "1": "b"}, "problem_type": "regression"})).unwrap_err();
        assert_eq!(error, "id2label requires one label for a regression, got 2");
    }
}
