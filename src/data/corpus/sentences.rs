//! Splits paragraphs into sentences, by rules for English and languages with similar punctuation.
//!
//! A full stop, question or exclamation mark ends a sentence if white space follows (after closing quotes and brackets)
//! and the next character is not lower case, unless the word before it is an abbreviation or an initial. Unicode's
//! rules (UAX #29) know no abbreviations: they would end a sentence after "Mr." and after each initial of a name.

/// Titles and similar abbreviations, which a name or an explanation always follows.
const NEVER_LAST: &[&str] = &[
    "adm", "attys", "brig", "capt", "cf", "cmdr", "col", "cpl", "dr", "e.g", "esp", "ft", "gen", "gov", "hon", "i.e",
    "insp", "lieut", "lt", "maj", "messrs", "mlle", "mme", "mr", "mrs", "ms", "mt", "prof", "rep", "rev", "rt", "sen",
    "sgt", "st", "supt", "viz", "vs",
];

/// Abbreviations before a number; otherwise ordinary words or ends of sentences.
const BEFORE_A_NUMBER: &[&str] = &[
    "apr", "art", "aug", "b", "c", "ca", "ch", "chap", "d", "dec", "eq", "feb", "fig", "figs", "jan", "jul", "jun",
    "mar", "no", "nos", "nov", "oct", "op", "p", "pp", "pt", "sec", "sep", "sept", "ver", "vol", "vols",
];

/// Abbreviations that may end a sentence: they do if a common first word of sentences follows.
const EITHER: &[&str] = &[
    "a.d", "a.m", "al", "b.a", "b.c", "b.sc", "bros", "co", "corp", "d.c", "ed", "eds", "est", "inc", "jr", "ltd",
    "m.a", "m.d", "m.sc", "p.m", "ph.d", "sr", "trans", "u.k", "u.n", "u.s", "u.s.a", "u.s.s.r",
];

/// Words that often begin sentences and seldom names.
const FIRST_WORDS: &[&str] = &[
    "A", "After", "All", "Although", "An", "And", "As", "At", "Because", "Before", "But", "By", "During", "Each",
    "For", "From", "He", "Her", "His", "How", "However", "I", "If", "In", "It", "Its", "Many", "Most", "My", "No",
    "Not", "On", "One", "Our", "She", "Since", "So", "Some", "Such", "That", "The", "Their", "Then", "There", "These",
    "They", "This", "Those", "To", "Under", "Unlike", "Until", "We", "What", "When", "Where", "While", "Who", "With",
    "You",
];

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

/// Returns the byte at which the first sentence of `text` ends.
fn end_of_sentence(text: &str) -> usize {
    let mut from = 0;
    while let Some(found) = text[from..].find(is_stop) {
        let stop = from + found;
        let after_stops = skip(text, stop, is_stop);
        let end =
            skip(text, after_stops, |c| matches!(c, '"' | '\'' | '”' | '’' | ')' | ']' | '}' | '»' | '」' | '』'));
        if text[stop..].starts_with(is_full_width_stop) || ends_sentence(text, stop, after_stops, end) {
            return end;
        }
        from = end;
    }
    text.len()
}

fn is_stop(c: char) -> bool {
    matches!(c, '.' | '!' | '?' | '…') || is_full_width_stop(c)
}

/// Returns `true` for the full stops of Chinese and Japanese, which no space follows.
fn is_full_width_stop(c: char) -> bool {
    matches!(c, '。' | '！' | '？')
}

fn skip(text: &str, from: usize, skipped: impl Fn(char) -> bool) -> usize {
    text.len() - text[from..].trim_start_matches(skipped).len()
}

/// Returns `true` if the stops `text[stop..after_stops]`, with closing marks up to `end`, end the sentence that starts
/// `text`.
fn ends_sentence(text: &str, stop: usize, after_stops: usize, end: usize) -> bool {
    let after = text[end..].trim_start();
    if after.is_empty() {
        return true;
    }
    if after.len() == text.len() - end {
        return false; // no white space: a decimal, a domain, an abbreviation's inner dot
    }
    let next = after.trim_start_matches(|c: char| !c.is_alphanumeric() && !c.is_whitespace());
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
    let word = match word_start {
        Some(at) => before[at..].trim_start_matches(|c: char| !c.is_alphanumeric()),
        None => before,
    };
    if word_start.is_none() && word.chars().all(|c| c.is_ascii_digit()) {
        return false; // "1. The first item"
    }
    let mut letters = word.chars();
    if let (Some(letter), None) = (letters.next(), letters.next()) {
        // An initial; but "I" is more often the pronoun or the number.
        if letter.is_uppercase() && letter != 'I' {
            return false;
        }
    }
    let lower = word.to_lowercase();
    let listed = |list: &[&str]| list.contains(&lower.as_str());
    if listed(NEVER_LAST) {
        return false;
    }
    if listed(BEFORE_A_NUMBER) {
        return !first.is_numeric();
    }
    if listed(EITHER) {
        let next_word = next.split(|c: char| !c.is_alphanumeric()).next().unwrap_or(next);
        return FIRST_WORDS.contains(&next_word);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `|` marks the ends of sentences.
    #[track_caller]
    fn check(marked: &str) {
        let expected: Vec<&str> = marked.split('|').map(str::trim).collect();
        let text = expected.join(" ");
        assert_eq!(sentences(&text).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn full_stops_end_sentences() {
        check("It rains.|It pours!|Does it?|Yes...|So it is.");
        check("One sentence without a stop");
        check("An ellipsis… goes on.|Then… stops…|Here.");
    }

    #[test]
    fn abbreviations_initials_and_numbers_do_not_end_sentences() {
        check("Mr. Smith met Dr. J. R. R. Jones of St. Paul at 3.14 p.m. on Jan. 5.|They left.");
        check("See Fig. 3 and Vol. 2, No. 7.|He said no.|Then he left.");
        check("The U.S. Army is large.|It is of the U.S.|The rest is not.");
        check("She works at Acme Inc. in Boston, i.e. Massachusetts, e.g. Monday.|He does not.");
        check("World War I.|The next war followed.");
        check("1. The first item.|2. The second.");
        check("Visit example.com. now.|Version 2.0 is out.");
    }

    #[test]
    fn closing_quotes_and_brackets_belong_to_the_sentence() {
        check("\"Stop!\" he said.|\"Why?\"|(She knew.)|[So did I.]|“Good.”|‘Yes.’");
        check("He asked “why?” and left.|(“Then go.”)|End.");
    }

    #[test]
    fn other_scripts() {
        let text = "今日は晴れ。明日は雨？はい。";
        assert_eq!(sentences(text).collect::<Vec<_>>(), ["今日は晴れ。", "明日は雨？", "はい。"]);
        check("Он пришёл.|Она ушла.");
    }

    #[test]
    fn white_space_belongs_to_no_sentence() {
        assert_eq!(sentences("  A dog.\t\u{a0} A cat.  ").collect::<Vec<_>>(), ["A dog.", "A cat."]);
        assert_eq!(sentences(" \t ").count(), 0);
        assert_eq!(sentences(". . .").count(), 1);
    }

    proptest::proptest! {
        #[test]
        fn only_white_space_is_lost(text in "([a-zA-Z0-9 .!?\"'()…。é]|Mr\\. ){0,60}") {
            let joined: String = sentences(&text).flat_map(str::chars).filter(|c| !c.is_whitespace()).collect();
            let whole: String = text.chars().filter(|c| !c.is_whitespace()).collect();
            proptest::prop_assert_eq!(joined, whole);
        }
    }
}
