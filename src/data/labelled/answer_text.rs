//! Finds the characters of a text that some of its tokens stand for: tokens are lower-cased and separated from punctuation,
//! and an answer is given as it is written (google-research/bert `run_squad.py`, `get_final_text`).

use std::ops::Range;

use crate::data::error::Result;
use crate::data::tokenizer::wordpiece::WordRules;

/// Returns the characters of `original` that `predicted`, the text of some of its tokens, stands for. Both texts are compared
/// without spaces. Returns all characters if `predicted` does not occur, as with `[UNK]`, or if tokenizing changes the number
/// of characters other than spaces.
pub(super) fn characters_of(predicted: &str, original: &str, rules: WordRules) -> Result<Range<usize>> {
    let mut words = Vec::new();
    rules.words(original, |word| words.push(word.to_owned()))?;
    let tokenized = words.join(" ");
    let found = || {
        let before = tokenized[..tokenized.find(predicted)?].chars().count();
        let last = before + predicted.chars().count().checked_sub(1)?;
        let (from, to) = (solid(&tokenized), solid(original));
        let place = |character: usize| Some(to[from.binary_search(&character).ok()?]);
        if from.len() == to.len() { Some(place(before)?..place(last)? + 1) } else { None }
    };
    Ok(found().unwrap_or(0..original.chars().count()))
}

/// Returns the places of the characters that are no spaces.
fn solid(text: &str) -> Vec<usize> {
    text.chars().enumerate().filter(|(_, character)| *character != ' ').map(|(place, _)| place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_found_by_their_places_without_spaces() {
        for (predicted, original, expected) in [
            ("steve smith", "Steve Smith's", "Steve Smith"),
            ("1895 - 1943", "(1895-1943).", "1895-1943"),
            ("ecole", "l'École,", "École"),
            ("[UNK] x", "Steve x", "Steve x"),
            // The accent is a character of its own, and tokenizing removes it.
            ("cafe", "cafe\u{301}!", "cafe\u{301}!"),
            ("", "a b", "a b"),
        ] {
            let range = characters_of(predicted, original, WordRules::bert(true)).unwrap();
            let found: String = original.chars().skip(range.start).take(range.len()).collect();
            assert_eq!(found, expected, "{predicted} in {original}");
        }
    }
}
