//! The difference between two vocabularies, or between the rules of two tokenizers, as an error reports it.

use std::fmt;
use std::path::{Path, PathBuf};

/// The difference between two vocabularies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VocabularyDifference {
    /// The two files.
    pub files: [PathBuf; 2],
    /// The token of the lowest id that has different tokens: that of the first vocabulary or, behind its end, of the second.
    pub token: String,
    /// The ids of this token.
    pub ids: [Option<u32>; 2],
    /// The number of ids with different tokens. An id of only one vocabulary counts, too.
    pub differing: usize,
    /// The number of ids of the larger vocabulary.
    pub of: usize,
}

impl VocabularyDifference {
    /// Returns the difference between two vocabularies, each given as its file and its tokens; none if they are equal.
    pub fn between(a: (&Path, &[String]), b: (&Path, &[String])) -> Option<VocabularyDifference> {
        let (first, second) = (a.1, b.1);
        let of = first.len().max(second.len());
        let mut differing = (0..of).filter(|&id| first.get(id) != second.get(id));
        let lowest = differing.next()?;
        let token = first.get(lowest).or(second.get(lowest))?;
        let id_in = |tokens: &[String]| tokens.iter().position(|other| other == token).map(|id| id as u32);
        Some(VocabularyDifference {
            files: [a.0.to_owned(), b.0.to_owned()],
            token: token.clone(),
            ids: [id_in(first), id_in(second)],
            differing: 1 + differing.count(),
            of,
        })
    }
}

impl fmt::Display for VocabularyDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = &self.files;
        let [in_first, in_second] = self.ids.map(|id| id.map_or("no id".to_owned(), |id| format!("id {id}")));
        write!(
            f,
            "{} and {} hold different vocabularies: token {:?} has {in_first} in the first and {in_second} in the second, and {} \
             of {} ids have different tokens",
            first.display(),
            second.display(),
            self.token,
            self.differing,
            self.of
        )
    }
}

/// The difference between the rules of two tokenizers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesDifference {
    /// The files that state them.
    pub files: [PathBuf; 2],
    /// Each setting that differs, with both values.
    pub settings: Vec<(&'static str, [String; 2])>,
}

impl RulesDifference {
    /// Returns the difference between rules, each given as its file and its settings; none if they are equal. If the two have
    /// different settings, only those before the first such one are compared: the model.
    pub fn between(
        a: (&Path, Vec<(&'static str, String)>),
        b: (&Path, Vec<(&'static str, String)>),
    ) -> Option<RulesDifference> {
        let both = a.1.into_iter().zip(b.1).take_while(|((first, _), (second, _))| first == second);
        let both = both.map(|((name, first), (_, second))| (name, [first, second]));
        let settings: Vec<_> = both.filter(|(_, [first, second])| first != second).collect();
        (!settings.is_empty()).then(|| RulesDifference { files: [a.0.to_owned(), b.0.to_owned()], settings })
    }
}

impl fmt::Display for RulesDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = &self.files;
        let settings = self
            .settings
            .iter()
            .map(|(name, [first, second])| format!("{name} is {first} in the first and {second} in the second"));
        write!(
            f,
            "{} and {} state different rules of words: {}",
            first.display(),
            second.display(),
            settings.collect::<Vec<_>>().join(", ")
        )
    }
}
