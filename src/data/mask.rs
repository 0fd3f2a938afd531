//! Masked language model targets: which positions of `[CLS] a [SEP] b [SEP]` are predicted, and what stands there
//! instead of the token.
//!
//! The rules are those of `create_masked_lm_predictions` in google-research/bert, `create_pretraining_data.py`:
//! every token but `[CLS]` and `[SEP]` is a candidate; `round(15 %)` of the *whole* length, at least one and at most
//! `max_predictions`, are chosen without replacement; of these 80 % become `[MASK]`, 10 % stay, 10 % become an entry of
//! the whole vocabulary. With whole-word masking a word and its `##` pieces are chosen together, and a word that would
//! exceed the number is passed over.

use crate::rng::Stream;

use super::vocabulary::Vocabulary;

/// How positions are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaskConfig {
    /// Upper bound of the predictions of one sequence.
    pub max_predictions: usize,
    /// Share of the sequence's tokens that are predicted, 0.15 for BERT.
    pub masked_lm_prob: f64,
    pub whole_word_mask: bool,
}

/// The targets of one sequence, positions ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    pub positions: Vec<usize>,
    /// The token that stood there.
    pub ids: Vec<u32>,
}

/// Number of predictions for a sequence of `len` tokens, `[CLS]` and `[SEP]` counted:
/// `min(max, max(1, round(len · p)))`, where a half goes to the even neighbour, as Python rounds.
pub fn number_to_predict(len: usize, config: &MaskConfig) -> usize {
    let wanted = (len as f64 * config.masked_lm_prob).round_ties_even() as usize;
    wanted.max(1).min(config.max_predictions)
}

/// Replaces chosen tokens of `tokens` in place and returns what stood there.
pub fn mask(tokens: &mut [u32], vocabulary: &Vocabulary, config: &MaskConfig, stream: &mut Stream) -> Targets {
    let special = vocabulary.special();
    let wanted = number_to_predict(tokens.len(), config);

    // Groups of neighbouring positions that are masked together, as ranges.
    let mut groups: Vec<(usize, usize)> = Vec::with_capacity(tokens.len());
    for (position, &token) in tokens.iter().enumerate() {
        if token == special.cls || token == special.sep {
            continue;
        }
        match groups.last_mut() {
            Some(group) if config.whole_word_mask && group.1 == position && vocabulary.is_continuation(token) => {
                group.1 += 1;
            }
            _ => groups.push((position, position + 1)),
        }
    }

    // Fisher and Yates, only as far as needed.
    let mut positions = Vec::with_capacity(wanted);
    for i in 0..groups.len() {
        if positions.len() >= wanted {
            break;
        }
        let chosen = stream.between(i as u64, groups.len() as u64 - 1) as usize;
        groups.swap(i, chosen);
        let (start, end) = groups[i];
        if positions.len() + (end - start) <= wanted {
            positions.extend(start..end);
        }
    }
    positions.sort_unstable();

    let ids = positions.iter().map(|&position| tokens[position]).collect();
    for &position in &positions {
        if stream.uniform() < 0.8 {
            tokens[position] = special.mask;
        } else if stream.uniform() >= 0.5 {
            tokens[position] = stream.below(vocabulary.len() as u64) as u32;
        }
    }
    Targets { positions, ids }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    fn vocabulary() -> Vocabulary {
        let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "play", "##ing", "##s", "dog", "cat"];
        Vocabulary::new(words.map(String::from).to_vec()).unwrap()
    }

    const CONFIG: MaskConfig = MaskConfig { max_predictions: 20, masked_lm_prob: 0.15, whole_word_mask: false };

    #[test]
    fn a_half_is_rounded_to_the_even_neighbour() {
        // 10 · 0.15 = 1.5 and 30 · 0.15 = 4.5: Python's round gives 2 and 4.
        assert_eq!(number_to_predict(10, &CONFIG), 2);
        assert_eq!(number_to_predict(30, &CONFIG), 4);
        assert_eq!(number_to_predict(128, &CONFIG), 19);
        assert_eq!(number_to_predict(512, &CONFIG), 20);
        assert_eq!(number_to_predict(5, &CONFIG), 1);
    }

    #[test]
    fn the_text_can_be_put_back_and_specials_stay() {
        let vocabulary = vocabulary();
        let original = [2, 5, 6, 8, 3, 9, 5, 7, 3];
        for seed in 0..500 {
            let mut tokens = original;
            let targets = mask(&mut tokens, &vocabulary, &CONFIG, &mut Key::new(seed).stream());
            assert_eq!(targets.positions.len(), 1);
            for (&position, &id) in targets.positions.iter().zip(&targets.ids) {
                assert!(![0, 4, 8].contains(&position));
                tokens[position] = id;
            }
            assert_eq!(tokens, original);
        }
    }

    #[test]
    fn whole_words_are_masked_together_and_never_beyond_the_number() {
        let vocabulary = vocabulary();
        let config = MaskConfig { masked_lm_prob: 0.25, whole_word_mask: true, ..CONFIG };
        let original = [2, 5, 6, 8, 3, 9, 5, 7, 6, 3, 6, 3]; // a `##` after [SEP] has no word to join: its own group
        let words: [&[usize]; 5] = [&[1, 2], &[3], &[5], &[6, 7, 8], &[10]];
        let mut sizes = [0; 4];
        for seed in 0..500 {
            let mut tokens = original;
            let targets = mask(&mut tokens, &vocabulary, &config, &mut Key::new(seed).stream());
            assert!(targets.positions.is_sorted());
            sizes[targets.positions.len()] += 1;
            for word in words {
                let chosen = word.iter().filter(|p| targets.positions.contains(p)).count();
                assert!(chosen == 0 || chosen == word.len(), "{:?} cuts {word:?}", targets.positions);
            }
        }
        // round(12 · 0.25) = 3 can always be filled here: by the word of three, or by smaller ones.
        assert_eq!(sizes, [0, 0, 0, 500]);
    }
}
