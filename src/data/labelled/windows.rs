//! Questions as token sequences. A context that does not fit into one sequence is divided into overlapping windows, and
//! each window is an example: `[CLS] question [SEP] window [SEP]` (google-research/bert `run_squad.py`,
//! `convert_examples_to_features`).
//!
//! A token in several windows belongs to the one in which it has most context: the largest minimum of tokens on its left and
//! tokens on its right, plus a hundredth of the window's length, and the first window of equals.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::sequence::Sequence;
use super::squad::{Answer, Context, Gold, Question, Questions};
use crate::batch::IGNORED_LABEL;
use crate::data::error::{DataError, Result};
use crate::data::tokenizer::encode::Tokenizer;

/// Lengths of questions and windows, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowOptions {
    /// S: the longest sequence, with special tokens.
    pub sequence_length: usize,
    /// Tokens between the starts of two windows.
    pub stride: usize,
    /// The longest question; the rest of a longer one is cut off.
    pub question_length: usize,
}

impl Default for WindowOptions {
    /// Returns the values of google-research/bert: 384, 128 and 64.
    fn default() -> Self {
        WindowOptions { sequence_length: 384, stride: 128, question_length: 64 }
    }
}

/// The windows of all questions, for the conversion of logits into answers. Example `i` of the examples is window `i`.
#[derive(Clone, Debug)]
pub struct QuestionWindows {
    pub(super) questions: Arc<Questions>,
    /// The tokens of each context.
    pub(super) contexts: Vec<ContextTokens>,
    pub(super) windows: Vec<Window>,
    /// The windows of each question.
    pub(super) of_question: Vec<Range<usize>>,
    /// Questions that were cut off.
    pub(super) truncated_questions: usize,
}

/// The tokens of a context.
#[derive(Clone, Debug)]
pub(super) struct ContextTokens {
    pub ids: Vec<u32>,
    /// The word of each token.
    pub words: Vec<u32>,
    /// The first token of each word, and the number of tokens.
    starts: Vec<u32>,
}

/// One window of the context of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// The position of its first token in the sequence.
    pub position: usize,
    /// Its tokens in the context.
    pub tokens: Range<usize>,
}

/// The sequences of windows, and the first and last position of each answer.
pub(super) type WindowSequences = (Vec<Sequence>, Vec<[i32; 2]>);

impl QuestionWindows {
    /// Tokenizes contexts and questions in parallel and divides the contexts into windows.
    pub(super) fn new(
        questions: Arc<Questions>,
        tokenizer: &Tokenizer,
        options: WindowOptions,
    ) -> Result<(QuestionWindows, WindowSequences)> {
        let contexts: Vec<ContextTokens> = questions
            .contexts()
            .par_iter()
            .map(|context| ContextTokens::new(context, tokenizer))
            .collect::<Result<_>>()?;
        let encoded: Vec<EncodedQuestion> = questions
            .questions()
            .par_iter()
            .map(|question| EncodedQuestion::new(&questions, question, &contexts[question.context], tokenizer, options))
            .collect::<Result<_>>()?;
        let truncated_questions = encoded.iter().filter(|question| question.is_truncated).count();
        let mut all =
            QuestionWindows { questions, contexts, windows: Vec::new(), of_question: Vec::new(), truncated_questions };
        let (mut sequences, mut spans) = (Vec::new(), Vec::new());
        for question in encoded {
            all.of_question.push(all.windows.len()..all.windows.len() + question.windows.len());
            all.windows.extend(question.windows);
            sequences.extend(question.sequences);
            spans.extend(question.spans);
        }
        Ok((all, (sequences, spans)))
    }

    /// Returns the questions.
    pub fn questions(&self) -> &Questions {
        &self.questions
    }

    /// Returns the examples of each question, in order.
    pub fn examples_of(&self, question: usize) -> Range<usize> {
        self.of_question[question].clone()
    }

    /// Returns the number of questions that were longer than the longest one allowed.
    pub fn truncated_questions(&self) -> usize {
        self.truncated_questions
    }

    /// Returns whether a window is the one of its question in which a token of the context has most context.
    pub(super) fn has_most_context(&self, question: usize, window: usize, token: usize) -> bool {
        let windows = self.of_question[question].clone();
        most_context(&self.windows[windows.clone()], token) == Some(window - windows.start)
    }
}

/// Returns the window in which `token` has most context. Scores are in hundredths of a token, hence exact.
fn most_context(windows: &[Window], token: usize) -> Option<usize> {
    let score = |tokens: &Range<usize>| 100 * (token - tokens.start).min(tokens.end - 1 - token) + tokens.len();
    let holding = windows.iter().enumerate().filter(|(_, window)| window.tokens.contains(&token));
    // Of equals, the last in reverse order is the first.
    holding.rev().max_by_key(|(_, window)| score(&window.tokens)).map(|(index, _)| index)
}

struct EncodedQuestion {
    windows: Vec<Window>,
    sequences: Vec<Sequence>,
    spans: Vec<[i32; 2]>,
    is_truncated: bool,
}

impl EncodedQuestion {
    fn new(
        questions: &Questions,
        question: &Question,
        context: &ContextTokens,
        tokenizer: &Tokenizer,
        options: WindowOptions,
    ) -> Result<EncodedQuestion> {
        let mut ids = Vec::new();
        tokenizer.encode(&question.text, &mut ids)?;
        let is_truncated = ids.len() > options.question_length;
        ids.truncate(options.question_length);
        let (vocabulary, pair) = (tokenizer.vocabulary(), tokenizer.vocabulary().pair_form());
        let longest = options.sequence_length.saturating_sub(ids.len() + pair.special_tokens());
        if longest == 0 {
            let required = format!("questions shorter than sequence_length, {} tokens", options.sequence_length);
            let (tokens, special) = (ids.len(), pair.special_tokens());
            let found = format!("{tokens} tokens and {special} special ones in {:?}", question.id);
            return Err(questions.wrong(required, found, "increase sequence_length, or decrease max_query_length"));
        }
        let answer = context.answer(questions, question, tokenizer)?;
        let position = pair.second_position(ids.len());
        let windows: Vec<Window> = windows(context.ids.len(), longest, options.stride)
            .into_iter()
            .map(|tokens| Window { position, tokens })
            .collect();
        let sequence = |window: &Window| Sequence::new(vocabulary, &ids, Some(&context.ids[window.tokens.clone()]));
        let sequences = windows.iter().map(sequence).collect();
        let spans = windows.iter().map(|window| answer.positions_in(window)).collect();
        Ok(EncodedQuestion { windows, sequences, spans, is_truncated })
    }
}

/// Divides `tokens` tokens into windows of at most `longest`. A window starts `stride` behind the one before it, at most
/// `longest`.
fn windows(tokens: usize, longest: usize, stride: usize) -> Vec<Range<usize>> {
    let starts = (0..).step_by(stride.min(longest).max(1));
    let mut windows = Vec::new();
    for start in starts {
        windows.push(start..(start + longest).min(tokens));
        if start + longest >= tokens {
            break;
        }
    }
    windows
}

/// The answer that training uses, in tokens of the context.
enum AnswerTokens {
    Unknown,
    Impossible,
    Tokens { first: usize, last: usize },
}

impl AnswerTokens {
    /// Returns the first and the last position of the answer in the sequence of a window: those of `[CLS]` if the window does
    /// not hold all of it.
    fn positions_in(&self, window: &Window) -> [i32; 2] {
        match *self {
            AnswerTokens::Unknown => [IGNORED_LABEL; 2],
            AnswerTokens::Tokens { first, last } if window.tokens.contains(&first) && window.tokens.contains(&last) => {
                [first, last].map(|token| (window.position + token - window.tokens.start) as i32)
            }
            AnswerTokens::Impossible | AnswerTokens::Tokens { .. } => [0; 2],
        }
    }
}

impl ContextTokens {
    fn new(context: &Context, tokenizer: &Tokenizer) -> Result<ContextTokens> {
        let mut tokens = ContextTokens { ids: Vec::new(), words: Vec::new(), starts: Vec::new() };
        for (number, word) in context.words().enumerate() {
            tokens.starts.push(tokens.ids.len() as u32);
            tokenizer.encode_part(word, number > 0, &mut tokens.ids)?;
            tokens.words.resize(tokens.ids.len(), number as u32);
        }
        tokens.starts.push(tokens.ids.len() as u32);
        Ok(tokens)
    }

    /// Returns the tokens of the first answer: those of its words, narrowed to the tokens of its text if they occur there.
    /// The words `(1895-1943).` of the answer `1895` are narrowed to one token.
    fn answer(&self, questions: &Questions, question: &Question, tokenizer: &Tokenizer) -> Result<AnswerTokens> {
        let answer = match &question.gold {
            Gold::Unknown => return Ok(AnswerTokens::Unknown),
            Gold::Impossible => return Ok(AnswerTokens::Impossible),
            Gold::Answers(answers) => &answers[0],
        };
        let tokens = self.tokens_of(&questions.contexts()[question.context], answer);
        let Some(tokens) = tokens.filter(|tokens| !tokens.is_empty()) else {
            let required = format!("an answer with at least one token to question {:?}", question.id);
            return Err(questions.wrong(required, format!("{:?}", answer.text), "correct the answer, or remove it"));
        };
        // An answer that starts a word follows a space; one within a word, or at the start of the context, does not.
        for follows in [true, false] {
            let mut ids = Vec::new();
            tokenizer.encode_part(&answer.text, follows, &mut ids)?;
            if let Some(start) = find(&self.ids[tokens.clone()], &ids) {
                let first = tokens.start + start;
                return Ok(AnswerTokens::Tokens { first, last: first + ids.len() - 1 });
            }
        }
        Ok(AnswerTokens::Tokens { first: tokens.start, last: tokens.end - 1 })
    }

    /// Returns the word of a token, and the number of the token in the word.
    pub(super) fn place(&self, token: usize) -> (usize, usize) {
        let word = self.words[token] as usize;
        (word, token - self.starts[word] as usize)
    }

    /// Returns the tokens of the words that hold an answer.
    fn tokens_of(&self, context: &Context, answer: &Answer) -> Option<Range<usize>> {
        let words = context.words_of(answer)?;
        Some(self.starts[*words.start()] as usize..self.starts[words.end() + 1] as usize)
    }
}

/// Returns where `part` first occurs in `whole`.
fn find(whole: &[u32], part: &[u32]) -> Option<usize> {
    (!part.is_empty()).then(|| whole.windows(part.len()).position(|window| window == part))?
}

impl WindowOptions {
    /// Returns an error if a length is zero.
    pub(super) fn check(self) -> Result<()> {
        let positive = [("stride", self.stride), ("question_length", self.question_length)];
        match positive.into_iter().find(|(_, value)| *value == 0) {
            Some((setting, value)) => Err(DataError::setting(setting, "at least 1", value)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_the_context_and_end_with_it() {
        assert_eq!(windows(10, 5, 3), [0..5, 3..8, 6..10]);
        assert_eq!(windows(5, 5, 3), vec![0..5; 1]);
        assert_eq!(windows(0, 5, 3), vec![0..0; 1]);
        assert_eq!(windows(10, 4, 9), [0..4, 4..8, 8..10], "no token is left out by a long stride");
    }

    #[test]
    fn a_token_belongs_to_the_window_with_most_context() {
        let windows: Vec<Window> =
            [0..5, 3..8, 6..10].map(|tokens| Window { position: 2, tokens }).into_iter().collect();
        let owners: Vec<usize> = (0..10).map(|token| most_context(&windows, token).unwrap()).collect();
        assert_eq!(owners, [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]);
        assert_eq!(most_context(&windows, 10), None);
    }
}
