//! The pieces of a vocabulary, and the longest one that starts a text: the step of greedy longest match.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::word_mark::CONTINUATION_PREFIX;

/// FNV-1a: words are short, and no adversary chooses the keys.
#[derive(Clone, Copy)]
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ byte as u64).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Pieces without `##` and their ids.
#[derive(Clone, Default)]
struct Table {
    ids: HashMap<Box<str>, u32, BuildHasherDefault<Fnv>>,
    /// The length of the longest piece in bytes.
    longest: usize,
}

/// The pieces that start a word, and those that continue one.
#[derive(Clone, Default)]
pub(super) struct Pieces {
    first: Table,
    continuing: Table,
}

/// Returns whether a token continues a word, and its text without `##`. A token `##` alone would continue a word with nothing; greedy
/// match never reaches it, so it starts a word.
pub(super) fn piece_of(token: &str) -> (bool, &str) {
    match token.strip_prefix(CONTINUATION_PREFIX) {
        Some(rest) if !rest.is_empty() => (true, rest),
        _ => (false, token),
    }
}

impl Pieces {
    /// Adds a token of the vocabulary.
    pub fn insert(&mut self, token: &str, id: u32) {
        let (continues, piece) = piece_of(token);
        let table = if continues { &mut self.continuing } else { &mut self.first };
        table.longest = table.longest.max(piece.len());
        table.ids.insert(piece.into(), id);
    }

    /// Returns the id and the bytes of the longest piece that starts `rest`, the rest of a word (`continues`) or a whole one.
    pub fn longest(&self, rest: &str, continues: bool) -> Option<(u32, usize)> {
        let table = if continues { &self.continuing } else { &self.first };
        let mut end = floor_char_boundary(rest, table.longest);
        while end > 0 {
            if let Some(&id) = table.ids.get(&rest[..end]) {
                return Some((id, end));
            }
            end = floor_char_boundary(rest, end - 1);
        }
        None
    }
}

/// Returns the last character boundary at or before byte `at`.
fn floor_char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&byte| text.is_char_boundary(byte)).unwrap_or(0)
}
