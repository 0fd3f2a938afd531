//! Formats examples as text, with a colour for each segment and for each kind of masked token.

use console::style;
use serde_json::json;

use crate::batch::IGNORED_LABEL;
use crate::data::{Example, ExampleMode, Vocabulary};

/// Returns the original token of a masked position, and the token that replaces it.
fn target<'v>(example: &Example, vocabulary: &'v Vocabulary, position: usize) -> Option<(&'v str, &'v str)> {
    let at = example.targets.positions.binary_search(&position).ok()?;
    Some((shown(vocabulary, example.targets.ids[at]), shown(vocabulary, example.tokens[position])))
}

fn shown(vocabulary: &Vocabulary, id: u32) -> &str {
    vocabulary.token(id).unwrap_or("?")
}

/// Returns the legend of [`as_text`], in its colours.
pub fn legend() -> String {
    let [masked, random, kept] = [Fate::Masked, Fate::Random, Fate::Kept].map(Fate::paint);
    format!(
        "{} first segment, {} second segment; to predict: {} masked, {} replaced, {} kept\n",
        style("text").cyan(),
        style("text").blue(),
        masked("[MASK→word]"),
        random("[other→word]"),
        kept("[word→word]")
    )
}

/// The replacement of a token that is to be predicted.
#[derive(Clone, Copy)]
enum Fate {
    Masked,
    Random,
    Kept,
}

impl Fate {
    fn of(original: u32, now: u32, mask: u32) -> Fate {
        match now {
            _ if now == mask => Fate::Masked,
            _ if now == original => Fate::Kept,
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

/// Formats an example: pieces joined to words, a line per segment, tokens to predict as in [`legend`].
pub fn as_text(example: &Example, vocabulary: &Vocabulary) -> String {
    let special = vocabulary.special();
    let mut text = String::new();
    for (position, &id) in example.tokens.iter().enumerate() {
        let is_second = position >= example.layout.first_segment();
        let original = example.targets.positions.binary_search(&position).ok().map(|at| example.targets.ids[at]);
        let (has_space, piece) = vocabulary.text(original.unwrap_or(id)).unwrap_or((true, "?".into()));
        let (has_space, piece) = match original {
            Some(original) => {
                let now = if id == special.mask { "MASK" } else { shown(vocabulary, id) };
                (has_space, Fate::of(original, id, special.mask).paint()(&format!("[{now}→{piece}]")))
            }
            None if id == special.sep || id == special.cls => (true, style(piece).dim().to_string()),
            None if is_second => (has_space, style(piece).blue().to_string()),
            None => (has_space, style(piece).cyan().to_string()),
        };
        if position == example.layout.first_segment() {
            text.push('\n');
        } else if position > 0 && has_space {
            text.push(' ');
        }
        text += &piece;
    }
    text
}

/// Returns the headline of an example.
pub fn headline(number: u64, example: &Example, mode: ExampleMode) -> String {
    let label = match (mode, example.layout.label) {
        (_, IGNORED_LABEL) => "one segment",
        (ExampleMode::SentenceOrder, 0) => "segments in order",
        (ExampleMode::SentenceOrder, _) => "segments swapped",
        (_, 0) => "the second segment follows the first",
        _ => "the second segment is random",
    };
    format!("example {number}, {} tokens, {label}", example.tokens.len())
}

/// Returns an example as JSON.
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
