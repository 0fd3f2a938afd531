//! The tokenized documents of a block, and their byte format in the spool.

use crate::data::store::shard::append_ids;

/// The parameters of the byte format of a token block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TokenForm {
    /// Number of 64-bit words in a document's signature; 0 unless duplicates are removed.
    pub signature: usize,
    /// Bytes of a token: two, or four if the vocabulary size exceeds 65,536.
    pub token_size: usize,
}

/// Counts of a document: sentences, tokens, bytes of text.
pub(super) type Head = [u32; 3];

/// Some documents. Their bytes are these lists one after the other, so that signatures and heads can be read alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenBlock {
    form: TokenForm,
    /// `form.signature` words per document.
    pub signatures: Vec<u64>,
    pub heads: Vec<Head>,
    pub sentence_lengths: Vec<u32>,
    /// `form.token_size` bytes per token.
    tokens: Vec<u8>,
}

impl TokenBlock {
    pub fn new(form: TokenForm) -> Self {
        TokenBlock { form, signatures: vec![], heads: vec![], sentence_lengths: vec![], tokens: vec![] }
    }

    /// Adds a document of `ids`, with the given sentence lengths, from `bytes` of text.
    pub fn push(&mut self, ids: &[u32], sentence_lengths: &[u32], bytes: usize, signature: &[u64]) {
        debug_assert_eq!(signature.len(), self.form.signature);
        append_ids(&mut self.tokens, ids, self.form.token_size == 4);
        self.signatures.extend_from_slice(signature);
        self.sentence_lengths.extend_from_slice(sentence_lengths);
        self.heads.push([sentence_lengths.len() as u32, ids.len() as u32, bytes as u32]);
    }

    pub fn tokens(&self) -> usize {
        self.tokens.len() / self.form.token_size
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let lists: [&[u8]; 4] = [
            bytemuck::cast_slice(&self.signatures),
            bytemuck::cast_slice(&self.heads),
            bytemuck::cast_slice(&self.sentence_lengths),
            &self.tokens,
        ];
        lists.concat()
    }

    /// Returns the bytes of the signatures and heads of `documents` documents.
    pub fn bytes_of_heads(form: TokenForm, documents: u32) -> usize {
        documents as usize * (8 * form.signature + size_of::<Head>())
    }

    /// Reads signatures and heads from the start of a block's bytes.
    pub fn parse_heads(form: TokenForm, documents: u32, bytes: &[u8]) -> (Vec<u64>, Vec<Head>) {
        let (signatures, rest) = bytes.split_at(8 * form.signature * documents as usize);
        let heads = &rest[..size_of::<Head>() * documents as usize];
        (bytemuck::pod_collect_to_vec(signatures), bytemuck::pod_collect_to_vec(heads))
    }

    /// Reads the output of [`TokenBlock::to_bytes`].
    pub fn parse(form: TokenForm, documents: u32, sentences: u32, bytes: &[u8]) -> Self {
        let (signatures, heads) = Self::parse_heads(form, documents, bytes);
        let (lengths, tokens) =
            bytes[Self::bytes_of_heads(form, documents)..].split_at(size_of::<u32>() * sentences as usize);
        let sentence_lengths = bytemuck::pod_collect_to_vec(lengths);
        TokenBlock { form, signatures, heads, sentence_lengths, tokens: tokens.to_vec() }
    }

    /// Calls `each` with the index of every document and the token ids of its sentences.
    pub fn for_each(&self, mut each: impl FnMut(usize, &[&[u32]])) {
        let ids: Vec<u32> = match self.form.token_size {
            2 => bytemuck::pod_collect_to_vec::<u8, u16>(&self.tokens).into_iter().map(u32::from).collect(),
            _ => bytemuck::pod_collect_to_vec(&self.tokens),
        };
        let mut rest = ids.as_slice();
        let mut lengths = self.sentence_lengths.as_slice();
        let mut sentences = Vec::new();
        for (index, &[count, ..]) in self.heads.iter().enumerate() {
            sentences.clear();
            let (own, others) = lengths.split_at(count as usize);
            for &length in own {
                let (sentence, after) = rest.split_at(length as usize);
                sentences.push(sentence);
                rest = after;
            }
            lengths = others;
            each(index, &sentences);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_blocks_round_trip() {
        for form in [TokenForm { signature: 0, token_size: 2 }, TokenForm { signature: 3, token_size: 4 }] {
            let mut block = TokenBlock::new(form);
            let signature = [u64::MAX, 1, 2];
            block.push(&[1, 2, 65_535], &[1, 2], 17, &signature[..form.signature]);
            block.push(&[9], &[1], 3, &signature[..form.signature]);
            let bytes = block.to_bytes();
            assert_eq!(TokenBlock::parse(form, 2, 3, &bytes), block);
            let heads = &bytes[..TokenBlock::bytes_of_heads(form, 2)];
            assert_eq!(TokenBlock::parse_heads(form, 2, heads).1, [[2, 3, 17], [1, 1, 3]]);
            let mut seen = Vec::new();
            block.for_each(|index, sentences| seen.push((index, sentences.concat())));
            assert_eq!(seen, [(0, vec![1, 2, 65_535]), (1, vec![9])]);
        }
    }
}
