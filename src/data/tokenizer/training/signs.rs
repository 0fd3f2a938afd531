//! Counts the signs that the stripping of accents removes although they are no accents: in scripts of India and South-East
//! Asia the vowel of a syllable is a nonspacing mark, and in kana so is the mark that makes "ka" a "ga".

use icu_properties::props::{GeneralCategory, Script};
use icu_properties::{CodePointMapData, CodePointMapDataBorrowed};

const GENERAL_CATEGORY: CodePointMapDataBorrowed<'static, GeneralCategory> = CodePointMapData::<GeneralCategory>::new();
const SCRIPT: CodePointMapDataBorrowed<'static, Script> = CodePointMapData::<Script>::new();

/// The first code point of the scripts of India. Before it are scripts whose nonspacing marks may be left out in writing, as
/// in Hebrew and Arabic.
const FIRST: char = '\u{900}';

/// Hiragana with a mark of voicing, which its decomposition separates.
const VOICED: &str = "がぎぐげござじずぜぞだぢづでどばぱびぴぶぷべぺぼぽゔ";
/// The distance from a hiragana to its katakana.
const KATAKANA: u32 = 0x60;

/// Returns the number of vowel signs and similar marks in `text` that [`strip_accents`](crate::data::tokenizer::wordpiece::WordRules) removes.
pub(super) fn lost_signs(text: &str) -> u64 {
    match text.is_ascii() {
        true => 0,
        false => text.chars().filter(|&c| c >= FIRST && is_lost(c)).count() as u64,
    }
}

fn is_lost(c: char) -> bool {
    match c {
        'ぁ'..='ゖ' => VOICED.contains(c),
        'ァ'..='ヶ' => char::from_u32(c as u32 - KATAKANA).is_some_and(|hiragana| VOICED.contains(hiragana)),
        // Marks of no script, such as U+0301, are accents.
        _ => GENERAL_CATEGORY.get(c) == GeneralCategory::NonspacingMark && SCRIPT.get(c) != Script::Inherited,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tokenizer::wordpiece::WordRules;

    #[test]
    fn signs_of_syllables_are_counted_and_accents_are_not() {
        for (text, expected) in [
            ("plain text", 0),
            ("Café, Ångström, e\u{301}", 0),
            ("शब्दावली कुछ", 2),
            ("தமிழ் மொழி", 1),
            ("ภาษาที่", 2),
            ("မြန်မာ", 1),
            ("がカガか", 2),
            ("שָׁלוֹם مُحَمَّد", 0),
            ("한국어, 中文", 0),
        ] {
            assert_eq!(lost_signs(text), expected, "{text}");
            let words = |rules: WordRules| {
                let mut words = Vec::new();
                rules.words(text, |word| words.push(word.to_owned())).unwrap();
                words
            };
            let stripped = words(WordRules { strip_accents: true, ..WordRules::bert(false) });
            assert!(expected == 0 || stripped != words(WordRules::bert(false)), "{text} is another text without them");
        }
    }
}
