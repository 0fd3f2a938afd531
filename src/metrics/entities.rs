//! Precision, recall and F1 of entities in sequences of labels such as `B-PER`, `I-PER` and `O`, as seqeval's default
//! mode (micro average), whose rules are those of conlleval, the script of the CoNLL-2000 and CoNLL-2003 shared tasks.
//!
//! The rules are lenient with invalid transitions: an `I-` after `O`, or after another type, starts an entity. The
//! prefixes `E-` (last word) and `S-` (single word) of IOBES are understood too.

use std::ops::{Add, AddAssign};

use super::ratio_or_zero;

/// A typed range of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entity<'a> {
    /// The first word.
    pub start: usize,
    /// The word after the last one.
    pub end: usize,
    /// The type: `PER` of `B-PER`, and `_` of a bare `B`.
    pub kind: &'a str,
}

/// Returns the entities of one sequence, in order. An empty label counts as `O`.
#[must_use]
pub fn entities<S: AsRef<str>>(labels: &[S]) -> Vec<Entity<'_>> {
    let mut found = Vec::new();
    let (mut previous, mut start) = (Label::OUTSIDE, 0);
    for (i, label) in labels.iter().map(|label| Label::of(label.as_ref())).chain([Label::OUTSIDE]).enumerate() {
        if previous.ends_before(label) {
            found.push(Entity { start, end: i, kind: previous.kind });
        }
        if label.starts_after(previous) {
            start = i;
        }
        previous = label;
    }
    found
}

/// A label, separated into its prefix and type.
#[derive(Clone, Copy)]
struct Label<'a> {
    prefix: char,
    kind: &'a str,
}

impl<'a> Label<'a> {
    const OUTSIDE: Label<'static> = Label { prefix: 'O', kind: "_" };

    fn of(label: &'a str) -> Label<'a> {
        let mut rest = label.chars();
        let prefix = rest.next().unwrap_or('O');
        let kind = rest.as_str();
        let kind = kind.split_once('-').map_or(kind, |(_, kind)| kind);
        Label { prefix, kind: if kind.is_empty() { "_" } else { kind } }
    }

    fn is_outside(self) -> bool {
        matches!(self.prefix, 'O' | '.')
    }

    /// Returns whether an entity that `self` belongs to ends before `next`.
    fn ends_before(self, next: Label) -> bool {
        match (self.prefix, next.prefix) {
            ('E' | 'S', _) | ('B' | 'I', 'B' | 'S' | 'O') => true,
            _ => !self.is_outside() && self.kind != next.kind,
        }
    }

    /// Returns whether `self` starts an entity after `previous`.
    fn starts_after(self, previous: Label) -> bool {
        match (previous.prefix, self.prefix) {
            (_, 'B' | 'S') | ('E' | 'S' | 'O', 'E' | 'I') => true,
            _ => !self.is_outside() && self.kind != previous.kind,
        }
    }
}

/// The numbers of entities that the scores are ratios of. Counts of several sequences add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntityCounts {
    /// Predicted entities with the range and the type of a gold entity.
    pub correct: usize,
    /// Predicted entities.
    pub predicted: usize,
    /// Gold entities.
    pub gold: usize,
}

impl EntityCounts {
    /// Counts the entities of one sequence with the labels `gold` and `predicted`.
    ///
    /// # Panics
    ///
    /// Panics if the lengths differ.
    #[must_use]
    pub fn of<S: AsRef<str>, T: AsRef<str>>(gold: &[S], predicted: &[T]) -> EntityCounts {
        assert_eq!(gold.len(), predicted.len(), "one predicted label for each gold label");
        let (gold, predicted) = (entities(gold), entities(predicted));
        // The entities of a sequence are in order.
        let correct = predicted.iter().filter(|entity| gold.binary_search(entity).is_ok()).count();
        EntityCounts { correct, predicted: predicted.len(), gold: gold.len() }
    }

    /// Returns the fraction of predicted entities that are correct; 0 if none is predicted.
    #[must_use]
    pub fn precision(self) -> f64 {
        ratio_or_zero(self.correct as f64, self.predicted as f64)
    }

    /// Returns the fraction of gold entities that are predicted; 0 if there is none.
    #[must_use]
    pub fn recall(self) -> f64 {
        ratio_or_zero(self.correct as f64, self.gold as f64)
    }

    /// Returns the harmonic mean of precision and recall; 0 if both are 0.
    #[must_use]
    pub fn f1(self) -> f64 {
        let (precision, recall) = (self.precision(), self.recall());
        ratio_or_zero(2.0 * precision * recall, precision + recall)
    }
}

impl Add for EntityCounts {
    type Output = EntityCounts;

    fn add(self, other: EntityCounts) -> EntityCounts {
        EntityCounts {
            correct: self.correct + other.correct,
            predicted: self.predicted + other.predicted,
            gold: self.gold + other.gold,
        }
    }
}

impl AddAssign for EntityCounts {
    fn add_assign(&mut self, other: EntityCounts) {
        *self = *self + other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(labels: &str) -> String {
        let labels: Vec<&str> = labels.split(' ').collect();
        let shown = |e: Entity| format!("{}{}..{}", e.kind, e.start, e.end);
        entities(&labels).into_iter().map(shown).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn adjacent_entities_are_separate() {
        assert_eq!(found("B-P I-P B-P B-L O I-L"), "P0..2 P2..3 L3..4 L5..6");
    }

    #[test]
    fn invalid_transitions_start_an_entity() {
        assert_eq!(found("I-P I-P O I-L I-P"), "P0..2 L3..4 P4..5");
        assert_eq!(found("B I O B-A-B"), "_0..2 A-B3..4");
        assert_eq!(found("S-P E-P B-P E-P I-P"), "P0..1 P1..2 P2..4 P4..5");
    }

    #[test]
    fn entity_with_another_type_or_range_is_wrong() {
        let gold = ["B-P", "I-P", "O", "B-L"];
        let counts = EntityCounts::of(&gold, &["B-P", "O", "O", "B-P"]);
        assert_eq!(counts, EntityCounts { correct: 0, predicted: 2, gold: 2 });
        assert_eq!((counts.precision(), counts.recall(), counts.f1()), (0.0, 0.0, 0.0));
        let sum = counts + EntityCounts::of(&gold, &["B-P", "I-P", "O", "O"]);
        assert_eq!((sum.precision(), sum.recall()), (1.0 / 3.0, 0.25));
    }
}
