//! Examples read back as text: words in the colours of their segments, and what masking did to those that are to be
//! predicted.

use console::style;
use serde_json::json;

use crate::data::{Example, ExampleMode, IGNORED_LABEL, Vocabulary};

/// The word that stood at a position, and what stands there now.
fn target<'v>(example: &Example, vocabulary: &'v Vocabulary, position: usize) -> Option<(&'v str, &'v str)> {
    let at = example.targets.positions.binary_search(&position).ok()?;
    Some((shown(vocabulary, example.targets.ids[at]), shown(vocabulary, example.tokens[position])))
}

fn shown(vocabulary: &Vocabulary, id: u32) -> &str {
    vocabulary.token(id).unwrap_or("?")
}

/// What a reader must know to read [`as_text`], in the colours that it uses.
pub fn legend() -> String {
    let [masked, random, kept] = [Fate::Masked, Fate::Random, Fate::Kept].map(Fate::paint);
    format!(
        "{} first segment, {} second; to predict: {} hidden, {} another token shown, {} left as it is\n",
        style("text").cyan(),
        style("text").blue(),
        masked("[MASK→word]"),
        random("[other→word]"),
        kept("[word→word]")
    )
}

/// What masking did to a token that is to be predicted.
#[derive(Clone, Copy)]
enum Fate {
    Masked,
    Random,
    Kept,
}

impl Fate {
    fn of(word: &str, now: &str) -> Fate {
        match now {
            "[MASK]" => Fate::Masked,
            _ if now == word => Fate::Kept,
            _ => Fate::Random,
        }
    }

    fn paint(self) -> impl Fn(&str) -> String {
        move |text| {
            let text = style(text.to_owned());
            match self {
                Fate::Masked => text.red(),
                Fate::Random => text.yellow(),
                Fate::Kept => text.green(),
            }
            .to_string()
        }
    }
}

/// Pieces joined to words, a line for each segment; tokens to be predicted as [`legend`] shows them.
pub fn as_text(example: &Example, vocabulary: &Vocabulary) -> String {
    let mut text = String::new();
    for (position, &id) in example.tokens.iter().enumerate() {
        let token = shown(vocabulary, id);
        let in_second = position >= example.layout.first_segment();
        let (joined, piece) = match target(example, vocabulary, position) {
            Some((word, now)) => {
                let shown = if now == "[MASK]" { "MASK" } else { now };
                let piece = format!("[{shown}→{}]", word.trim_start_matches("##"));
                (word.starts_with("##"), Fate::of(word, now).paint()(&piece))
            }
            None if vocabulary.special().sep == id || vocabulary.special().cls == id => {
                (false, style(token).dim().to_string())
            }
            None => {
                let piece = style(token.trim_start_matches("##"));
                let piece = if in_second { piece.blue() } else { piece.cyan() };
                (vocabulary.is_continuation(id), piece.to_string())
            }
        };
        if position == example.layout.first_segment() {
            text.push('\n');
        } else if position > 0 && !joined {
            text.push(' ');
        }
        text += &piece;
    }
    text
}

/// What an example is, in a few words.
pub fn headline(number: u64, example: &Example, mode: ExampleMode) -> String {
    let label = match (mode, example.layout.label) {
        (_, IGNORED_LABEL) => "a single segment",
        (ExampleMode::SentenceOrder, 0) => "the segments are in their order",
        (ExampleMode::SentenceOrder, _) => "the segments are swapped",
        (_, 0) => "the next one follows",
        _ => "a random one follows",
    };
    format!("example {number}, {} tokens, {label}", example.tokens.len())
}

/// An example for programs.
pub fn as_json(number: u64, example: &Example, vocabulary: &Vocabulary) -> serde_json::Value {
    let tokens: Vec<&str> = example.tokens.iter().map(|&id| shown(vocabulary, id)).collect();
    let targets = example.targets.positions.iter().filter_map(|&position| {
        let (word, _) = target(example, vocabulary, position)?;
        Some(json!({ "position": position, "token": word }))
    });
    json!({
        "number": number, "epoch": example.epoch, "tokens": tokens, "first_segment": example.layout.first_segment(),
        "masked": targets.collect::<Vec<_>>(), "label": example.layout.label,
    })
}
