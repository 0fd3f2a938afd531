//! The names of the classes of a task.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::columns::quoted;
use super::table::Origin;
use crate::data::error::{DataError, Result};

/// The names of the classes, in the order of the logits: class `c` is the name with index `c`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct LabelNames {
    names: Vec<String>,
    classes: HashMap<String, i32>,
    /// The training file that the names were found in; none if they were given.
    found_in: Option<PathBuf>,
}

impl LabelNames {
    /// Takes names in the given order.
    ///
    /// # Errors
    /// If there are fewer than two, or one is empty or occurs twice.
    pub fn new(names: Vec<String>) -> Result<LabelNames> {
        let wrong = |required: &str, found: String| Err(DataError::setting("labels", required, found));
        if names.len() < 2 {
            let found = names.first().map_or_else(|| "none".to_owned(), |only| format!("only {only:?}"));
            return wrong("at least two names", found);
        }
        let mut classes = HashMap::with_capacity(names.len());
        for (class, name) in (0..).zip(&names) {
            if name.is_empty() {
                return wrong("names that are not empty", format!("an empty one at place {}", class + 1));
            }
            if classes.insert(name.clone(), class).is_some() {
                return wrong("each name once", format!("{name:?} twice"));
            }
        }
        Ok(LabelNames { names, classes, found_in: None })
    }

    /// Returns the names in the order of the classes.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the number of classes, at least 2.
    #[allow(clippy::len_without_is_empty, reason = "there are at least two classes")]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Returns the class of a name.
    pub fn class(&self, name: &str) -> Option<i32> {
        self.classes.get(name).copied()
    }

    /// Returns the class of a name that stands at `number` in a file.
    pub(super) fn class_at(&self, name: &str, origin: &Origin, number: u64) -> Result<i32> {
        self.class(name).ok_or_else(|| {
            let required = format!("one of the labels {}", quoted(self.names.iter().map(String::as_str)));
            let next = match &self.found_in {
                Some(file) => format!("correct it, or add examples with it to {}", file.display()),
                None => "correct it, or add it to labels".to_owned(),
            };
            origin.wrong(number, required, format!("{name:?}"), &next)
        })
    }

    /// Chooses the names for a training file: `given`, or those that occur in it, sorted; by value if all are numbers.
    pub(super) fn for_training<'a>(
        given: Option<&LabelNames>,
        occurring: impl Iterator<Item = &'a str>,
        origin: &Origin,
    ) -> Result<LabelNames> {
        let occurring: BTreeSet<&str> = occurring.collect();
        if let [only] = Vec::from_iter(&occurring)[..] {
            let next = "add examples of the other classes";
            return Err(DataError::file(
                &origin.path,
                "labels of at least two classes",
                format!("only {only:?}"),
                next,
            ));
        }
        match given {
            Some(names) => Ok(names.clone()),
            None => Ok(LabelNames { found_in: Some(origin.path.clone()), ..LabelNames::new(sorted(occurring))? }),
        }
    }
}

/// Sorts different names: by value if all are numbers, else by their characters.
fn sorted(names: BTreeSet<&str>) -> Vec<String> {
    let mut numbered: Vec<(f64, &str)> =
        names.iter().filter_map(|&name| Some((name.parse::<f64>().ok().filter(|x| x.is_finite())?, name))).collect();
    if numbered.len() < names.len() {
        return names.into_iter().map(str::to_owned).collect();
    }
    numbered.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    numbered.into_iter().map(|(_, name)| name.to_owned()).collect()
}

impl TryFrom<Vec<String>> for LabelNames {
    type Error = DataError;

    fn try_from(names: Vec<String>) -> Result<LabelNames> {
        LabelNames::new(names)
    }
}

impl From<LabelNames> for Vec<String> {
    fn from(labels: LabelNames) -> Vec<String> {
        labels.names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin { path: PathBuf::from("train.tsv"), unit: "line" }
    }

    fn found(names: &[&str]) -> Result<LabelNames> {
        LabelNames::for_training(None, names.iter().copied(), &origin())
    }

    #[test]
    fn names_found_are_sorted_and_numbers_by_value() {
        assert_eq!(found(&["O", "B-PER", "O", "I-PER"]).unwrap().names(), ["B-PER", "I-PER", "O"]);
        assert_eq!(found(&["10", "9", "-1", "2.5", "9"]).unwrap().names(), ["-1", "2.5", "9", "10"]);
        assert_eq!(found(&["10", "9", "x"]).unwrap().names(), ["10", "9", "x"]);
    }

    #[test]
    fn given_names_keep_their_order() {
        let given = LabelNames::new(vec!["b".into(), "a".into(), "c".into()]).unwrap();
        let names = LabelNames::for_training(Some(&given), ["a", "b"].into_iter(), &origin()).unwrap();
        assert_eq!((names.class("b"), names.class("c"), names.class("d")), (Some(0), Some(2), None));
        let json = serde_json::to_string(&names).unwrap();
        assert_eq!(json, r#"["b","a","c"]"#);
        assert_eq!(serde_json::from_str::<LabelNames>(&json).unwrap(), names);
    }

    #[test]
    fn one_class_repeated_names_and_unknown_labels_are_errors() {
        let found_names = found(&["a", "b"]).unwrap();
        let given_names = LabelNames::new(vec!["a".into(), "b".into()]).unwrap();
        let dev = Origin { path: PathBuf::from("dev.tsv"), unit: "line" };
        for (error, expected) in [
            (
                found(&["a", "a"]).unwrap_err(),
                "train.tsv: requires labels of at least two classes, got only \"a\"; add examples of the other classes",
            ),
            (
                found_names.class_at("c", &dev, 7).unwrap_err(),
                "dev.tsv: requires one of the labels \"a\", \"b\" on line 7, got \"c\"; correct it, or add examples with it to \
                 train.tsv",
            ),
            (
                given_names.class_at("c", &dev, 7).unwrap_err(),
                "dev.tsv: requires one of the labels \"a\", \"b\" on line 7, got \"c\"; correct it, or add it to labels",
            ),
            (
                LabelNames::new(vec!["a".into(), "a".into()]).unwrap_err(),
                "labels: requires each name once, got \"a\" twice",
            ),
            (LabelNames::new(vec!["a".into()]).unwrap_err(), "labels: requires at least two names, got only \"a\""),
        ] {
            assert_eq!(error.to_string(), expected);
        }
    }
}
