//! The examples of a fine-tuning run: the training and the dev file, tokenized, and the head that they are labelled for.

use std::sync::Arc;

use anyhow::ensure;

use super::settings::{TaskKind, TaskSettings};
use crate::bert::Head;
use crate::data::Tokenizer;
use crate::data::labelled::{
    AnswerOptions, LabelNames, LabelledExamples, LabelledSentences, LabelledTexts, QuestionWindows, Questions,
    SquadVersion, TextColumns, TokenColumns, WindowOptions, fingerprint,
};

/// The examples of a run.
#[derive(Clone, Debug)]
pub struct TaskData {
    /// The head, with its labels.
    pub head: Head,
    /// The training examples, in a new order in each epoch.
    pub train: Arc<LabelledExamples>,
    /// The held-out examples, in the order of the file.
    pub dev: Arc<LabelledExamples>,
    /// For question answering: from the logits of the held-out examples to answers.
    pub answers: Option<Arc<Answers>>,
    /// The fingerprint of both files.
    pub fingerprint: String,
}

/// The held-out questions, and how answers are chosen.
#[derive(Debug)]
pub struct Answers {
    /// The windows of the held-out questions.
    pub windows: QuestionWindows,
    /// The choice of answers.
    pub options: AnswerOptions,
    /// The tokenizer of the windows.
    pub tokenizer: Arc<Tokenizer>,
}

impl TaskData {
    /// Reads and tokenizes both files; `seed` orders the training examples.
    ///
    /// # Errors
    /// If a file cannot be read, or an example is wrong (with file and line).
    pub fn open(task: &TaskSettings, tokenizer: Arc<Tokenizer>, seed: u64) -> anyhow::Result<TaskData> {
        let length = task.sequence_length;
        let given = if task.labels.is_empty() { None } else { Some(LabelNames::new(task.labels.clone())?) };
        let (head, train, dev, answers) = match task.kind {
            TaskKind::SequenceClassification => {
                let columns = text_columns(task);
                let (train, dev) =
                    (LabelledTexts::read(&task.train, &columns)?, LabelledTexts::read(&task.dev, &columns)?);
                let names = train.label_names(given.as_ref())?;
                let examples = |texts| LabelledExamples::classification(texts, &names, &tokenizer, length);
                let head = Head::SequenceClassification { labels: names.names().to_vec() };
                (head, examples(&train)?, examples(&dev)?, None)
            }
            TaskKind::Regression => {
                let columns = text_columns(task);
                let examples = |path| -> anyhow::Result<LabelledExamples> {
                    Ok(LabelledExamples::regression(&LabelledTexts::read(path, &columns)?, &tokenizer, length)?)
                };
                (Head::Regression, examples(&task.train)?, examples(&task.dev)?, None)
            }
            TaskKind::TokenClassification => {
                let columns = TokenColumns { tokens: task.text.clone(), labels: task.label.clone() };
                let (train, dev) =
                    (LabelledSentences::read(&task.train, &columns)?, LabelledSentences::read(&task.dev, &columns)?);
                let names = train.label_names(given.as_ref())?;
                let examples =
                    |sentences| LabelledExamples::token_classification(sentences, &names, &tokenizer, length);
                let head = Head::TokenClassification { labels: names.names().to_vec() };
                (head, examples(&train)?, examples(&dev)?, None)
            }
            TaskKind::QuestionAnswering => {
                let version = task.version.unwrap_or_default();
                let defaults = WindowOptions::default();
                let windows = WindowOptions {
                    sequence_length: length,
                    stride: task.stride.unwrap_or(defaults.stride),
                    question_length: task.max_query_length.unwrap_or(defaults.question_length),
                };
                let examples = |path| -> anyhow::Result<(LabelledExamples, QuestionWindows)> {
                    let questions = Arc::new(Questions::read(path, version)?);
                    Ok(LabelledExamples::question_answering(questions, &tokenizer, windows)?)
                };
                let ((train, _), (dev, windows)) = (examples(&task.train)?, examples(&task.dev)?);
                let options = answer_options(task, version);
                let answers = Answers { windows, options, tokenizer: tokenizer.clone() };
                (Head::QuestionAnswering, train, dev, Some(Arc::new(answers)))
            }
        };
        ensure!(!train.is_empty(), "train: {} requires at least one example, found none", task.train.display());
        ensure!(!dev.is_empty(), "dev: {} requires at least one example, found none", task.dev.display());
        Ok(TaskData {
            head,
            train: Arc::new(train.shuffled(seed)),
            dev: Arc::new(dev),
            answers,
            fingerprint: fingerprint([task.train.as_path(), task.dev.as_path()])?,
        })
    }
}

fn text_columns(task: &TaskSettings) -> TextColumns {
    let defaults = TextColumns::default();
    TextColumns {
        text: task.text.clone().unwrap_or(defaults.text),
        text_pair: task.text_pair.clone(),
        label: task.label.clone().or(defaults.label),
    }
}

fn answer_options(task: &TaskSettings, version: SquadVersion) -> AnswerOptions {
    let defaults = AnswerOptions::default();
    AnswerOptions {
        n_best: task.n_best.unwrap_or(defaults.n_best),
        longest_answer: task.max_answer_length.unwrap_or(defaults.longest_answer),
        // "No answer" wins if its score is higher than that of the best span, as by default in google-research/bert.
        null_threshold: (version == SquadVersion::V2).then_some(0.0),
    }
}
