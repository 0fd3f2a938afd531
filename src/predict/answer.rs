//! Answers to questions about contexts: the best span of the context, and the spans after it. Long contexts are divided into
//! windows; the choice of spans is that of google-research/bert `run_squad.py`.

use std::sync::Arc;

use serde::Serialize;

use super::TextModel;
use super::forward::{Forward, Weights};
use super::lines::QuestionLine;
use crate::data::{
    AnswerCandidate, AnswerOptions, LabelledExamples, PredictedAnswer, QuestionWindows, Questions, SpanLogits,
    Tokenizer, WindowOptions,
};

/// Tokenized questions with the windows of their contexts.
#[derive(Clone, Debug)]
pub struct AskedQuestions {
    questions: Vec<QuestionLine>,
    windows: QuestionWindows,
    examples: LabelledExamples,
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QuestionAnswer {
    /// The question.
    pub question: String,
    /// The best answer; empty if no span is possible.
    pub answer: String,
    /// Its probability among the candidates.
    pub probability: f64,
    /// Characters (code points) of the context before the answer.
    pub start: Option<usize>,
    /// Characters of the context up to the end of the answer.
    pub end: Option<usize>,
    /// Different answers by falling score, the sum of the logits of their ends.
    pub candidates: Vec<AnswerCandidate>,
}

impl AskedQuestions {
    /// Tokenizes questions and contexts into windows of the sequence length of `model`.
    ///
    /// # Errors
    /// If a question leaves no place for its context, or the model has one token type.
    pub fn new(questions: Vec<QuestionLine>, model: &TextModel) -> anyhow::Result<AskedQuestions> {
        let numbered = questions.iter().enumerate();
        let unlabelled = numbered.map(|(i, line)| [(i + 1).to_string(), line.question.clone(), line.context.clone()]);
        let options = WindowOptions { sequence_length: model.sequence_length, ..WindowOptions::default() };
        let unlabelled = Arc::new(Questions::unlabelled(unlabelled));
        let (examples, windows) = LabelledExamples::question_answering(unlabelled, &model.tokenizer, options)?;
        model.check_segments(&examples)?;
        Ok(AskedQuestions { questions, windows, examples })
    }

    /// Returns the number of questions that were cut off.
    pub fn truncated(&self) -> usize {
        self.windows.truncated_questions()
    }

    /// Predicts the answer to each question, and its `top_k` best candidates.
    ///
    /// # Errors
    /// As [`Forward::map`].
    pub fn predict(
        &self,
        forward: &mut Forward,
        weights: &Weights,
        tokenizer: &Tokenizer,
        top_k: usize,
    ) -> anyhow::Result<Vec<QuestionAnswer>> {
        let logits: Vec<[Vec<f32>; 2]> = forward.map(weights, &self.examples, |example, outputs| {
            let tokens = self.examples.tokens(example);
            Ok([outputs[0][..tokens].to_vec(), outputs[1][..tokens].to_vec()])
        })?;
        let spans: Vec<SpanLogits> = logits.iter().map(|[start, end]| SpanLogits { start, end }).collect();
        let answers = self.windows.answers(tokenizer, &spans, AnswerOptions::default())?;
        let answer = |(line, answer): (&QuestionLine, PredictedAnswer)| {
            let PredictedAnswer { text, start, probability, mut candidates, .. } = answer;
            candidates.truncate(top_k);
            let end = start.map(|start| end_of(&line.context, start, &text));
            QuestionAnswer { question: line.question.clone(), answer: text, probability, start, end, candidates }
        };
        Ok(self.questions.iter().zip(answers).map(answer).collect())
    }
}

/// Returns the number of characters of `context` up to the end of `answer`, which begins at character `start` and may have other
/// white space than the context.
fn end_of(context: &str, start: usize, answer: &str) -> usize {
    let solid = answer.chars().filter(|character| !character.is_whitespace()).count();
    let rest = context.chars().enumerate().skip(start).filter(|(_, character)| !character.is_whitespace());
    rest.take(solid).last().map_or(start, |(index, _)| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_last_character_does() {
        assert_eq!(end_of("É der  Mann ist", 2, "der Mann"), 11);
        assert_eq!(end_of("a b", 2, ""), 2);
    }
}
