//! Extends the vocabulary of a tokenizer by pieces of a text, and its files.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use super::new_pieces::choose_pieces;
use super::word_counts::{LeftOut, WordCounts, count_words};
use crate::data::corpus::{Input, ReadOptions, SentenceMode};
use crate::data::error::{DataError, Result};
use crate::data::tokenizer::encode::Tokenizer;
use crate::data::tokenizer::files::parse_json;
use crate::data::tokenizer::names::{ADDED_TOKENS, CONFIG, TOKENIZER_JSON, VOCABULARY};
use crate::data::tokenizer::parts::vocabulary_json;
use crate::data::tokenizer::vocabulary::Vocabulary;
use crate::data::tokenizer::wordpiece::WordPiece;

/// One document of this many is held out: it takes no part in the choice and measures it.
const HELD_OUT_OF: u64 = 10;

/// The number of different words that are held in memory; rarer ones are left out.
const MOST_WORDS: usize = 1 << 20;

/// Options of [`extend_tokenizer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtensionOptions {
    /// The number of new pieces, at most.
    pub pieces: usize,
    /// The number of words of the text in which a new piece occurs, at least.
    pub min_frequency: u64,
    /// Keeps the entries `[unused…]`; every new piece then follows the last token.
    pub keep_unused: bool,
    /// Words end at line ends, so lines need not be sentences.
    pub reading: ReadOptions,
}

impl ExtensionOptions {
    /// Returns the usual options: pieces that occur at least five times, into the entries `[unused…]` first.
    pub fn new(pieces: usize) -> Self {
        let reading = ReadOptions { sentences: SentenceMode::Lines, ..ReadOptions::default() };
        ExtensionOptions { pieces, min_frequency: 5, keep_unused: false, reading }
    }
}

/// A piece that was added to a vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedPiece {
    /// The token, with `##` if it continues a word.
    pub token: String,
    /// Its id.
    pub id: u32,
    /// The ids of the pieces that the old vocabulary has for it; that of `[UNK]` if it has none.
    pub old_pieces: Vec<u32>,
    /// The pieces that it saves in the text, with those before it.
    pub saved: u64,
    /// The number of its occurrences in the text.
    pub occurrences: u64,
}

/// The words of a text and the pieces that a tokenizer splits them into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fertility {
    /// Words.
    pub words: u64,
    /// Pieces, where an unknown word is one.
    pub pieces: u64,
    /// Words that become `[UNK]`.
    pub unknown_words: u64,
}

impl Fertility {
    fn of(word_piece: &WordPiece, counts: &HashMap<String, u64>) -> Fertility {
        let mut fertility = Fertility::default();
        let mut ids = Vec::new();
        for (word, count) in counts {
            ids.clear();
            word_piece.push_pieces(word, &mut ids);
            fertility.words += count;
            fertility.pieces += count * ids.len() as u64;
            fertility.unknown_words += if ids == [word_piece.unk()] { *count } else { 0 };
        }
        fertility
    }

    /// Returns the number of pieces per word.
    pub fn pieces_per_word(&self) -> f64 {
        self.pieces as f64 / self.words as f64
    }

    /// Returns the share of unknown words.
    pub fn unknown_share(&self) -> f64 {
        self.unknown_words as f64 / self.words as f64
    }
}

/// A part of the text, as both tokenizers split it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextShare {
    /// With the old vocabulary.
    pub before: Fertility,
    /// With the new vocabulary.
    pub after: Fertility,
}

/// A tokenizer with new pieces.
#[derive(Clone, Debug)]
pub struct Extension {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The new pieces, in the order in which they were chosen.
    pub pieces: Vec<AddedPiece>,
    /// The number of new pieces that replace an entry `[unused…]`; the others follow the last token.
    pub replaced: usize,
    /// The documents that the pieces were chosen on.
    pub chosen_on: TextShare,
    /// The documents that were held out; none if they have no words.
    pub held_out: Option<TextShare>,
    /// The counts of words and signs that took no part.
    pub left_out: LeftOut,
}

/// Adds pieces to the vocabulary of `tokenizer`, which shorten the text of `inputs` most; `new_pieces.rs` has the algorithm. Every tenth
/// document is held out. The entries of `reserved`, such as added tokens, are never replaced. The different words of the text are held
/// in memory, up to a million.
///
/// # Errors
/// If the tokenizer is not BERT's WordPiece; if the inputs cannot be read or hold no words.
pub fn extend_tokenizer(
    tokenizer: &Tokenizer,
    reserved: &[String],
    inputs: &[Input],
    options: &ExtensionOptions,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Extension> {
    let word_piece = tokenizer.word_piece().ok_or_else(|| DataError::Corpus {
        subject: "the extension of a vocabulary".into(),
        required: "BERT's WordPiece".into(),
        found: format!("a {} tokenizer", tokenizer.rules().model()),
        next: "train a new tokenizer on your text, or extend a model with WordPiece".into(),
    })?;
    let group_of = |document: u64| usize::from(document % HELD_OUT_OF == HELD_OUT_OF - 1);
    let [chosen_on, held_out]: [WordCounts; 2] =
        count_words(inputs, &options.reading, &word_piece.rules(), MOST_WORDS, &group_of, progress)?;
    if chosen_on.counts.is_empty() {
        return Err(DataError::Corpus {
            subject: "the inputs".into(),
            required: "text to choose new pieces from".into(),
            found: "no words".into(),
            next: "name inputs with text".into(),
        });
    }
    let old = tokenizer.vocabulary();
    let free = |token: &String| !options.keep_unused && is_unused(token) && !reserved.contains(token);
    let unused: Vec<u32> = old.tokens().iter().zip(0..).filter(|(token, _)| free(token)).map(|(_, id)| id).collect();
    let ids = unused.iter().copied().chain(old.len() as u32..);
    let chosen = choose_pieces(word_piece.pieces(), &chosen_on.counts, options.pieces, options.min_frequency);
    let pieces: Vec<AddedPiece> = chosen
        .into_iter()
        .zip(ids)
        .map(|(piece, id)| AddedPiece {
            old_pieces: word_piece.pieces_of_token(&piece.token),
            token: piece.token,
            id,
            saved: piece.saved,
            occurrences: piece.occurrences,
        })
        .collect();
    let vocabulary = with_pieces(old, &pieces)?;
    let extended = WordPiece::new(&vocabulary, word_piece.rules());
    let share = |words: &WordCounts| TextShare {
        before: Fertility::of(word_piece, &words.counts),
        after: Fertility::of(&extended, &words.counts),
    };
    let mut left_out = chosen_on.left_out;
    left_out += held_out.left_out;
    Ok(Extension {
        replaced: pieces.len().min(unused.len()),
        chosen_on: share(&chosen_on),
        held_out: (!held_out.counts.is_empty()).then(|| share(&held_out)),
        tokenizer: Tokenizer::new(vocabulary, word_piece.rules()),
        pieces,
        left_out,
    })
}

/// Returns whether a token is an entry that BERT's vocabularies keep free, such as `[unused7]`.
fn is_unused(token: &str) -> bool {
    let number = token.strip_prefix("[unused").and_then(|rest| rest.strip_suffix(']'));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Returns the vocabulary with the new pieces at their ids.
fn with_pieces(old: &Vocabulary, pieces: &[AddedPiece]) -> Result<Vocabulary> {
    let mut tokens = old.tokens().to_vec();
    for piece in pieces {
        match tokens.get_mut(piece.id as usize) {
            Some(token) => *token = piece.token.clone(),
            None => tokens.push(piece.token.clone()),
        }
    }
    Vocabulary::new(tokens).map_err(|(required, found)| DataError::Corpus {
        subject: "the extended vocabulary".into(),
        required,
        found,
        next: "please report this error".into(),
    })
}

/// Returns the tokens that the files of a tokenizer in `directory` treat in another way than the rest of the vocabulary: those that a
/// text may name as a whole. `files` are names and contents.
///
/// # Errors
/// If a file is not JSON.
pub fn reserved_tokens(directory: &Path, files: &[(String, Vec<u8>)]) -> Result<Vec<String>> {
    let mut reserved = Vec::new();
    for (name, content) in files {
        let path = directory.join(name);
        let json = || parse_json(&path, content);
        let contents = |tokens: Vec<&Value>| -> Vec<String> {
            tokens.into_iter().filter_map(|token| Some(token["content"].as_str()?.to_owned())).collect()
        };
        match name.as_str() {
            TOKENIZER_JSON => {
                reserved.extend(contents(json()?["added_tokens"].as_array().into_iter().flatten().collect()));
            }
            CONFIG => {
                let config = json()?;
                let added = config["added_tokens_decoder"].as_object().into_iter().flatten();
                reserved.extend(contents(added.map(|(_, token)| token).collect()));
            }
            ADDED_TOKENS => {
                reserved.extend(json()?.as_object().into_iter().flatten().map(|(token, _)| token.clone()));
            }
            _ => {}
        }
    }
    Ok(reserved)
}

/// Returns the files of a tokenizer in `directory` with the vocabulary of `extended`: `vocab.txt` and `tokenizer.json` change in their tokens
/// only, and all others not at all. `files` are names and contents.
///
/// # Errors
/// If `tokenizer.json` is not JSON.
pub fn extended_files(
    directory: &Path,
    files: &[(String, Vec<u8>)],
    extended: &Tokenizer,
) -> Result<Vec<(String, Vec<u8>)>> {
    let changed = |(name, content): &(String, Vec<u8>)| -> Result<(String, Vec<u8>)> {
        let content = match name.as_str() {
            VOCABULARY => extended.vocabulary().to_text().into_bytes(),
            TOKENIZER_JSON => {
                let json = parse_json(&directory.join(name), content)?;
                vocabulary_json(json, extended.vocabulary()).into_bytes()
            }
            _ => content.clone(),
        };
        Ok((name.clone(), content))
    };
    files.iter().map(changed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::corpus::find_inputs;
    use crate::data::tokenizer::special_tokens::SPECIAL_TOKENS;
    use crate::data::tokenizer::wordpiece::WordRules;

    fn tokenizer(more: &str) -> Tokenizer {
        let tokens = SPECIAL_TOKENS.into_iter().chain(more.split(' ')).map(str::to_owned).collect();
        Tokenizer::new(Vocabulary::new(tokens).unwrap(), WordRules::bert(true))
    }

    const TOKENS: &str = "[unused0] [unused1] a [unused2] c ##a ##b ##c";

    fn extend(text: &str, reserved: &[&str], options: &ExtensionOptions) -> Result<Extension> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text.txt");
        std::fs::write(&path, text).unwrap();
        let reserved: Vec<String> = reserved.iter().map(|token| (*token).to_owned()).collect();
        extend_tokenizer(&tokenizer(TOKENS), &reserved, &find_inputs(&[path]).unwrap().inputs, options, &|_| ())
    }

    fn placed(extension: &Extension) -> Vec<(&str, u32)> {
        extension.pieces.iter().map(|piece| (piece.token.as_str(), piece.id)).collect()
    }

    /// 20 documents of one line.
    fn documents(line: impl Fn(usize) -> &'static str) -> String {
        (0..20).map(|document| format!("{}\n\n", line(document))).collect()
    }

    #[test]
    fn unused_entries_are_replaced_in_the_order_of_their_ids() {
        let text = documents(|_| "Abc abc cab cac caa");
        let options = ExtensionOptions { pieces: 4, ..ExtensionOptions::new(0) };
        let extension = extend(&text, &[], &options).unwrap();
        assert_eq!(placed(&extension), [("abc", 5), ("ca", 6), ("caa", 8), ("cab", 13)]);
        assert_eq!(extension.replaced, 3);
        assert_eq!(extension.tokenizer.vocabulary().len(), 14);
        assert_eq!(extension.tokenizer.vocabulary().token(5), Some("abc"));
        // The pieces that the old vocabulary has: "a ##b ##c", "c ##a".
        assert_eq!(extension.pieces[0].old_pieces, [7, 11, 12]);
        assert_eq!(extension.pieces[1].old_pieces, [9, 10]);

        let extension = extend(&text, &["[unused1]"], &options).unwrap();
        assert_eq!(placed(&extension), [("abc", 5), ("ca", 8), ("caa", 13), ("cab", 14)]);
        assert_eq!(extension.tokenizer.vocabulary().token(6), Some("[unused1]"));
        let extension = extend(&text, &[], &ExtensionOptions { keep_unused: true, ..options }).unwrap();
        assert_eq!((placed(&extension)[0], extension.replaced), (("abc", 13), 0));
    }

    #[test]
    fn every_tenth_document_measures_the_choice() {
        // Only held-out documents have the second word.
        let text = documents(|document| if document % 10 == 9 { "abc cab ?" } else { "abc abc" });
        let extension = extend(&text, &[], &ExtensionOptions::new(10)).unwrap();
        assert_eq!(placed(&extension), [("abc", 5)]);
        assert_eq!((extension.pieces[0].saved, extension.pieces[0].occurrences), (2 * 36, 36));
        let fertility = |words, pieces, unknown_words| Fertility { words, pieces, unknown_words };
        assert_eq!(extension.chosen_on, TextShare { before: fertility(36, 108, 0), after: fertility(36, 36, 0) });
        assert_eq!(extension.held_out, Some(TextShare { before: fertility(6, 14, 2), after: fertility(6, 10, 2) }));
        assert!((extension.held_out.unwrap().before.pieces_per_word() - 14.0 / 6.0).abs() < 1e-12);
        let single = extend("abc abc", &[], &ExtensionOptions::new(1)).unwrap();
        assert_eq!((single.held_out, single.pieces.len()), (None, 0), "the word occurs twice, five times are required");
        let error = extend("\n", &[], &ExtensionOptions::new(1)).unwrap_err().to_string();
        assert!(error.contains("text to choose new pieces from"), "{error}");
    }

    #[test]
    fn unknown_words_become_known_and_take_the_row_of_unk() {
        let text = documents(|_| "→ →");
        let extension = extend(&text, &[], &ExtensionOptions::new(3)).unwrap();
        assert_eq!(placed(&extension), [("→", 5)]);
        assert_eq!(extension.pieces[0].old_pieces, [tokenizer(TOKENS).vocabulary().special().unk]);
        assert_eq!(extension.chosen_on.before.unknown_words, 36);
        assert_eq!(extension.chosen_on.after, Fertility { words: 36, pieces: 36, unknown_words: 0 });
    }

    #[test]
    fn files_change_in_their_tokens_only() {
        let old = tokenizer(TOKENS);
        let mut files: Vec<(String, Vec<u8>)> =
            old.files().into_iter().map(|(name, text)| (name.to_owned(), text.into_bytes())).collect();
        files.push(("special_tokens_map.json".to_owned(), b"{\"mask_token\":  \"[MASK]\"}".to_vec()));
        files.push((ADDED_TOKENS.to_owned(), b"{\"[unused2]\": 8}".to_vec()));
        let reserved = reserved_tokens("D".as_ref(), &files).unwrap();
        assert_eq!(reserved, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused2]"]);

        let tokens: Vec<String> =
            old.vocabulary().tokens().iter().map(|token| token.replace("[unused0]", "abc")).collect();
        let extended = Tokenizer::new(Vocabulary::new(tokens).unwrap(), old.word_piece().unwrap().rules());
        let written = extended_files("D".as_ref(), &files, &extended).unwrap();
        for ((name, content), (expected, text)) in written.iter().zip(extended.files()) {
            assert_eq!((name.as_str(), std::str::from_utf8(content).unwrap()), (expected, text.as_str()));
        }
        assert_eq!(written[3..], files[3..]);
    }
}
