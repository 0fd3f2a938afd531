//! Labelled examples as batches: the tokens and labels of one split, in memory, and their order.

use std::sync::Arc;

use rayon::prelude::*;

use super::labels::LabelNames;
use super::sequence::{Sequence, truncate_longest_first};
use super::squad::Questions;
use super::texts::{LabelledTexts, TextPair};
use super::tokens::LabelledSentences;
use super::windows::{QuestionWindows, WindowOptions};
use crate::batch::fine_tuning::{LabelKind, LabelledForm, LabelledTensors, Labels};
use crate::batch::{BatchSource, HostBatch, IGNORED_LABEL, ReplicaRange};
use crate::data::error::{DataError, Result};
use crate::data::examples::permutation::Permutation;
use crate::data::tokenizer::encode::Tokenizer;
use crate::rng::Key;
use crate::shape::HostTensor;

/// `[CLS]`, a token of each text of a pair, and a `[SEP]` behind each text.
const SHORTEST_SEQUENCE: usize = 5;

/// The tokenized examples of one split. As a [`BatchSource`] it is endless: in the order of the file, or in a new
/// permutation of all examples in each epoch.
#[derive(Clone, Debug)]
pub struct LabelledExamples {
    sequence_length: usize,
    pad: u32,
    /// Shared by the copies with other orders.
    sequences: Arc<[Sequence]>,
    labels: Arc<ExampleLabels>,
    truncated: usize,
    /// The key of the permutations; none for the order of the file.
    shuffle: Option<Key>,
}

/// The labels of all examples, in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub enum ExampleLabels {
    /// The class of each example.
    Classes(Vec<i32>),
    /// The number of each example.
    Values(Vec<f32>),
    /// The classes of the words of each example.
    TokenClasses(Vec<WordClasses>),
    /// The first and the last position of each answer.
    Spans(Vec<[i32; 2]>),
}

/// The words of a sentence that fit into its sequence. Other positions have no label: `[CLS]`, `[SEP]`, and all pieces of a
/// word but the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WordClasses {
    /// The position of the first piece of each word.
    pub positions: Vec<u32>,
    /// The class of each word.
    pub classes: Vec<i32>,
    /// Words without a position, because the sequence is too short or they have no piece. Metrics leave them out, as
    /// transformers' `run_ner.py`.
    pub dropped: usize,
}

impl LabelledExamples {
    /// Tokenizes texts with classes. Longer ones are truncated to `sequence_length` tokens, special tokens included; a pair
    /// loses tokens of its longer text.
    ///
    /// # Errors
    /// If a label is not among `names`; if `sequence_length` is below 5.
    pub fn classification(
        texts: &LabelledTexts,
        names: &LabelNames,
        tokenizer: &Tokenizer,
        sequence_length: usize,
    ) -> Result<LabelledExamples> {
        let labels = ExampleLabels::Classes(texts.classes(names)?);
        LabelledExamples::of_texts(texts, labels, tokenizer, sequence_length)
    }

    /// Tokenizes texts with numbers, as [`LabelledExamples::classification`].
    ///
    /// # Errors
    /// If a label is not a finite number; if `sequence_length` is below 5.
    pub fn regression(
        texts: &LabelledTexts,
        tokenizer: &Tokenizer,
        sequence_length: usize,
    ) -> Result<LabelledExamples> {
        LabelledExamples::of_texts(texts, ExampleLabels::Values(texts.values()?), tokenizer, sequence_length)
    }

    fn of_texts(
        texts: &LabelledTexts,
        labels: ExampleLabels,
        tokenizer: &Tokenizer,
        sequence_length: usize,
    ) -> Result<LabelledExamples> {
        check_length(sequence_length)?;
        let encode = |text: &TextPair| encode_text(text, tokenizer, sequence_length);
        let encoded: Vec<(Sequence, bool)> = texts.texts().par_iter().map(encode).collect::<Result<_>>()?;
        let truncated = encoded.iter().filter(|(_, is_truncated)| *is_truncated).count();
        let sequences = encoded.into_iter().map(|(sequence, _)| sequence).collect();
        Ok(LabelledExamples::new(sequences, labels, truncated, tokenizer, sequence_length))
    }

    /// Tokenizes the words of sentences. The first piece of a word has its class. The end of a longer sentence is cut off.
    ///
    /// # Errors
    /// If a label is not among `names`; if `sequence_length` is below 5.
    pub fn token_classification(
        sentences: &LabelledSentences,
        names: &LabelNames,
        tokenizer: &Tokenizer,
        sequence_length: usize,
    ) -> Result<LabelledExamples> {
        check_length(sequence_length)?;
        let classes = sentences.classes(names)?;
        let encode =
            |(words, classes): (&Vec<String>, Vec<i32>)| encode_words(words, &classes, tokenizer, sequence_length);
        let encoded: Vec<(Sequence, WordClasses, bool)> =
            sentences.sentences().par_iter().zip(classes).map(encode).collect::<Result<_>>()?;
        let truncated = encoded.iter().filter(|(.., is_truncated)| *is_truncated).count();
        let (sequences, labels): (Vec<_>, Vec<_>) =
            encoded.into_iter().map(|(sequence, words, _)| (sequence, words)).unzip();
        let labels = ExampleLabels::TokenClasses(labels);
        Ok(LabelledExamples::new(sequences, labels, truncated, tokenizer, sequence_length))
    }

    /// Tokenizes questions with the windows of their contexts; each window is an example. The truncated examples are those
    /// of questions that were cut off.
    ///
    /// # Errors
    /// If a question leaves no place for its context, or an answer has no token; if a length is zero.
    pub fn question_answering(
        questions: Arc<Questions>,
        tokenizer: &Tokenizer,
        options: WindowOptions,
    ) -> Result<(LabelledExamples, QuestionWindows)> {
        check_length(options.sequence_length)?;
        options.check()?;
        let (windows, (sequences, spans)) = QuestionWindows::new(questions, tokenizer, options)?;
        let (labels, truncated) = (ExampleLabels::Spans(spans), windows.truncated_questions());
        Ok((LabelledExamples::new(sequences, labels, truncated, tokenizer, options.sequence_length), windows))
    }

    fn new(
        sequences: Vec<Sequence>,
        labels: ExampleLabels,
        truncated: usize,
        tokenizer: &Tokenizer,
        sequence_length: usize,
    ) -> LabelledExamples {
        let pad = tokenizer.vocabulary().special().pad;
        let (sequences, labels) = (sequences.into(), Arc::new(labels));
        LabelledExamples { sequence_length, pad, sequences, labels, truncated, shuffle: None }
    }

    /// Sets the order of a training: epoch `e` is a permutation of all examples that depends on `seed` and `e` alone.
    #[must_use]
    pub fn shuffled(mut self, seed: u64) -> LabelledExamples {
        self.shuffle = Some(Key::new(seed));
        self
    }

    /// Returns the number of examples.
    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Returns the number of segments of an example, at most: 1 or, if one is a pair, 2.
    pub fn segments(&self) -> usize {
        let is_pair = |sequence: &Sequence| sequence.ids.len() > sequence.first;
        if self.sequences.iter().any(is_pair) { 2 } else { 1 }
    }

    /// Returns whether there is no example.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Returns the form of the rows.
    pub fn form(&self) -> LabelledForm {
        LabelledForm { sequence_length: self.sequence_length, labels: self.labels.kind() }
    }

    /// Returns the labels, in the order of the file.
    pub fn labels(&self) -> &ExampleLabels {
        &self.labels
    }

    /// Returns the number of tokens of an example of the file, special tokens included.
    pub fn tokens(&self, example: usize) -> usize {
        self.sequences[example].ids.len()
    }

    /// Returns the number of examples that were longer than the sequence length.
    pub fn truncated(&self) -> usize {
        self.truncated
    }

    #[cfg(test)]
    pub(super) fn sequence(&self, example: usize) -> &Sequence {
        &self.sequences[example]
    }

    /// Builds rows of any examples of the file, of `row_length` positions each, at most the sequence length.
    ///
    /// # Panics
    /// If there is no such example, or one has more tokens than `row_length`.
    pub fn select(&self, examples: &[usize], row_length: usize) -> HostBatch {
        let rows = examples.len();
        let positions = rows * row_length;
        let mut input_ids = vec![self.pad as i32; positions];
        let (mut attention_mask, mut token_type_ids) = (vec![0; positions], vec![0; positions]);
        for (row, &example) in examples.iter().enumerate() {
            let Sequence { ids, first } = &self.sequences[example];
            let range = row * row_length..row * row_length + ids.len();
            assert!(ids.len() <= row_length, "{} tokens in a row of {row_length}", ids.len());
            input_ids[range.clone()].iter_mut().zip(ids).for_each(|(input, &id)| *input = id as i32);
            attention_mask[range.clone()].fill(1);
            token_type_ids[range].iter_mut().skip(*first).for_each(|kind| *kind = 1);
        }
        let tensors = LabelledTensors {
            input_ids: HostTensor::new([rows, row_length], &input_ids),
            attention_mask: HostTensor::new([rows, row_length], &attention_mask),
            token_type_ids: HostTensor::new([rows, row_length], &token_type_ids),
            labels: self.labels.tensors(examples, row_length),
        };
        let spec = LabelledForm { sequence_length: row_length, labels: self.labels.kind() }.spec();
        let names = spec.tensors.iter().map(|tensor| tensor.name);
        HostBatch {
            rows,
            tensors: names.zip(tensors.into_vec().into_iter().map(Arc::new)).collect(),
            row_length,
            tokens: attention_mask.iter().filter(|&&mask| mask > 0).count(),
            occupied_rows: rows,
            spare_rows: 0,
        }
    }

    /// Returns the example of the file that is number `n` of the endless order.
    fn example(&self, n: u64) -> usize {
        let len = self.sequences.len() as u64;
        let (epoch, index) = (n / len, n % len);
        match self.shuffle {
            None => index as usize,
            Some(key) => Permutation::new(len, key.fold_in(epoch)).at(index) as usize,
        }
    }
}

impl BatchSource for LabelledExamples {
    fn batch(&self, first_example: u64, global_batch: usize, replicas: ReplicaRange) -> anyhow::Result<HostBatch> {
        let rows = replicas.rows(global_batch);
        let mut batch = self.rows(first_example + rows.start as u64, rows.len())?;
        batch.occupied_rows = rows.len() / replicas.count;
        Ok(batch)
    }

    fn rows(&self, first_example: u64, rows: usize) -> anyhow::Result<HostBatch> {
        anyhow::ensure!(!self.is_empty(), "a batch requires at least one example, got none");
        let examples: Vec<usize> = (first_example..).take(rows).map(|n| self.example(n)).collect();
        Ok(self.select(&examples, self.sequence_length))
    }

    fn epoch_len(&self) -> u64 {
        self.sequences.len() as u64
    }

    fn epochs_covered(&self, examples: u64) -> f64 {
        examples as f64 / self.sequences.len() as f64
    }
}

impl ExampleLabels {
    /// Returns the kind of the labels.
    pub fn kind(&self) -> LabelKind {
        match self {
            ExampleLabels::Classes(_) => LabelKind::Class,
            ExampleLabels::Values(_) => LabelKind::Value,
            ExampleLabels::TokenClasses(_) => LabelKind::TokenClass,
            ExampleLabels::Spans(_) => LabelKind::Span,
        }
    }

    /// Counts the examples, or the words, of each of `classes` classes; all zero for numbers and spans.
    pub fn class_counts(&self, classes: usize) -> Vec<u64> {
        let mut counts = vec![0; classes];
        let mut count = |class: &i32| {
            if let Some(count) = usize::try_from(*class).ok().and_then(|class| counts.get_mut(class)) {
                *count += 1;
            }
        };
        match self {
            ExampleLabels::Classes(labels) => labels.iter().for_each(&mut count),
            ExampleLabels::TokenClasses(words) => words.iter().flat_map(|words| &words.classes).for_each(&mut count),
            ExampleLabels::Values(_) | ExampleLabels::Spans(_) => {}
        }
        counts
    }

    /// Builds the tensors of some examples in rows of `row_length` positions.
    fn tensors(&self, examples: &[usize], row_length: usize) -> Labels<HostTensor> {
        let rows = examples.len();
        match self {
            ExampleLabels::Classes(classes) => Labels::One(HostTensor::new([rows], &pick(classes, examples))),
            ExampleLabels::Values(values) => Labels::One(HostTensor::new([rows], &pick(values, examples))),
            ExampleLabels::TokenClasses(words) => {
                let mut labels = vec![IGNORED_LABEL; rows * row_length];
                for (row, &example) in labels.chunks_exact_mut(row_length).zip(examples) {
                    let WordClasses { positions, classes, .. } = &words[example];
                    positions.iter().zip(classes).for_each(|(&position, &class)| row[position as usize] = class);
                }
                Labels::One(HostTensor::new([rows, row_length], &labels))
            }
            ExampleLabels::Spans(spans) => {
                let positions = |end: usize| {
                    let positions: Vec<i32> = examples.iter().map(|&example| spans[example][end]).collect();
                    HostTensor::new([rows], &positions)
                };
                Labels::Span { start_positions: positions(0), end_positions: positions(1) }
            }
        }
    }
}

/// Returns the elements with the given indices.
fn pick<T: Copy>(all: &[T], indices: &[usize]) -> Vec<T> {
    indices.iter().map(|&index| all[index]).collect()
}

fn check_length(sequence_length: usize) -> Result<()> {
    match sequence_length {
        0..SHORTEST_SEQUENCE => {
            Err(DataError::setting("sequence_length", format!("at least {SHORTEST_SEQUENCE}"), sequence_length))
        }
        _ => Ok(()),
    }
}

/// Tokenizes a text or a pair. Also returns whether it was truncated.
fn encode_text(text: &TextPair, tokenizer: &Tokenizer, sequence_length: usize) -> Result<(Sequence, bool)> {
    let encode = |text: &str| {
        let mut ids = Vec::new();
        tokenizer.encode(text, &mut ids).map(|()| ids)
    };
    let (mut a, mut b) = (encode(&text.text)?, text.text_pair.as_deref().map(encode).transpose()?);
    let before = a.len() + b.as_ref().map_or(0, Vec::len);
    match &mut b {
        None => a.truncate(sequence_length - 2),
        Some(b) => {
            let special_tokens = tokenizer.vocabulary().pair_form().special_tokens();
            truncate_longest_first(&mut a, b, sequence_length - special_tokens);
        }
    }
    let is_truncated = a.len() + b.as_ref().map_or(0, Vec::len) < before;
    Ok((Sequence::new(tokenizer.vocabulary(), &a, b.as_deref()), is_truncated))
}

/// Tokenizes words. A word whose first piece does not fit is dropped. Also returns whether pieces were cut off.
fn encode_words(
    words: &[String],
    classes: &[i32],
    tokenizer: &Tokenizer,
    sequence_length: usize,
) -> Result<(Sequence, WordClasses, bool)> {
    let (mut ids, mut labels) = (Vec::new(), WordClasses::default());
    let longest = sequence_length - 2;
    for (number, (word, &class)) in words.iter().zip(classes).enumerate() {
        let start = ids.len();
        tokenizer.encode_part(word, number > 0, &mut ids)?;
        if start < ids.len().min(longest) {
            // Behind [CLS].
            labels.positions.push(start as u32 + 1);
            labels.classes.push(class);
        } else {
            labels.dropped += 1;
        }
    }
    let is_truncated = ids.len() > longest;
    ids.truncate(longest);
    Ok((Sequence::new(tokenizer.vocabulary(), &ids, None), labels, is_truncated))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tokenizer::special_tokens::SPECIAL_TOKENS;
    use crate::data::tokenizer::vocabulary::Vocabulary;
    use crate::data::tokenizer::wordpiece::WordRules;

    /// `a` to `e` have the ids 5 to 9, `##a` to `##e` 10 to 14.
    fn tokenizer() -> Tokenizer {
        let pieces = "a b c d e ##a ##b ##c ##d ##e".split(' ');
        let tokens = SPECIAL_TOKENS.into_iter().chain(pieces).map(str::to_owned).collect();
        Tokenizer::new(Vocabulary::new(tokens).unwrap(), WordRules::bert(true))
    }

    fn texts(texts: &[(&str, Option<&str>)]) -> LabelledTexts {
        let pair = |&(text, pair): &(&str, Option<&str>)| TextPair {
            text: text.to_owned(),
            text_pair: pair.map(str::to_owned),
        };
        texts.iter().map(pair).collect::<Vec<_>>().into()
    }

    fn names() -> LabelNames {
        LabelNames::new(vec!["no".into(), "yes".into()]).unwrap()
    }

    fn numbers(batch: &HostBatch, name: &str) -> Vec<f64> {
        batch.tensor(name).unwrap().to_f64()
    }

    #[test]
    fn pairs_are_truncated_and_padded_rows() {
        let texts = texts(&[("a b c d", Some("e")), ("ab", None)]);
        let examples = LabelledExamples::classification(&texts, &names(), &tokenizer(), 7).unwrap();
        assert_eq!((examples.truncated(), examples.tokens(0), examples.tokens(1)), (1, 7, 4));
        let batch = examples.rows(0, 2).unwrap();
        assert_eq!(numbers(&batch, "input_ids"), [2., 5., 6., 7., 3., 9., 3., 2., 5., 11., 3., 0., 0., 0.]);
        assert_eq!(numbers(&batch, "attention_mask"), [1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 0., 0., 0.]);
        assert_eq!(numbers(&batch, "token_type_ids"), [0., 0., 0., 0., 0., 1., 1., 0., 0., 0., 0., 0., 0., 0.]);
        assert_eq!(numbers(&batch, "labels"), [-100., -100.]);
        assert_eq!((batch.tokens, batch.occupied_rows, batch.row_length), (11, 2, 7));
        let short = examples.select(&[1], 4);
        assert_eq!(numbers(&short, "input_ids"), [2., 5., 11., 3.]);
    }

    #[test]
    fn batches_have_the_shapes_of_their_form() {
        let sentences = LabelledSentences::from(vec![vec!["ab".to_owned()]]);
        let questions = Arc::new(Questions::unlabelled([["q".into(), "a".into(), "b c".into()]]));
        let one = texts(&[("a", None)]);
        let all = [
            LabelledExamples::classification(&one, &names(), &tokenizer(), 8).unwrap(),
            LabelledExamples::regression(&one, &tokenizer(), 8).unwrap(),
            LabelledExamples::token_classification(&sentences, &names(), &tokenizer(), 8).unwrap(),
            LabelledExamples::question_answering(
                questions,
                &tokenizer(),
                WindowOptions { sequence_length: 8, ..WindowOptions::default() },
            )
            .unwrap()
            .0,
        ];
        for examples in all {
            let batch = examples.rows(0, 3).unwrap();
            let shapes = batch.tensors.iter().map(|(name, tensor)| (*name, tensor.shape().clone()));
            assert!(shapes.eq(examples.form().spec().shapes(3)), "{:?}", examples.form());
        }
    }

    #[test]
    fn first_pieces_have_the_class_of_their_word() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("train.conll");
        std::fs::write(&path, "ab yes\n\u{ad} no\nc no\nda yes\ne yes\n").unwrap();
        let sentences = LabelledSentences::read(&path, &Default::default()).unwrap();
        let examples = LabelledExamples::token_classification(&sentences, &names(), &tokenizer(), 6).unwrap();
        let expected = WordClasses { positions: vec![1, 3, 4], classes: vec![1, 0, 1], dropped: 2 };
        assert_eq!(*examples.labels(), ExampleLabels::TokenClasses(vec![expected]));
        assert_eq!(examples.labels().class_counts(2), [1, 2]);
        assert_eq!(examples.truncated(), 1);
        let batch = examples.rows(0, 1).unwrap();
        assert_eq!(numbers(&batch, "input_ids"), [2., 5., 11., 7., 8., 3.]);
        assert_eq!(numbers(&batch, "labels"), [-100., 1., -100., 0., 1., -100.]);
    }

    #[test]
    fn each_epoch_is_another_permutation_and_a_function_of_the_seed() {
        let texts = texts(&["a", "b", "c", "d", "e", "aa", "ab", "ac"].map(|text| (text, None)));
        let examples = LabelledExamples::classification(&texts, &names(), &tokenizer(), 8).unwrap();
        let order = |examples: &LabelledExamples| (0..24).map(|n| examples.example(n)).collect::<Vec<_>>();
        assert_eq!(order(&examples)[..16], (0..8).chain(0..8).collect::<Vec<_>>());
        let shuffled = order(&examples.clone().shuffled(3));
        assert_eq!(shuffled, order(&examples.clone().shuffled(3)));
        assert_ne!(shuffled, order(&examples.clone().shuffled(4)));
        assert_ne!(shuffled[..8], shuffled[8..16]);
        for epoch in shuffled.chunks(8) {
            let mut epoch = epoch.to_vec();
            epoch.sort_unstable();
            assert_eq!(epoch, (0..8).collect::<Vec<_>>());
        }
    }

    #[test]
    fn hosts_take_their_rows_of_the_global_batch() {
        let texts = texts(&["a", "b", "c", "d"].map(|text| (text, None)));
        let examples = LabelledExamples::classification(&texts, &names(), &tokenizer(), 8).unwrap().shuffled(1);
        let whole = examples.rows(5, 4).unwrap();
        let half = examples.batch(5, 4, ReplicaRange { first: 2, count: 2, of: 4 }).unwrap();
        assert_eq!(numbers(&half, "input_ids"), numbers(&whole, "input_ids")[16..]);
        assert_eq!((half.rows, half.occupied_rows), (2, 1));
    }

    #[test]
    fn questions_that_fill_the_sequence_are_errors() {
        let questions = Arc::new(Questions::unlabelled([["q7".into(), "a b c d e".into(), "b".into()]]));
        let options = WindowOptions { sequence_length: 8, ..WindowOptions::default() };
        let error = LabelledExamples::question_answering(questions, &tokenizer(), options).map(drop).unwrap_err();
        let expected = "questions: requires questions shorter than sequence_length, 8 tokens, \
                        got 5 tokens and 3 special ones in \"q7\"; increase sequence_length, or decrease max_query_length";
        assert_eq!(error.to_string(), expected);
        let one = texts(&[("a", None)]);
        let error = LabelledExamples::regression(&one, &tokenizer(), 4).map(drop).unwrap_err();
        assert_eq!(error.to_string(), "sequence_length: requires at least 5, got 4");
    }
}
