//! The special tokens of a vocabulary by role, and how they surround the texts of a sequence.

/// The special tokens of every BERT vocabulary, in the order in which a newly trained WordPiece vocabulary begins.
pub const SPECIAL_TOKENS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// The names of RoBERTa for the roles of [`SPECIAL_TOKENS`], with which a newly trained BPE or Unigram vocabulary begins.
pub(super) const ROBERTA_TOKENS: [&str; 5] = ["<pad>", "<unk>", "<s>", "</s>", "<mask>"];

/// The keys of these roles in `tokenizer_config.json` and `special_tokens_map.json`.
pub(super) const ROLES: [&str; 5] = ["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"];

/// Ids of the special tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecialIds {
    /// Id of `[PAD]`.
    pub pad: u32,
    /// Id of `[UNK]`.
    pub unk: u32,
    /// Id of `[CLS]`.
    pub cls: u32,
    /// Id of `[SEP]`.
    pub sep: u32,
    /// Id of `[MASK]`.
    pub mask: u32,
}

impl SpecialIds {
    /// Returns the ids in the order of [`SPECIAL_TOKENS`].
    pub fn by_role(self) -> [u32; 5] {
        [self.pad, self.unk, self.cls, self.sep, self.mask]
    }
}

impl From<[u32; 5]> for SpecialIds {
    /// Takes the ids in the order of [`SPECIAL_TOKENS`].
    fn from([pad, unk, cls, sep, mask]: [u32; 5]) -> Self {
        SpecialIds { pad, unk, cls, sep, mask }
    }
}

/// The special tokens and token types of a pair of texts. A single text is always `[CLS] a [SEP]`, of type 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairForm {
    /// The number of `[SEP]` between the texts: 1 for BERT, 2 for RoBERTa.
    pub separators: usize,
    /// The type of the second text and the last `[SEP]`: 1 for BERT, 0 for RoBERTa. All before them have type 0.
    pub second_type: i32,
}

impl PairForm {
    /// `[CLS] a [SEP] b [SEP]`, where `b [SEP]` has type 1.
    pub const BERT: PairForm = PairForm { separators: 1, second_type: 1 };

    /// Returns the number of special tokens.
    pub fn special_tokens(self) -> usize {
        2 + self.separators
    }

    /// Returns the position of the second text behind a first one of `length` tokens.
    pub fn second_position(self, length: usize) -> usize {
        1 + length + self.separators
    }
}
