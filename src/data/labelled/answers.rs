//! From logits to answers: the best spans of a question over all of its windows (google-research/bert `run_squad.py`,
//! `write_predictions`).
//!
//! The score of a span is the start logit of its first token plus the end logit of its last. A span starts at a token that
//! has most context in its window. In SQuAD v2.0, the score of "no answer" is the least score of `[CLS]` over the windows;
//! it wins if it exceeds the best span's by more than a threshold.

use std::collections::HashSet;
use std::ops::Range;

use rayon::prelude::*;
use serde::Serialize;

use super::answer_text::characters_of;
use super::squad::Context;
use super::windows::{ContextTokens, QuestionWindows};
use crate::data::error::Result;
use crate::data::tokenizer::encode::Tokenizer;
use crate::data::tokenizer::word_mark::CONTINUATION_PREFIX;

/// The choice of answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AnswerOptions {
    /// The number of starts and ends of a window that are combined, and of candidates that are kept.
    pub n_best: usize,
    /// The longest answer in tokens.
    pub longest_answer: usize,
    /// For SQuAD v2.0: by how much the score of "no answer" must exceed the best span's. None: every question has an answer.
    pub null_threshold: Option<f64>,
}

impl Default for AnswerOptions {
    /// Returns the values of google-research/bert for SQuAD v1.1: 20 and 30.
    fn default() -> Self {
        AnswerOptions { n_best: 20, longest_answer: 30, null_threshold: None }
    }
}

/// The logits of the sequence of one window, one for each position. Logits of padding can be left out.
#[derive(Clone, Copy, Debug)]
pub struct SpanLogits<'a> {
    /// The logits of the first position of the answer.
    pub start: &'a [f32],
    /// The logits of the last position of the answer.
    pub end: &'a [f32],
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PredictedAnswer {
    /// The id of the question.
    pub id: String,
    /// The text; empty for "no answer".
    pub text: String,
    /// The number of characters (code points) of the context before the text.
    pub start: Option<usize>,
    /// The softmax of its score over the candidates.
    pub probability: f64,
    /// For SQuAD v2.0: the score of "no answer" minus that of the best span, infinite if there is no span.
    pub null_score_difference: Option<f64>,
    /// Different texts by falling score, among them `""` for "no answer" in SQuAD v2.0.
    pub candidates: Vec<AnswerCandidate>,
}

/// A possible answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnswerCandidate {
    /// The text; empty for "no answer".
    pub text: String,
    /// The number of characters (code points) of the context before the text.
    pub start: Option<usize>,
    /// The logit of its first token.
    pub start_logit: f32,
    /// The logit of its last token.
    pub end_logit: f32,
    /// The softmax of its score over the candidates.
    pub probability: f64,
}

/// A span of tokens of the context, or none for "no answer", with its logits.
#[derive(Clone, Copy)]
struct Span {
    /// The first and the last token.
    tokens: Option<[usize; 2]>,
    start_logit: f32,
    end_logit: f32,
}

impl QuestionWindows {
    /// Chooses the answer to each question, in the order of the questions. `logits[i]` belongs to example `i`.
    ///
    /// # Errors
    /// If a context cannot be split into words.
    ///
    /// # Panics
    /// If there are not as many logits as windows, or fewer than the tokens of a window.
    pub fn answers(
        &self,
        tokenizer: &Tokenizer,
        logits: &[SpanLogits],
        options: AnswerOptions,
    ) -> Result<Vec<PredictedAnswer>> {
        assert_eq!(logits.len(), self.windows.len(), "each window has logits");
        let questions = (0..self.of_question.len()).into_par_iter();
        questions.map(|question| self.answer(question, tokenizer, logits, options)).collect()
    }

    fn answer(
        &self,
        question: usize,
        tokenizer: &Tokenizer,
        logits: &[SpanLogits],
        options: AnswerOptions,
    ) -> Result<PredictedAnswer> {
        let mut spans = self.spans(question, logits, options);
        let null = options.null_threshold.and_then(|_| self.null(question, logits));
        spans.extend(null);
        spans.sort_by(|a, b| b.score().total_cmp(&a.score()));

        let mut seen = HashSet::new();
        let mut candidates = Vec::new();
        for span in &spans {
            if candidates.len() == options.n_best {
                break;
            }
            let candidate = self.candidate(question, span, tokenizer)?;
            if seen.insert(candidate.text.clone()) {
                candidates.push(candidate);
            }
        }
        if let Some(null) = null.filter(|_| !seen.contains("")) {
            candidates.push(self.candidate(question, &null, tokenizer)?);
        }
        set_probabilities(&mut candidates);

        let best = candidates.iter().find(|candidate| !candidate.text.is_empty());
        let difference = null.map(|null| best.map_or(f64::INFINITY, |best| null.score() - best.score()));
        let is_null =
            difference.zip(options.null_threshold).is_some_and(|(difference, threshold)| difference > threshold);
        let chosen = match is_null {
            true => candidates.iter().find(|candidate| candidate.text.is_empty()),
            false => best,
        };
        Ok(PredictedAnswer {
            id: self.questions.questions()[question].id.clone(),
            text: chosen.map_or_else(String::new, |chosen| chosen.text.clone()),
            start: chosen.and_then(|chosen| chosen.start),
            probability: chosen.map_or(0.0, |chosen| chosen.probability),
            null_score_difference: difference,
            candidates,
        })
    }

    /// Combines the best starts and ends of each window into valid spans.
    fn spans(&self, question: usize, logits: &[SpanLogits], options: AnswerOptions) -> Vec<Span> {
        let mut spans = Vec::new();
        for window in self.of_question[question].clone() {
            let SpanLogits { start, end } = logits[window];
            let (starts, ends) = (best(start, options.n_best), best(end, options.n_best));
            for &first in &starts {
                let Some(first_token) = self.token_at(window, first) else { continue };
                if !self.has_most_context(question, window, first_token) {
                    continue;
                }
                for &last in
                    ends.iter().filter(|&&last| (first..first.saturating_add(options.longest_answer)).contains(&last))
                {
                    let Some(last_token) = self.token_at(window, last) else { continue };
                    let tokens = Some([first_token, last_token]);
                    spans.push(Span { tokens, start_logit: start[first], end_logit: end[last] });
                }
            }
        }
        spans
    }

    /// Returns "no answer" with the logits of the window where its score is least.
    fn null(&self, question: usize, logits: &[SpanLogits]) -> Option<Span> {
        let windows = logits[self.of_question[question].clone()].iter();
        let nulls = windows.map(|logits| Span { tokens: None, start_logit: logits.start[0], end_logit: logits.end[0] });
        nulls.min_by(|a, b| a.score().total_cmp(&b.score()))
    }

    /// Returns the token of the context at a position of a window's sequence.
    pub(super) fn token_at(&self, window: usize, position: usize) -> Option<usize> {
        let window = &self.windows[window];
        let token = window.tokens.start + position.checked_sub(window.position)?;
        window.tokens.contains(&token).then_some(token)
    }

    fn candidate(&self, question: usize, span: &Span, tokenizer: &Tokenizer) -> Result<AnswerCandidate> {
        let Span { tokens, start_logit, end_logit } = *span;
        let (text, start) = match tokens {
            None => (String::new(), None),
            Some([first, last]) => {
                let (text, start) = self.text_of(question, first, last, tokenizer)?;
                (text, Some(start))
            }
        };
        Ok(AnswerCandidate { text, start, start_logit, end_logit, probability: 0.0 })
    }

    /// Returns the text of tokens as it is written in the context, and the number of characters before it.
    fn text_of(&self, question: usize, first: usize, last: usize, tokenizer: &Tokenizer) -> Result<(String, usize)> {
        let index = self.questions.questions()[question].context;
        let (context, tokens) = (&self.questions.contexts()[index], &self.contexts[index]);
        let words = tokens.words[first] as usize..=tokens.words[last] as usize;
        let original = context.joined(words.clone());
        let characters = match tokenizer.word_piece() {
            Some(word_piece) => {
                let predicted = join_pieces(&tokens.ids[first..=last], tokenizer);
                characters_of(&predicted, &original, word_piece.rules())?
            }
            None => {
                let [start, end] = [first, last].map(|token| characters_of_token(context, tokens, token, tokenizer));
                let before_last = context.joined(words.clone()).chars().count()
                    - context.words().nth(*words.end()).map_or(0, |word| word.chars().count());
                start?.start..before_last + end?.end
            }
        };
        let text = original.chars().skip(characters.start).take(characters.len()).collect();
        Ok((text, context.start_of(words, characters.start)))
    }
}

impl Span {
    fn score(&self) -> f64 {
        self.start_logit as f64 + self.end_logit as f64
    }
}

impl AnswerCandidate {
    /// Returns the sum of both logits.
    pub fn score(&self) -> f64 {
        self.start_logit as f64 + self.end_logit as f64
    }
}

/// Returns the characters of its word that a token stands for.
fn characters_of_token(
    context: &Context,
    tokens: &ContextTokens,
    token: usize,
    tokenizer: &Tokenizer,
) -> Result<Range<usize>> {
    let (number, at) = tokens.place(token);
    let word = context.words().nth(number).unwrap_or_default();
    let ranges = tokenizer.token_ranges(word, number > 0).transpose()?;
    let bytes = ranges.and_then(|ranges| ranges.get(at).cloned()).unwrap_or(0..word.len());
    let characters = |byte: usize| word.get(..byte).map_or_else(|| word.chars().count(), |text| text.chars().count());
    Ok(characters(bytes.start)..characters(bytes.end))
}

/// Joins the pieces of words, and the words with spaces.
fn join_pieces(ids: &[u32], tokenizer: &Tokenizer) -> String {
    let tokens: Vec<&str> = ids.iter().filter_map(|&id| tokenizer.vocabulary().token(id)).collect();
    let joined = tokens.join(" ").replace(&format!(" {CONTINUATION_PREFIX}"), "").replace(CONTINUATION_PREFIX, "");
    joined.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the positions of the `count` largest logits, largest first; of equals the first.
fn best(logits: &[f32], count: usize) -> Vec<usize> {
    let mut positions: Vec<usize> = (0..logits.len()).collect();
    positions.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    positions.truncate(count);
    positions
}

/// Sets the probabilities: the softmax of the scores.
fn set_probabilities(candidates: &mut [AnswerCandidate]) {
    let largest = candidates.iter().map(AnswerCandidate::score).fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = candidates.iter().map(|candidate| (candidate.score() - largest).exp()).sum();
    for candidate in candidates {
        candidate.probability = (candidate.score() - largest).exp() / sum;
    }
}
