//! Labels of the words of texts with their probabilities, and the entities that they form, as the token-classification pipeline
//! of transformers with `aggregation_strategy="first"`: a word has the label of its first piece.

use std::ops::Range;

use serde::Serialize;

use super::forward::{Forward, Weights};
use super::{TextModel, largest, softmax};
use crate::bert::Head;
use crate::data::{ExampleLabels, LabelNames, LabelledExamples, LabelledSentences};

/// The label of a word outside of all entities.
const OUTSIDE: &str = "O";

/// Tokenized texts with the places of their words.
#[derive(Clone, Debug)]
pub struct LabelledWordTexts {
    texts: Vec<String>,
    /// The bytes of each word.
    words: Vec<Vec<Range<usize>>>,
    labels: Vec<String>,
    examples: LabelledExamples,
}

/// The prediction for a text. Words behind the end of the sequence have none.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WordsPrediction {
    /// The text.
    pub text: String,
    /// Its words.
    pub words: Vec<WordPrediction>,
    /// Adjacent words that form an entity.
    pub entities: Vec<Entity>,
}

/// The label of a word: a run of letters and digits, or a punctuation mark.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WordPrediction {
    /// The word, as in the text.
    pub word: String,
    /// The most probable label.
    pub label: String,
    /// Its probability, by the softmax of the logits.
    pub probability: f64,
    /// Characters (code points) of the text before the word.
    pub start: usize,
    /// Characters of the text up to the end of the word.
    pub end: usize,
}

/// Adjacent words with one type, the label without `B-` or `I-`. A label with `B-` begins an entity, a label without prefix
/// continues one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entity {
    /// The type.
    pub label: String,
    /// The mean of the probabilities of its words.
    pub probability: f64,
    /// The text.
    pub text: String,
    /// Characters (code points) of the whole text before the entity.
    pub start: usize,
    /// Characters of the whole text up to its end.
    pub end: usize,
}

impl LabelledWordTexts {
    /// Splits texts into words and tokenizes them; longer ones are truncated to the sequence length of `model`.
    ///
    /// # Errors
    /// If the model does not label tokens, or its labels are fewer than two or not unique; if the sequence length is below 5.
    pub fn new(texts: Vec<String>, model: &TextModel) -> anyhow::Result<LabelledWordTexts> {
        let Head::TokenClassification { labels } = &model.model.head else {
            anyhow::bail!(
                "labels of words require a model with a token classifier, got {}",
                model.model.head.architecture()
            );
        };
        let (tokenizer, names) = (&model.tokenizer, LabelNames::new(labels.clone())?);
        let words: Vec<Vec<Range<usize>>> =
            texts.iter().map(|text| tokenizer.word_ranges(text)).collect::<Result<_, _>>()?;
        let sentence = |(text, words): (&String, &Vec<Range<usize>>)| -> Vec<String> {
            words.iter().map(|word| text[word.clone()].to_owned()).collect()
        };
        let sentences = LabelledSentences::from(texts.iter().zip(&words).map(sentence).collect::<Vec<_>>());
        let examples = LabelledExamples::token_classification(&sentences, &names, tokenizer, model.sequence_length)?;
        Ok(LabelledWordTexts { texts, words, labels: labels.clone(), examples })
    }

    /// Returns the number of texts that were longer than the sequence length.
    pub fn truncated(&self) -> usize {
        self.examples.truncated()
    }

    /// Predicts the label of each word.
    ///
    /// # Errors
    /// As [`Forward::map`].
    pub fn predict(&self, forward: &mut Forward, weights: &Weights) -> anyhow::Result<Vec<WordsPrediction>> {
        let ExampleLabels::TokenClasses(of_example) = self.examples.labels() else {
            unreachable!("the examples were tokenized for token classification")
        };
        forward.map(weights, &self.examples, |example, outputs| {
            let text = &self.texts[example];
            let logits: Vec<&[f32]> = outputs[0].chunks(self.labels.len()).collect();
            let word = |(range, &position): (&Range<usize>, &u32)| {
                let probabilities = softmax(logits[position as usize]);
                let class = largest(&probabilities, 1)[0];
                let start = text[..range.start].chars().count();
                let word = text[range.clone()].to_owned();
                let end = start + word.chars().count();
                WordPrediction {
                    word,
                    label: self.labels[class].clone(),
                    probability: probabilities[class],
                    start,
                    end,
                }
            };
            let words: Vec<WordPrediction> =
                self.words[example].iter().zip(&of_example[example].positions).map(word).collect();
            let entities = entities(text, &words);
            Ok(WordsPrediction { text: text.clone(), words, entities })
        })
    }
}

/// Groups words into entities.
fn entities(text: &str, words: &[WordPrediction]) -> Vec<Entity> {
    let mut groups: Vec<(&str, &[WordPrediction])> = Vec::new();
    let mut start = 0;
    for (index, word) in words.iter().enumerate() {
        let (begins, kind) = match word.label.split_once('-') {
            Some(("B", kind)) => (true, kind),
            Some(("I", kind)) => (false, kind),
            _ => (false, word.label.as_str()),
        };
        match groups.last_mut() {
            Some((last, group)) if *last == kind && !begins => *group = &words[start..=index],
            _ => {
                start = index;
                groups.push((kind, &words[index..=index]));
            }
        }
    }
    let entity = |(kind, group): (&str, &[WordPrediction])| {
        let (start, end) = (group[0].start, group[group.len() - 1].end);
        let probability = group.iter().map(|word| word.probability).sum::<f64>() / group.len() as f64;
        let text = text.chars().skip(start).take(end - start).collect();
        Entity { label: kind.to_owned(), probability, text, start, end }
    };
    groups.into_iter().filter(|(kind, _)| *kind != OUTSIDE).map(entity).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_words_of_one_type_form_an_entity() {
        let text = "Ann Lee, Bo in Köln";
        let labels = [("Ann", "B-PER"), ("Lee", "I-PER"), (",", "O"), ("Bo", "B-PER"), ("in", "O"), ("Köln", "I-LOC")];
        let mut words = Vec::new();
        for (word, label) in labels {
            let start = text[..text.find(word).unwrap()].chars().count();
            let end = start + word.chars().count();
            let probability = if word == "Lee" { 0.5 } else { 1.0 };
            words.push(WordPrediction { word: word.into(), label: label.into(), probability, start, end });
        }
        let found: Vec<(String, String, f64, usize, usize)> =
            entities(text, &words).into_iter().map(|e| (e.label, e.text, e.probability, e.start, e.end)).collect();
        let expected = [("PER", "Ann Lee", 0.75, 0, 7), ("PER", "Bo", 1.0, 9, 11), ("LOC", "Köln", 1.0, 15, 19)];
        assert_eq!(found, expected.map(|(label, text, p, start, end)| (label.into(), text.into(), p, start, end)));
    }
}
