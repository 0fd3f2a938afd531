//! Words that end with a full stop without ending a sentence. Each list is sorted by code points, for a binary search, and
//! in lower case unless it says otherwise.

/// Titles and similar abbreviations, which a name or an explanation always follows.
const NEVER_LAST: &[&str] = &[
    "abb",
    "adm",
    "akad",
    "attys",
    "avv",
    "bkz",
    "brig",
    "bspw",
    "bzw",
    "capt",
    "cf",
    "cmdr",
    "col",
    "cpl",
    "d.h",
    "dhr",
    "dott",
    "doç",
    "dr",
    "dra",
    "drs",
    "dña",
    "e.g",
    "esp",
    "evtl",
    "exmo",
    "ft",
    "gegr",
    "gen",
    "ggf",
    "gov",
    "hon",
    "hrsg",
    "i.e",
    "inkl",
    "insp",
    "inż",
    "lieut",
    "lt",
    "m.in",
    "maj",
    "messrs",
    "mevr",
    "mgr",
    "mlle",
    "mme",
    "mr",
    "mrs",
    "ms",
    "mt",
    "např",
    "np",
    "o.a",
    "prof",
    "płk",
    "rep",
    "rev",
    "rt",
    "sen",
    "sgt",
    "sig",
    "sra",
    "srta",
    "st",
    "supt",
    "tzv",
    "tzw",
    "u.a",
    "vgl",
    "viz",
    "vs",
    "yrd",
    "z.b",
    "zzgl",
    "örn",
    "ś.p",
    "św",
    "δηλ",
    "π.χ",
    "акад",
    "им",
    "напр",
    "проф",
    "см",
    "т.е",
    "т.к",
    "т.н",
    "тов",
    "ул",
    "डॉ",
    "प्रो",
];

/// Abbreviations before a number; otherwise ordinary words or ends of sentences.
const BEFORE_A_NUMBER: &[&str] = &[
    "apr", "art", "aug", "b", "c", "ca", "ch", "chap", "d", "dec", "env", "eq", "feb", "fig", "figs", "jan", "jul",
    "jun", "mar", "no", "nos", "nov", "nr", "núm", "oct", "op", "p", "pp", "pt", "pág", "págs", "sec", "sep", "sept",
    "str", "ver", "vol", "vols", "рис", "с", "табл",
];

/// Abbreviations that may end a sentence: they do if a common first word of sentences follows.
const EITHER: &[&str] = &[
    "a.d", "a.m", "al", "b.a", "b.c", "b.sc", "bros", "chr", "co", "corp", "d.c", "ed", "eds", "est", "inc", "jr",
    "ltd", "m.a", "m.d", "m.sc", "mio", "mrd", "p.m", "ph.d", "sr", "trans", "u.k", "u.n", "u.s", "u.s.a", "u.s.s.r",
    "κ", "г", "гг", "др", "млн", "млрд", "руб", "тыс",
];

/// Words that often begin sentences and seldom names, as they are written there.
const FIRST_WORDS: &[&str] = &[
    "A",
    "After",
    "All",
    "Although",
    "An",
    "And",
    "As",
    "At",
    "Because",
    "Before",
    "But",
    "By",
    "Das",
    "Der",
    "Die",
    "During",
    "Each",
    "Ein",
    "Eine",
    "Er",
    "Es",
    "For",
    "From",
    "He",
    "Her",
    "His",
    "How",
    "However",
    "I",
    "Ich",
    "If",
    "Im",
    "In",
    "It",
    "Its",
    "Many",
    "Most",
    "My",
    "No",
    "Not",
    "On",
    "One",
    "Our",
    "She",
    "Sie",
    "Since",
    "So",
    "Some",
    "Such",
    "That",
    "The",
    "Their",
    "Then",
    "There",
    "These",
    "They",
    "This",
    "Those",
    "To",
    "Under",
    "Unlike",
    "Until",
    "We",
    "What",
    "When",
    "Where",
    "While",
    "Who",
    "Wir",
    "With",
    "You",
    "В",
    "Во",
    "Его",
    "Если",
    "Её",
    "И",
    "На",
    "Но",
    "Он",
    "Она",
    "Они",
    "По",
    "После",
    "При",
    "С",
    "Это",
    "Этот",
];

/// Abbreviations of two words, as they are written: the second one ends with a full stop, too.
const PAIRS: &[(&str, &str)] = &[
    ("EE", "UU"),
    ("a", "D"),
    ("av", "J"),
    ("d", "J"),
    ("d", "R"),
    ("e", "V"),
    ("i", "A"),
    ("i", "V"),
    ("m", "E"),
    ("n", "Chr"),
    ("o", "Ä"),
    ("s", "S"),
    ("u", "U"),
    ("u", "Ä"),
    ("v", "Chr"),
    ("z", "B"),
    ("z", "T"),
    ("z", "Z"),
];

/// Abbreviations of two words, of which a capital may follow the second one: the first word with its full stop, the second
/// without.
const ENDS_OF_PAIRS: &[(&str, &str)] = &[("d.", "h"), ("p.", "ex"), ("u.", "a"), ("т.", "е"), ("т.", "к"), ("т.", "н")];

/// Words after a German ordinal number ("3. Oktober") that are not English, as they are written.
const AFTER_AN_ORDINAL: &[&str] = &[
    "Auflage",
    "Bundesliga",
    "Dezember",
    "Februar",
    "Geburtstag",
    "Jahrhundert",
    "Jahrhunderts",
    "Jahrtausend",
    "Januar",
    "Jh",
    "Juli",
    "Juni",
    "Jänner",
    "Klasse",
    "Lebensjahr",
    "Mai",
    "März",
    "Oktober",
    "Weltkrieg",
    "Weltkriegs",
];

/// The German months whose names are English, too.
const MONTHS: &[&str] = &["April", "August", "November", "September"];

/// German words before an ordinal number that are not English, in lower case.
const BEFORE_AN_ORDINAL: &[&str] = &["beim", "dem", "den", "der", "des", "im", "ins", "vom", "zum", "zur"];

/// Words and marks before the ordinal number of a day, in German and in lower case.
const BEFORE_A_DAY: &[&str] = &["*", "ab", "am", "bis", "seit", "†"];

/// Bytes of the longest word of the lists in lower case, and of the longest one of a pair before its last full stop.
const LONGEST: usize = 12;
const LONGEST_OF_PAIR: usize = 2;

fn lists(list: &[&str], word: &str) -> bool {
    list.binary_search(&word).is_ok()
}

/// Returns `true` if the full stop after `word` does not end its sentence. `before` is the text before the word, and `next` that
/// from the first letter or digit after the full stop.
pub(super) fn is_abbreviation(before: &str, word: &str, next: &str) -> bool {
    // This function is called for most sentences, so it looks at other words only if their value matters.
    let word_before = || before.split_whitespace().next_back().unwrap_or_default();
    let next_word = || next.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    if word.len() > LONGEST {
        return false;
    }
    if matches!(word.len(), 1 | 2) && word.bytes().all(|byte| byte.is_ascii_digit()) {
        return is_ordinal(word_before(), next_word());
    }
    let mut letters = word.chars();
    if let (Some(letter), None) = (letters.next(), letters.next())
        && letter.is_alphabetic()
        && !letter.is_lowercase()
        // "I" is more often the pronoun or the number than an initial. Letters of scripts without case are initials, too.
        && letter != 'I'
    {
        return true;
    }
    if word.len() <= LONGEST_OF_PAIR {
        let (pair, end) = ((word, next_word()), next_word().len());
        let is_pair = PAIRS.contains(&pair) && next[end..].starts_with('.');
        if is_pair || ENDS_OF_PAIRS.contains(&(word_before(), word)) {
            return true;
        }
    }
    match word.to_lowercase().as_str() {
        lower if lists(NEVER_LAST, lower) => true,
        lower if lists(BEFORE_A_NUMBER, lower) => next.starts_with(char::is_numeric),
        lower if lists(EITHER, lower) => !lists(FIRST_WORDS, next_word()),
        _ => false,
    }
}

/// Returns `true` if a number of one or two digits with a full stop, between the words `before` and `next`, is a German
/// ordinal number.
fn is_ordinal(before: &str, next: &str) -> bool {
    let before = before.trim_start_matches(['(', '[']).to_lowercase();
    lists(AFTER_AN_ORDINAL, next)
        || lists(BEFORE_AN_ORDINAL, &before)
        || lists(MONTHS, next) && lists(BEFORE_A_DAY, &before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_in_lower_case() {
        for list in [NEVER_LAST, BEFORE_A_NUMBER, EITHER] {
            assert!(list.iter().all(|word| word.to_lowercase() == *word && word.len() <= LONGEST));
        }
        let of_pairs = PAIRS.iter().map(|pair| pair.0).chain(ENDS_OF_PAIRS.iter().map(|pair| pair.1));
        assert!(of_pairs.into_iter().all(|word| word.len() <= LONGEST_OF_PAIR));
        let all = [
            NEVER_LAST,
            BEFORE_A_NUMBER,
            EITHER,
            FIRST_WORDS,
            AFTER_AN_ORDINAL,
            MONTHS,
            BEFORE_AN_ORDINAL,
            BEFORE_A_DAY,
        ];
        for list in all {
            assert_eq!(list.windows(2).find(|pair| pair[0] >= pair[1]), None);
        }
    }
}
