//! Exact match and F1 of extracted answers, equal to the official scripts of SQuAD v1.1 and v2.0 (`evaluate-v1.1.py`,
//! `evaluate-v2.0.py`), which print them times 100.
//!
//! Both scripts compare normalised answers ([`normalize_answer`]) and take the best score over the gold answers of a
//! question. They differ for answers that are empty after normalisation: v1.1 gives them an F1 of 0, v2.0 an F1 of 1 if
//! both are empty.

use std::collections::HashMap;

use super::mean;

/// The scores of one question, or their means over several.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AnswerScore {
    /// 1 if the normalised answer equals a gold answer, else 0.
    pub exact: f64,
    /// F1 of the words of the answer and a gold answer, from 0 to 1.
    pub f1: f64,
}

impl AnswerScore {
    /// The score of a wrong answer, and of a question that v1.1 has no prediction for.
    pub const WRONG: AnswerScore = AnswerScore { exact: 0.0, f1: 0.0 };

    /// Scores a prediction as SQuAD v1.1: the best of each score over the gold answers, of which v1.1 has at least one.
    #[must_use]
    pub fn v1<S: AsRef<str>>(prediction: &str, gold: &[S]) -> AnswerScore {
        let prediction = normalize_answer(prediction);
        gold.iter().fold(AnswerScore::WRONG, |best, gold| {
            let gold = normalize_answer(gold.as_ref());
            best.max(AnswerScore { exact: f64::from(gold == prediction), f1: word_f1(&prediction, &gold) })
        })
    }

    /// Scores a prediction as SQuAD v2.0. The empty prediction means no answer. It is the right one if no gold answer
    /// has a word left after normalisation, as for a question without gold answers.
    #[must_use]
    pub fn v2<S: AsRef<str>>(prediction: &str, gold: &[S]) -> AnswerScore {
        let prediction = normalize_answer(prediction);
        let mut gold: Vec<String> = gold.iter().map(|gold| normalize_answer(gold.as_ref())).collect();
        gold.retain(|gold| !gold.is_empty());
        if gold.is_empty() {
            gold.push(String::new());
        }
        gold.iter().fold(AnswerScore::WRONG, |best, gold| {
            let exact = f64::from(*gold == prediction);
            let any_empty = gold.is_empty() || prediction.is_empty();
            best.max(AnswerScore { exact, f1: if any_empty { exact } else { word_f1(&prediction, gold) } })
        })
    }

    /// Returns the mean of each score; NaN without questions.
    #[must_use]
    pub fn mean(scores: &[AnswerScore]) -> AnswerScore {
        AnswerScore {
            exact: mean(scores.iter().map(|score| score.exact)),
            f1: mean(scores.iter().map(|score| score.f1)),
        }
    }

    /// Returns the larger of each score; the two may come from different gold answers.
    fn max(self, other: AnswerScore) -> AnswerScore {
        AnswerScore { exact: self.exact.max(other.exact), f1: self.f1.max(other.f1) }
    }
}

/// A question of SQuAD v2.0 with the score of its prediction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// The score of the predicted text, before a threshold.
    pub score: AnswerScore,
    /// True if the question has gold answers.
    pub has_answer: bool,
    /// True if the predicted text is not empty.
    pub answers: bool,
    /// The confidence that the question has no answer, on any scale whose order is the same for all questions.
    pub no_answer_probability: f64,
}

impl Outcome {
    /// Scores the predicted text of a question; `gold` is empty if it has no answer.
    #[must_use]
    pub fn new<S: AsRef<str>>(prediction: &str, gold: &[S], no_answer_probability: f64) -> Outcome {
        Outcome {
            score: AnswerScore::v2(prediction, gold),
            has_answer: !gold.is_empty(),
            answers: !prediction.is_empty(),
            no_answer_probability,
        }
    }

    /// Returns the score if questions above `threshold` get no answer.
    fn score_at(&self, threshold: f64) -> AnswerScore {
        if self.no_answer_probability > threshold {
            let right = f64::from(!self.has_answer);
            AnswerScore { exact: right, f1: right }
        } else {
            self.score
        }
    }
}

/// The result of SQuAD v2.0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct V2Scores {
    /// The mean over all questions; NaN without questions.
    pub all: AnswerScore,
    /// The mean over the questions with an answer, HasAns; NaN if there is none.
    pub has_answer: AnswerScore,
    /// The mean over the questions without an answer, NoAns; NaN if there is none.
    pub no_answer: AnswerScore,
    /// The number of questions with an answer.
    pub has_answer_total: usize,
    /// The number of questions without an answer.
    pub no_answer_total: usize,
    /// The best exact match over all thresholds.
    pub best_exact: BestThreshold,
    /// The best F1 over all thresholds.
    pub best_f1: BestThreshold,
}

impl V2Scores {
    /// Computes the means, where questions with a no-answer probability above `threshold` get no answer, and the best
    /// thresholds. The official script's default threshold is 1, which leaves probabilities without effect.
    #[must_use]
    pub fn of(outcomes: &[Outcome], threshold: f64) -> V2Scores {
        let mean_of = |select: &dyn Fn(&Outcome) -> bool| {
            let selected = outcomes.iter().filter(|outcome| select(outcome));
            AnswerScore::mean(&selected.map(|outcome| outcome.score_at(threshold)).collect::<Vec<_>>())
        };
        let has_answer_total = outcomes.iter().filter(|outcome| outcome.has_answer).count();
        V2Scores {
            has_answer_total,
            no_answer_total: outcomes.len() - has_answer_total,
            all: mean_of(&|_| true),
            has_answer: mean_of(&|outcome| outcome.has_answer),
            no_answer: mean_of(&|outcome| !outcome.has_answer),
            best_exact: BestThreshold::of(outcomes, |score| score.exact),
            best_f1: BestThreshold::of(outcomes, |score| score.f1),
        }
    }
}

/// The threshold of no-answer probabilities with the best mean score on these questions: an upper bound, since it is
/// chosen on the same questions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BestThreshold {
    /// The mean score; NaN without questions.
    pub score: f64,
    /// Questions with a higher no-answer probability get no answer.
    pub threshold: f64,
}

impl BestThreshold {
    /// Finds the best threshold of one of the scores, as `find_best_thresh` of the official script: answers questions
    /// in ascending order of their no-answer probability, those of equal probability in the given order.
    #[must_use]
    pub fn of(outcomes: &[Outcome], score: impl Fn(&AnswerScore) -> f64) -> BestThreshold {
        let mut ascending: Vec<&Outcome> = outcomes.iter().collect();
        ascending.sort_by(|a, b| a.no_answer_probability.total_cmp(&b.no_answer_probability));
        // With no question answered, those without an answer are right.
        let mut total = outcomes.iter().filter(|outcome| !outcome.has_answer).count() as f64;
        let mut best = BestThreshold { score: total, threshold: 0.0 };
        for outcome in ascending {
            total += match (outcome.has_answer, outcome.answers) {
                (true, _) => score(&outcome.score),
                (false, true) => -1.0,
                (false, false) => 0.0,
            };
            if total > best.score {
                best = BestThreshold { score: total, threshold: outcome.no_answer_probability };
            }
        }
        BestThreshold { score: best.score / outcomes.len() as f64, ..best }
    }
}

/// Normalises an answer as both official scripts: lower case, without ASCII punctuation, without the words `a`, `an`
/// and `the`, and with single spaces.
///
/// Letters and digits form words, as in Python. Python does not count the few characters of Unicode's class
/// Other_Alphabetic (such as vowel signs of Indic scripts) among the letters; this matters only directly beside `a`,
/// `an` or `the`.
#[must_use]
pub fn normalize_answer(text: &str) -> String {
    let lower = text.to_lowercase();
    let text: String = lower.chars().filter(|c| !c.is_ascii_punctuation()).collect();
    // Neighbours in a chunk are both inside a word, or neither is.
    let in_word = |c: char| c.is_alphanumeric();
    let characters: Vec<char> = text.chars().collect();
    let without_articles: String = characters
        .chunk_by(|&a, &b| in_word(a) == in_word(b))
        .map(String::from_iter)
        .map(|run| if ["a", "an", "the"].contains(&run.as_str()) { " ".to_owned() } else { run })
        .collect();
    let words: Vec<&str> = without_articles.split(is_python_space).filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// Returns whether Python's `str.split` separates at `c`: Unicode's white space and the four ASCII information
/// separators.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Returns F1 of the words of two normalised answers as multisets; 0 if they have no word in common.
fn word_f1(prediction: &str, gold: &str) -> f64 {
    let words = |text: &str| text.split(' ').filter(|word| !word.is_empty()).count() as f64;
    let mut remaining = HashMap::<&str, usize>::new();
    for word in gold.split(' ').filter(|word| !word.is_empty()) {
        *remaining.entry(word).or_default() += 1;
    }
    let mut common = 0.0;
    for word in prediction.split(' ') {
        if let Some(count @ 1..) = remaining.get_mut(word) {
            *count -= 1;
            common += 1.0;
        }
    }
    if common == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (common / words(prediction), common / words(gold));
    2.0 * precision * recall / (precision + recall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalisation_removes_case_punctuation_articles_and_spaces() {
        assert_eq!(normalize_answer("  The  Blue-Whale, a\tMAMMAL! "), "bluewhale mammal");
        assert_eq!(normalize_answer("anthem of an_other"), "anthem of another");
        assert_eq!(normalize_answer("–a– x\u{1c}y\u{a0}ÉTÉ ΟΔΟΣ"), "– – x y été οδος");
        assert_eq!(normalize_answer("The a an."), "");
    }

    #[test]
    fn repeated_words_count_as_often_as_in_both() {
        assert_eq!(AnswerScore::v1("red red blue", &["red green"]), AnswerScore { exact: 0.0, f1: 0.4 });
        assert_eq!(AnswerScore::v1("blue", &["red", "The blue!"]), AnswerScore { exact: 1.0, f1: 1.0 });
    }

    #[test]
    fn versions_differ_for_empty_answers_only() {
        assert_eq!(AnswerScore::v1("the", &["a"]), AnswerScore { exact: 1.0, f1: 0.0 });
        assert_eq!(AnswerScore::v2("the", &["a"]), AnswerScore { exact: 1.0, f1: 1.0 });
        assert_eq!(AnswerScore::v2::<&str>("word", &[]), AnswerScore::WRONG);
        assert_eq!(AnswerScore::v2::<&str>("", &[]), AnswerScore { exact: 1.0, f1: 1.0 });
    }

    #[test]
    fn best_threshold_separates_questions_without_answer() {
        let none: [&str; 0] = [];
        let outcomes = [Outcome::new("x", &["x"], 0.2), Outcome::new("y", &none, 0.7), Outcome::new("z", &none, 0.9)];
        let scores = V2Scores::of(&outcomes, 1.0);
        assert_eq!((scores.all.exact, scores.has_answer.f1, scores.no_answer.f1), (1.0 / 3.0, 1.0, 0.0));
        assert_eq!(scores.best_f1, BestThreshold { score: 1.0, threshold: 0.2 });
        assert_eq!(V2Scores::of(&outcomes, 0.2).all, AnswerScore { exact: 1.0, f1: 1.0 });
    }
}
