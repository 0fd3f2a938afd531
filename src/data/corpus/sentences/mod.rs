//! Splits paragraphs into sentences, by Unicode's classes of characters (UAX #29, Sentence_Break) and rules of this module.
//!
//! * In scripts that separate words by spaces, a full stop, question or exclamation mark ends a sentence if white space
//!   follows (after closing quotes and brackets) and the next character is not lower case, unless the word before it is an
//!   abbreviation, an initial or an ordinal number. UAX #29 knows no abbreviations: it would end a sentence after "Mr." and
//!   after each initial of a name.
//! * A sentence terminal of another script (。 । ؟ ။ ። ។ …) ends a sentence with or without white space after it, except
//!   before a comma or another terminal.
//!
//! Scripts without sentence terminals, such as Thai, are not split.

mod abbreviations;
#[cfg(test)]
mod tests;

use icu_properties::props::{GeneralCategory, SentenceBreak};
use icu_properties::{CodePointMapData, CodePointMapDataBorrowed};

use abbreviations::is_abbreviation;

const SENTENCE_BREAK: CodePointMapDataBorrowed<'static, SentenceBreak> = CodePointMapData::<SentenceBreak>::new();
const GENERAL_CATEGORY: CodePointMapDataBorrowed<'static, GeneralCategory> = CodePointMapData::<GeneralCategory>::new();

/// Whether a byte is a stop, or the first byte of one.
const MAY_BE_A_STOP: [bool; 256] = {
    let mut stops = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        stops[byte] = matches!(byte as u8, b'.' | b'!' | b'?' | b';' | b':' | 0xc0..);
        byte += 1;
    }
    stops
};

/// Khmer for "and so on": its first terminal belongs to the abbreviation.
const KHMER_AND_SO_ON: &str = "។ល។";

/// Iterates over the sentences of a paragraph, without surrounding white space. None is empty.
pub fn sentences(paragraph: &str) -> impl Iterator<Item = &str> {
    let mut rest = paragraph.trim();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (sentence, after) = rest.split_at(end_of_sentence(rest));
        rest = after.trim_start();
        Some(sentence.trim_end())
    })
}

/// The effect of a mark that may end a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// Ends a sentence if white space follows: `.`, `!`, `?`, `…`, and `;` and `:` where they are stops.
    BeforeSpace,
    /// A full-width full stop: ends a sentence unless a letter with case or a digit follows.
    FullWidth,
    /// Ends a sentence.
    Anywhere,
}

impl Stop {
    fn of(c: char) -> Option<Stop> {
        match c {
            '.' | '!' | '?' | '…' => Some(Stop::BeforeSpace),
            // The terminals of Tibetan, which Unicode lists as ends of phrases.
            '\u{0f0d}' | '\u{0f0e}' | '\u{0f14}' => Some(Stop::Anywhere),
            // The comma of Burmese, which Unicode lists as a terminal.
            '\u{104a}' => None,
            _ if c.is_ascii() => None,
            _ => match SENTENCE_BREAK.get(c) {
                SentenceBreak::STerm => Some(Stop::Anywhere),
                SentenceBreak::ATerm => Some(Stop::FullWidth),
                _ => None,
            },
        }
    }

    /// Returns the first stop of `text` at or after byte `from`, and its position.
    fn find(text: &str, mut from: usize) -> Option<(usize, Stop)> {
        loop {
            let at = from + text.as_bytes()[from..].iter().position(|&byte| MAY_BE_A_STOP[byte as usize])?;
            let c = text[at..].chars().next()?;
            let stop = match c {
                ';' | ':' if ends_question_or_sentence(c, &text[..at]) => Some(Stop::BeforeSpace),
                _ => Stop::of(c),
            };
            if let Some(stop) = stop {
                return Some((at, stop));
            }
            from = at + c.len_utf8();
        }
    }
}

/// Returns `true` for the question mark of Greek, `;`, and for `:` as the full stop of Armenian: after a letter of the script.
fn ends_question_or_sentence(c: char, before: &str) -> bool {
    let is_of_script = |letter: char| match c {
        ';' => ('\u{370}'..='\u{3ff}').contains(&letter) || ('\u{1f00}'..='\u{1fff}').contains(&letter),
        _ => ('\u{531}'..='\u{587}').contains(&letter),
    };
    before.chars().next_back().is_some_and(is_of_script)
}

/// Returns the byte at which the first sentence of `text` ends.
fn end_of_sentence(text: &str) -> usize {
    let mut from = 0;
    while let Some((at, first)) = Stop::find(text, from) {
        let first_end = at + text[at..].chars().next().map_or(1, char::len_utf8);
        if first == Stop::BeforeSpace && text.as_bytes().get(first_end).is_some_and(u8::is_ascii_alphanumeric) {
            from = first_end; // a decimal, a domain, an abbreviation's inner dot
            continue;
        }
        let after_stops = skip(text, first_end, |c| Stop::of(c).is_some());
        let is_spaced = |c: char| matches!(Stop::of(c), None | Some(Stop::BeforeSpace));
        let end = if first == Stop::BeforeSpace && text[first_end..after_stops].chars().all(is_spaced) {
            // An opening quote before white space is the closing one of German or Danish: „Gut.“
            let end = skip(text, after_stops, |c| is_closing(c) || is_opening_quote(c));
            let end = end_of_french_quote(text, end).unwrap_or(end);
            ends_before_space(text, at, after_stops, end).then_some(end).ok_or(end)
        } else {
            ends_anywhere(text, at, first, skip(text, after_stops, is_closing))
        };
        match end {
            Ok(end) => return end,
            Err(next) => from = next,
        }
    }
    text.len()
}

/// Returns the end of a closing quote that stands apart after byte `end`, as in French: « Oui. »
fn end_of_french_quote(text: &str, end: usize) -> Option<usize> {
    let after = text[end..].trim_start().strip_prefix('»')?;
    // Before a letter it is the opening quote of German.
    (after.is_empty() || after.starts_with(char::is_whitespace)).then(|| text.len() - after.len())
}

fn skip(text: &str, from: usize, skipped: impl Fn(char) -> bool) -> usize {
    text.len() - text[from..].trim_start_matches(skipped).len()
}

/// Returns `true` for closing brackets and quotes, and for characters that are not seen, such as a mark of direction.
fn is_closing(c: char) -> bool {
    match c.is_ascii() {
        true => matches!(c, '"' | '\'' | ')' | ']' | '}'),
        false => matches!(
            GENERAL_CATEGORY.get(c),
            GeneralCategory::ClosePunctuation | GeneralCategory::FinalPunctuation | GeneralCategory::Format
        ),
    }
}

fn is_opening_quote(c: char) -> bool {
    !c.is_ascii() && GENERAL_CATEGORY.get(c) == GeneralCategory::InitialPunctuation
}

/// Decides whether the stops at byte `at`, of which the first is not [`Stop::BeforeSpace`] or a later one is
/// [`Stop::Anywhere`], end a sentence at `end`, after closing marks. Returns the end of the sentence, or as an error the
/// position from which to look for another stop.
fn ends_anywhere(text: &str, at: usize, first: Stop, end: usize) -> Result<usize, usize> {
    if text[at..].starts_with(KHMER_AND_SO_ON) {
        return Err(at + KHMER_AND_SO_ON.len() - "។".len());
    }
    let class = |at: usize| text[at..].chars().next().map(|c| SENTENCE_BREAK.get(c));
    if first == Stop::FullWidth
        && matches!(class(end), Some(SentenceBreak::Lower | SentenceBreak::Upper | SentenceBreak::Numeric))
    {
        return Err(end);
    }
    // Japanese quotes a sentence as 「…。」と: the sentence around it goes on.
    let is_quoted = text[end..].starts_with('と') && text[..end].ends_with(['」', '』']);
    if is_quoted || class(end) == Some(SentenceBreak::SContinue) {
        return Err(end);
    }
    // The stops of one end may stand apart, as in Tibetan: "། །".
    let after_space = skip(text, end, char::is_whitespace);
    match text[after_space..].chars().next().and_then(Stop::of) {
        Some(Stop::Anywhere) => Err(after_space),
        _ => Ok(end),
    }
}

/// Returns `true` if the stops `text[stop..after_stops]`, with closing marks up to `end`, end the sentence that starts
/// `text`.
fn ends_before_space(text: &str, stop: usize, after_stops: usize, end: usize) -> bool {
    let after = text[end..].trim_start();
    if after.is_empty() {
        return true;
    }
    if after.len() == text.len() - end {
        return false; // no white space
    }
    let mut next = after.trim_start_matches(|c: char| !c.is_alphanumeric() && !c.is_whitespace());
    if after.starts_with('«') {
        next = next.trim_start();
    }
    // Only punctuation follows, as in ". . .": it belongs to this sentence.
    let Some(first) = next.chars().next().filter(|c| !c.is_whitespace()) else { return false };
    if first.is_lowercase() {
        return false;
    }
    // Only a single full stop without a closing mark can belong to an abbreviation.
    if &text[stop..end] != "." || after_stops != end {
        return true;
    }
    let before = &text[..stop];
    let word_start = before.rfind(|c: char| c.is_whitespace() || matches!(c, '(' | '[' | '"' | '“' | '—' | '–'));
    let Some(word_start) = word_start else {
        // "1. The first item"
        return !before.chars().all(|c| c.is_ascii_digit()) && !is_abbreviation("", before, next);
    };
    let word = before[word_start..].trim_start_matches(|c: char| !c.is_alphanumeric());
    !is_abbreviation(&before[..word_start], word, next)
}
