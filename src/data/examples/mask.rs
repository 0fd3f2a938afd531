//! Masked language modelling: selects the masked positions of `[CLS] a [SEP] b [SEP]` and replaces their tokens.
//!
//! The rules are those of `create_masked_lm_predictions` in google-research/bert, `create_pretraining_data.py`. Every
//! token except `[CLS]` and `[SEP]` is a candidate. Of a sequence of n tokens, [`prediction_count`] are chosen without
//! replacement:
//!
//! ```text
//! min(max_predictions_per_seq, max(1, round(n · masked_lm_prob)))
//! ```
//!
//! Of these, 80 % become `[MASK]`, 10 % stay, and 10 % become a token drawn from the whole vocabulary; [`MaskShares`] holds
//! these shares. With whole-word masking, a word and its `##` pieces are chosen together, and a word that would exceed the count is skipped.
//!
//! Span masking follows SpanBERT (arXiv 1907.10529, section 3.1): spans of whole words start at a uniformly drawn word
//! and have geometric lengths in words. One draw decides whether all tokens of a span are masked, kept or replaced.

use serde::{Deserialize, Serialize};

use crate::rng::Stream;

use crate::data::tokenizer::vocabulary::Vocabulary;

/// Settings of masking.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaskConfig {
    /// Maximum number of masked positions per sequence.
    pub max_predictions_per_seq: usize,
    /// Share of masked tokens, 0.15 for BERT.
    pub masked_lm_prob: f64,
    /// The shares of replacements of the chosen tokens.
    pub shares: MaskShares,
    /// Mask all pieces of a word together.
    pub whole_word_mask: bool,
    /// Mask spans of whole words instead.
    pub span_mask: Option<SpanMask>,
}

/// The replacements of the tokens that are chosen for prediction, as shares that sum to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskShares {
    /// The share that becomes `[MASK]`.
    pub masked: f64,
    /// The share that becomes a token drawn from the whole vocabulary.
    pub random: f64,
    /// The share that stays.
    pub kept: f64,
}

impl MaskShares {
    /// The shares of BERT: 80 % masked, 10 % random, 10 % kept.
    pub const BERT: MaskShares = MaskShares { masked: 0.8, random: 0.1, kept: 0.1 };

    /// The deviation of the sum from 1 that rounding may cause.
    const TOLERANCE: f64 = 1e-6;

    /// Returns whether every share is from 0 to 1, and their sum is 1.
    pub fn is_valid(self) -> bool {
        let MaskShares { masked, random, kept } = self;
        let is_share = |share: f64| (0.0..=1.0).contains(&share);
        [masked, random, kept].into_iter().all(is_share) && (masked + random + kept - 1.0).abs() <= Self::TOLERANCE
    }

    /// Draws what chosen tokens become. A second draw decides between random and kept.
    fn draw(self, stream: &mut Stream) -> Replacement {
        if stream.uniform() < self.masked {
            Replacement::Mask
        } else if stream.uniform() >= self.kept / (self.random + self.kept) {
            Replacement::Random
        } else {
            Replacement::Keep
        }
    }
}

impl Default for MaskShares {
    fn default() -> Self {
        MaskShares::BERT
    }
}

impl std::fmt::Display for MaskShares {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let MaskShares { masked, random, kept } = self;
        write!(f, "masked = {masked}, random = {random}, kept = {kept}")
    }
}

/// The replacement of a chosen token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replacement {
    Mask,
    Random,
    Keep,
}

/// Distribution of span lengths in words: ℓ from 1 to `span_upper`, with probability proportional to p·(1 − p)^(ℓ − 1).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpanMask {
    /// p; 0.2 for SpanBERT, with a mean length of 3.8 words.
    pub geometric_p: f64,
    /// Largest span length in words.
    pub span_upper: u32,
}

impl Default for SpanMask {
    fn default() -> Self {
        SpanMask { geometric_p: 0.2, span_upper: 10 }
    }
}

impl SpanMask {
    /// Draws a length by inverting the distribution function, P(ℓ ≤ n) = (1 − qⁿ) / (1 − q^upper) with q = 1 − p.
    fn draw(&self, stream: &mut Stream) -> usize {
        let q = 1.0 - self.geometric_p;
        let remaining = 1.0 - stream.uniform() * (1.0 - q.powi(self.span_upper as i32));
        let words = (remaining.ln() / q.ln()).ceil();
        words.clamp(1.0, self.span_upper as f64) as usize
    }
}

/// The masked positions of one sequence in ascending order, with the original tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// Masked positions, ascending.
    pub positions: Vec<usize>,
    /// The original tokens.
    pub ids: Vec<u32>,
}

/// Returns the number of masked positions of a sequence of `len` tokens, including `[CLS]` and `[SEP]`: `min(max,
/// max(1, round(len · p)))`. Ties round to even, as in Python.
pub fn prediction_count(len: usize, config: &MaskConfig) -> usize {
    let count = (len as f64 * config.masked_lm_prob).round_ties_even() as usize;
    count.max(1).min(config.max_predictions_per_seq)
}

/// Adjacent positions: a token, a word, or a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Positions {
    start: usize,
    end: usize,
}

/// Masks sequences, reusing its buffers.
#[derive(Clone, Debug, Default)]
pub struct Masker {
    /// Units that are chosen together, in the order of the text.
    units: Vec<Positions>,
    /// Indices into `units`: those tried so far, then the rest in any order.
    order: Vec<u32>,
    /// For each unit, whether a span contains it.
    taken: Vec<bool>,
    /// The chosen ranges, each replaced by one draw.
    chosen: Vec<Positions>,
    targets: Targets,
}

impl Masker {
    /// Masks tokens of `tokens` in place and returns the original ones.
    pub fn mask(
        &mut self,
        tokens: &mut [i32],
        vocabulary: &Vocabulary,
        config: &MaskConfig,
        stream: &mut Stream,
    ) -> &Targets {
        let count = prediction_count(tokens.len(), config);
        let by_words = config.whole_word_mask || config.span_mask.is_some();
        self.find_units(tokens, vocabulary, by_words);
        self.chosen.clear();
        match config.span_mask {
            Some(spans) => self.choose_spans(count, &spans, stream),
            None => self.choose_units(count, stream),
        }
        self.chosen.sort_unstable();

        let Targets { positions, ids } = &mut self.targets;
        positions.clear();
        positions.extend(self.chosen.iter().flat_map(|chosen| chosen.start..chosen.end));
        ids.clear();
        ids.extend(positions.iter().map(|&position| tokens[position] as u32));

        for &Positions { start, end } in &self.chosen {
            match config.shares.draw(stream) {
                Replacement::Mask => tokens[start..end].fill(vocabulary.special().mask as i32),
                Replacement::Random => {
                    tokens[start..end].fill_with(|| stream.below(vocabulary.len() as u64) as i32);
                }
                Replacement::Keep => {}
            }
        }
        &self.targets
    }

    /// Collects every token except `[CLS]` and `[SEP]`, or every word, as a unit.
    fn find_units(&mut self, tokens: &[i32], vocabulary: &Vocabulary, by_words: bool) {
        let special = vocabulary.special();
        let (cls, sep) = (special.cls as i32, special.sep as i32);
        self.units.clear();
        for (position, &token) in tokens.iter().enumerate() {
            if token == cls || token == sep {
                continue;
            }
            match self.units.last_mut() {
                Some(word) if by_words && word.end == position && vocabulary.is_continuation(token as u32) => {
                    word.end += 1;
                }
                _ => self.units.push(Positions { start: position, end: position + 1 }),
            }
        }
        self.order.clear();
        self.order.extend(0..self.units.len() as u32);
    }

    /// Draws the next unit of a random order: a Fisher-Yates shuffle, only as far as needed.
    fn draw(&mut self, tried: usize, stream: &mut Stream) -> usize {
        let drawn = stream.between(tried as u64, self.order.len() as u64 - 1) as usize;
        self.order.swap(tried, drawn);
        self.order[tried] as usize
    }

    /// Chooses single units until `count` tokens are chosen. Each token of a unit is replaced by a draw of its own.
    fn choose_units(&mut self, count: usize, stream: &mut Stream) {
        let mut tried = 0;
        while tried < self.order.len() && self.chosen.len() < count {
            let unit = self.draw(tried, stream);
            let Positions { start, end } = self.units[unit];
            if self.chosen.len() + (end - start) <= count {
                self.chosen.extend((start..end).map(|position| Positions { start: position, end: position + 1 }));
            }
            tried += 1;
        }
    }

    /// Chooses spans of words until `count` tokens are chosen. A span ends early at the end of a segment, before a
    /// word that is taken, and before a word that would exceed the count.
    fn choose_spans(&mut self, count: usize, spans: &SpanMask, stream: &mut Stream) {
        self.taken.clear();
        self.taken.resize(self.units.len(), false);
        let (mut tried, mut tokens) = (0, 0);
        while tried < self.order.len() && tokens < count {
            let first = self.draw(tried, stream);
            tried += 1;
            let start = self.units[first].start;
            let mut span = Positions { start, end: start };
            let words = spans.draw(stream);
            for (word, taken) in self.units.iter().zip(&mut self.taken).skip(first).take(words) {
                let follows = word.start == span.end && !*taken;
                if !follows || tokens + (word.end - word.start) > count {
                    break;
                }
                *taken = true;
                tokens += word.end - word.start;
                span.end = word.end;
            }
            if span.end > start {
                self.chosen.push(span);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    fn vocabulary() -> Vocabulary {
        let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "play", "##ing", "##s", "dog", "cat"];
        Vocabulary::new(words.map(String::from).to_vec()).unwrap()
    }

    const CONFIG: MaskConfig = MaskConfig {
        max_predictions_per_seq: 20,
        masked_lm_prob: 0.15,
        shares: MaskShares::BERT,
        whole_word_mask: false,
        span_mask: None,
    };

    fn masked(tokens: &mut [i32], config: &MaskConfig, seed: u64) -> Targets {
        Masker::default().mask(tokens, &vocabulary(), config, &mut Key::new(seed).stream()).clone()
    }

    #[test]
    fn ties_round_to_even() {
        // 10 · 0.15 = 1.5 and 30 · 0.15 = 4.5: Python's round gives 2 and 4.
        assert_eq!(prediction_count(10, &CONFIG), 2);
        assert_eq!(prediction_count(30, &CONFIG), 4);
        assert_eq!(prediction_count(128, &CONFIG), 19);
        assert_eq!(prediction_count(512, &CONFIG), 20);
        assert_eq!(prediction_count(5, &CONFIG), 1);
    }

    #[test]
    fn chosen_tokens_are_masked_replaced_and_kept_in_the_given_shares() {
        for (masked, random, kept) in
            [(0.8, 0.1, 0.1), (1.0, 0.0, 0.0), (0.5, 0.3, 0.2), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
        {
            let shares = MaskShares { masked, random, kept };
            assert!(shares.is_valid());
            let mut stream = Key::new(3).stream();
            let (draws, mut counts) = (100_000, [0.0; 3]);
            (0..draws).for_each(|_| counts[shares.draw(&mut stream) as usize] += 1.0);
            for (count, p) in counts.into_iter().zip([masked, random, kept]) {
                let n = draws as f64;
                assert!((count - n * p).abs() <= 5.0 * (n * p * (1.0 - p)).sqrt(), "{shares}: {counts:?}");
            }
        }
        for (masked, random, kept) in [(0.8, 0.1, 0.2), (0.9, 0.2, -0.1), (f64::NAN, 0.5, 0.5), (0.8, 0.1, 0.0)] {
            assert!(!MaskShares { masked, random, kept }.is_valid(), "{masked} {random} {kept}");
        }
    }

    #[test]
    fn targets_restore_the_text_and_special_tokens_stay() {
        let original = [2, 5, 6, 8, 3, 9, 5, 7, 3];
        for span_mask in [None, Some(SpanMask::default())] {
            let config = MaskConfig { masked_lm_prob: 0.3, span_mask, ..CONFIG };
            for seed in 0..500 {
                let mut tokens = original;
                let targets = masked(&mut tokens, &config, seed);
                // round(9 · 0.3) = 3, unless two single words leave no room for a word of two.
                assert!((2..=3).contains(&targets.positions.len()));
                for (&position, &id) in targets.positions.iter().zip(&targets.ids) {
                    assert!(![0, 4, 8].contains(&position));
                    tokens[position] = id as i32;
                }
                assert_eq!(tokens, original);
            }
        }
    }

    #[test]
    fn whole_words_are_masked_together_up_to_the_count() {
        let config = MaskConfig { masked_lm_prob: 0.25, whole_word_mask: true, ..CONFIG };
        let original = [2, 5, 6, 8, 3, 9, 5, 7, 6, 3, 6, 3]; // a `##` after [SEP] has no word to join: its own group
        let words: [&[usize]; 5] = [&[1, 2], &[3], &[5], &[6, 7, 8], &[10]];
        for span_mask in [None, Some(SpanMask::default())] {
            let mut sizes = [0; 4];
            for seed in 0..500 {
                let targets = masked(&mut original.clone(), &MaskConfig { span_mask, ..config }, seed);
                assert!(targets.positions.is_sorted_by(|a, b| a < b));
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

    #[test]
    fn span_lengths_are_geometric_up_to_the_maximum() {
        let (spans, draws) = (SpanMask::default(), 100_000);
        let mut counts = [0u32; 11];
        let mut stream = Key::new(4).stream();
        (0..draws).for_each(|_| counts[spans.draw(&mut stream)] += 1);
        let whole = 1.0 - 0.8f64.powi(10);
        let expected: Vec<f64> = (1..=10).map(|words| 0.2 * 0.8f64.powi(words - 1) / whole).collect();
        for (&count, &p) in counts[1..].iter().zip(&expected) {
            let n = draws as f64;
            assert!((count as f64 - n * p).abs() < 5.0 * (n * p * (1.0 - p)).sqrt(), "{counts:?}");
        }
        // SpanBERT states a mean length of 3.8.
        let mean: f64 = expected.iter().zip(1..).map(|(p, words)| p * words as f64).sum();
        assert!((mean - 3.8).abs() < 0.05, "{mean}");
        assert_eq!(counts[0], 0);
    }

    #[test]
    fn one_draw_decides_for_a_whole_span() {
        // Single words in a long sequence: little but the number of predictions ends a span early.
        let config = MaskConfig { max_predictions_per_seq: 80, span_mask: Some(SpanMask::default()), ..CONFIG };
        let original: Vec<i32> = [2].into_iter().chain((0..510).map(|i| 8 + i % 2)).chain([3]).collect();
        let (mut spans, mut masked, mut kept) = (0, 0, 0);
        let mut masker = Masker::default();
        for seed in 0..2000 {
            let mut tokens = original.clone();
            masker.mask(&mut tokens, &vocabulary(), &config, &mut Key::new(seed).stream());
            assert_eq!(masker.targets.positions.len(), 77, "round(512 · 0.15)");
            // If tokens were replaced one by one, few spans of four or more would be all masked or all kept. Random
            // tokens of this vocabulary imitate either at most once in 10⁴ spans.
            for span in masker.chosen.iter().filter(|span| span.end - span.start >= 4) {
                let now = &tokens[span.start..span.end];
                spans += 1;
                masked += now.iter().all(|&token| token == 4) as usize;
                kept += (now == &original[span.start..span.end]) as usize;
            }
        }
        let near = |count: usize, p: f64| {
            let n = spans as f64;
            (count as f64 - n * p).abs() < 5.0 * (n * p * (1.0 - p)).sqrt()
        };
        assert!(spans > 10_000 && near(masked, 0.8) && near(kept, 0.1), "{masked} and {kept} of {spans}");
    }
}
