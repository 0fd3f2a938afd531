//! Marks for the beginnings of words in the tokens of a vocabulary.

use std::borrow::Cow;

use icu_properties::props::{GeneralCategory, Script};
use icu_properties::{CodePointMapData, CodePointMapDataBorrowed};

const GENERAL_CATEGORY: CodePointMapDataBorrowed<'static, GeneralCategory> = CodePointMapData::<GeneralCategory>::new();
const SCRIPT: CodePointMapDataBorrowed<'static, Script> = CodePointMapData::<Script>::new();

/// The prefix of a WordPiece that continues a word.
pub const CONTINUATION_PREFIX: &str = "##";

/// SentencePiece's character for a space.
const SPACE: char = '▁';

/// The mark of a vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordMark {
    /// `##` before a piece that continues a word: WordPiece.
    Continuation,
    /// `▁` for a space: SentencePiece.
    Space,
    /// `Ġ` for a space, and a printable character for each byte: byte-level BPE.
    ByteLevelSpace,
    /// None, so that the tokens of a word are not known.
    None,
}

impl WordMark {
    /// Returns whether `token` continues a word. With marks of spaces, a token begins a word if it begins with a space, with a
    /// punctuation mark or symbol, or with a character of a script without spaces, such as a Chinese one.
    pub(super) fn continues(self, token: &str) -> bool {
        match self {
            WordMark::Continuation => token.starts_with(CONTINUATION_PREFIX),
            WordMark::Space => !token.starts_with(SPACE) && token.chars().next().is_some_and(continues_word),
            WordMark::ByteLevelSpace => match bytes_of(token).as_deref() {
                None => false,
                Some(bytes) => match std::str::from_utf8(bytes) {
                    Ok(text) => text.chars().next().is_some_and(continues_word),
                    // These bytes begin kana and Chinese characters, which are not separated into words.
                    Err(error) if error.valid_up_to() == 0 => !matches!(bytes[0], 0xe3..=0xe9),
                    Err(_) => String::from_utf8_lossy(bytes).chars().next().is_some_and(continues_word),
                },
            },
            WordMark::None => false,
        }
    }

    /// Returns the characters that `token` stands for, with the space before them, if it has one.
    pub(super) fn text(self, token: &str) -> Cow<'_, str> {
        match self {
            WordMark::Continuation => match token.strip_prefix(CONTINUATION_PREFIX) {
                Some(rest) if !rest.is_empty() => rest.into(),
                _ => token.into(),
            },
            WordMark::Space => token.replace(SPACE, " ").into(),
            WordMark::ByteLevelSpace => match bytes_of(token) {
                Some(bytes) => String::from_utf8_lossy(&bytes).into_owned().into(),
                None => token.into(),
            },
            WordMark::None => token.into(),
        }
    }

    /// Returns the mark of a vocabulary of `tokens`, for a tokenizer without a setting that tells it.
    pub(super) fn of_tokens(tokens: &[String]) -> WordMark {
        let is_marked = |mark: fn(&str) -> bool| tokens.iter().any(|token| mark(token));
        if is_marked(|token| token.starts_with(SPACE)) {
            WordMark::Space
        } else if is_marked(|token| token.starts_with(CONTINUATION_PREFIX) && token != CONTINUATION_PREFIX) {
            WordMark::Continuation
        } else {
            WordMark::None
        }
    }
}

/// Returns whether a character at the start of a token is part of the word before it.
fn continues_word(c: char) -> bool {
    use GeneralCategory as G;
    let is_of_word = matches!(
        GENERAL_CATEGORY.get(c),
        G::UppercaseLetter
            | G::LowercaseLetter
            | G::TitlecaseLetter
            | G::ModifierLetter
            | G::OtherLetter
            | G::NonspacingMark
            | G::SpacingMark
            | G::EnclosingMark
            | G::DecimalNumber
            | G::LetterNumber
            | G::OtherNumber
    );
    let has_spaces = !matches!(
        SCRIPT.get(c),
        Script::Han
            | Script::Hiragana
            | Script::Katakana
            | Script::Thai
            | Script::Lao
            | Script::Khmer
            | Script::Myanmar
    );
    is_of_word && has_spaces
}

/// Returns the bytes of a token of byte-level BPE; none for a token that is no such sequence, such as a special one.
///
/// GPT-2 writes the printable bytes of Latin-1 as themselves, and the others, in order, as the characters from U+0100.
fn bytes_of(token: &str) -> Option<Vec<u8>> {
    let byte = |c: char| match c as u32 {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(code as u8),
        code => {
            let others = (0..=0xff_u8).filter(|byte| !matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff));
            others.into_iter().nth(code.checked_sub(0x100)? as usize)
        }
    };
    token.chars().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    use tokenizers::tokenizer::{PreTokenizedString, PreTokenizer};
    use tokenizers::{OffsetReferential, OffsetType};

    use super::*;

    /// Returns how byte-level BPE writes a text without white space.
    fn byte_level(text: &str) -> String {
        let mut pieces = PreTokenizedString::from(text);
        ByteLevel::new(false, false, false).pre_tokenize(&mut pieces).unwrap();
        pieces.get_splits(OffsetReferential::Normalized, OffsetType::Byte).into_iter().map(|(text, ..)| text).collect()
    }

    #[test]
    fn bytes_are_those_of_the_library() {
        let every = (0..=0x10_ffff).step_by(37).filter_map(char::from_u32).chain('\0'..='\u{7ff}');
        for text in every.map(|c| c.to_string()) {
            assert_eq!(WordMark::ByteLevelSpace.text(&byte_level(&text)), text);
        }
        assert_eq!(WordMark::ByteLevelSpace.text("<s>"), "<s>");
        assert_eq!(WordMark::ByteLevelSpace.text("[MASK] 你"), "[MASK] 你");
    }

    #[test]
    fn words_begin_at_spaces_punctuation_and_chinese_characters() {
        let begins = [" cat", ",", "'s", "你", "かな", "ไทย", " ", "…", "€"];
        let continues = ["s", "ing", "é", "7", "лов", "한", "\u{301}"];
        for (texts, expected) in [(&begins[..], false), (&continues[..], true)] {
            for &text in texts {
                assert_eq!(WordMark::ByteLevelSpace.continues(&byte_level(text)), expected, "{text}");
                assert_eq!(WordMark::Space.continues(&text.replace(' ', "▁")), expected, "{text}");
                assert!(!WordMark::None.continues(text));
            }
        }
        let byte_level_bytes = |bytes: &[u8]| -> String {
            let characters: Vec<char> = ByteLevel::alphabet().into_iter().collect();
            let of = |byte: u8| characters.iter().find(|c| bytes_of(&c.to_string()) == Some(vec![byte])).unwrap();
            bytes.iter().map(|&byte| of(byte)).collect()
        };
        assert!(WordMark::ByteLevelSpace.continues(&byte_level_bytes(&[0xa9])), "the end of a character");
        assert!(!WordMark::ByteLevelSpace.continues(&byte_level_bytes(&[0xe4, 0xbd])), "the start of a Chinese one");
        assert!(WordMark::Continuation.continues("##ing") && !WordMark::Continuation.continues("ing"));
    }
}
