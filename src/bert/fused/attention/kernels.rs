//! The kernels of fused self-attention. A program computes one block of [`BLOCK`] positions of one head of one row, and reads the
//! other blocks one after the other.

use super::{FusedAttention, MASKED};
use crate::bert::fused::dropout;
use crate::triton::{MemoryElement, Program, ProgramBuilder, Tile};

/// The positions of a block: tiles of 64 × 64 use the tensor cores of a warp group and fit into its registers.
const BLOCK: usize = 64;
/// The largest size of a head: a program holds whole heads of its block in registers.
const MAX_SIZE: usize = 128;

/// Returns the requirement that the kernels have on a shape and that this one does not meet; none if they compute it.
pub(super) fn refusal(attention: &FusedAttention) -> Option<String> {
    let FusedAttention { length, size, .. } = *attention;
    if !length.is_multiple_of(BLOCK) {
        return Some(format!("a sequence_length that is a multiple of {BLOCK}, got {length}"));
    }
    if !size.is_power_of_two() || !(16..=MAX_SIZE).contains(&size) {
        return Some(format!(
            "heads of 16, 32, 64 or {MAX_SIZE} elements (hidden_size / num_attention_heads), got {size}"
        ));
    }
    None
}

/// Returns the grid of programs: blocks of a row, heads, rows.
pub(super) fn grid(attention: &FusedAttention) -> [usize; 3] {
    [attention.length / BLOCK, attention.heads, attention.rows]
}

/// Builds the forward kernel.
///
/// ```text
/// m = −∞, l = 0, c = 0
/// for each block of keys:  s = q·kᵀ/√D + mask;  m′ = max(m, max s);  p = exp(s − m′)
///                          l = l·exp(m − m′) + Σ p;  c = c·exp(m − m′) + dropout(p)·v;  m = m′
/// context = c / l;  lse = m + log l
/// ```
pub(super) fn forward(attention: &FusedAttention) -> Program {
    let builder = ProgramBuilder::new();
    let head = Head::new(&builder, attention);
    let [context, lse] = [head.contexts(), head.sums()];
    let (square, wide) = ([BLOCK, BLOCK], [BLOCK, attention.size]);

    let positions = head.positions(builder.program_id(0));
    let queries = head.queries(positions);
    let initial = [builder.full(f32::MIN, &[BLOCK]), builder.full(0.0, &[BLOCK]), builder.full(0.0, &wide)];
    let [largest, sums, values] = builder.repeat(head.blocks(), initial, |block, [largest, sums, values]| {
        let keys = head.keys(head.positions(block));
        let scores = head.scores(queries, keys);
        let next = largest.maximum(scores.max(1));
        let (probs, factor) = ((scores - next.spread(0, &square)).exp(), (largest - next).exp());
        let dropped = head.dropped(probs, queries, keys).to_bf16();
        let values = dropped.dot(keys.v, values * factor.spread(0, &wide));
        [next, sums * factor + probs.sum(1), values]
    });
    let values = values / sums.spread(0, &wide);
    context.store(head.head_offsets(positions), values.to_bf16());
    lse.store(head.lse_offsets(positions), largest + sums.log());
    builder.finish("attention")
}

/// Builds the backward kernel: first the cotangents of the block's keys and values, over all queries, then those of its queries, over
/// all keys. [`FusedAttention::derivative`] has the formulas.
pub(super) fn backward(attention: &FusedAttention) -> Program {
    let builder = ProgramBuilder::new();
    let head = Head::new(&builder, attention);
    let [context, lse, cotangent, of_qkv] = [head.contexts(), head.sums(), head.contexts(), head.projections()];
    let zeros = builder.full(0.0, &[BLOCK, attention.size]);

    // do, lse and δ of a block of queries.
    let results = |positions| {
        let offsets = head.head_offsets(positions);
        let of_context = cotangent.load(offsets);
        let delta = (of_context.to_f32() * context.load(offsets).to_f32()).sum(1);
        [of_context, lse.load(head.lse_offsets(positions)), delta]
    };
    let positions = head.positions(builder.program_id(0));
    let (queries, keys) = (head.queries(positions), head.keys(positions));
    let [of_k, of_v] = builder.repeat(head.blocks(), [zeros, zeros], |block, [of_k, of_v]| {
        let positions = head.positions(block);
        let (queries, results) = (head.queries(positions), results(positions));
        let [dropped, of_scores] = head.block_gradients(queries, results, keys);
        [of_scores.transpose().dot(queries.q, of_k), dropped.transpose().dot(results[0], of_v)]
    });
    let results = results(positions);
    let [of_q] = builder.repeat(head.blocks(), [zeros], |block, [of_q]| {
        let keys = head.keys(head.positions(block));
        let [_, of_scores] = head.block_gradients(queries, results, keys);
        [of_scores.dot(keys.k, of_q)]
    });
    for (part, cotangent) in [of_q, of_k, of_v].into_iter().enumerate() {
        of_qkv.store(head.qkv_offsets(positions, part), cotangent.to_bf16());
    }
    builder.finish("attention_gradients")
}

/// One head of one row, and the arrays that both kernels read.
struct Head<'p> {
    builder: &'p ProgramBuilder,
    attention: FusedAttention,
    qkv: Tile<'p>,
    mask: Tile<'p>,
    /// First words, second words, keys.
    words: Option<[Tile<'p>; 3]>,
}

/// A block of queries.
#[derive(Clone, Copy)]
struct Queries<'p> {
    q: Tile<'p>,
    /// Sequence numbers, in packed rows.
    numbers: Option<Tile<'p>>,
    /// First and second random words, for dropout.
    words: Option<[Tile<'p>; 2]>,
}

/// A block of keys and values.
#[derive(Clone, Copy)]
struct Keys<'p> {
    k: Tile<'p>,
    v: Tile<'p>,
    /// Sequence numbers in packed rows, else what is added to the scores.
    mask: Tile<'p>,
    /// Places in their examples, for dropout.
    places: Option<Tile<'p>>,
}

impl<'p> Head<'p> {
    /// Declares the operands of the forward pass.
    fn new(builder: &'p ProgramBuilder, attention: &FusedAttention) -> Self {
        let empty = builder.integer(0);
        let mut head = Head { builder, attention: *attention, qkv: empty, mask: empty, words: None };
        head.qkv = head.projections();
        head.mask = head.by_position(if attention.packed { MemoryElement::I32 } else { MemoryElement::F32 });
        head.words = (attention.dropout > 0.0).then(|| [0; 3].map(|_| head.by_position(MemoryElement::I32)));
        head
    }

    /// Declares an array of `of_row` elements for each row, and returns the pointer to those of this row.
    fn array(&self, element: MemoryElement, of_row: usize) -> Tile<'p> {
        self.builder.argument(element).advance(self.builder.program_id(2), of_row)
    }

    /// Declares an array `[B, S]`.
    fn by_position(&self, element: MemoryElement) -> Tile<'p> {
        self.array(element, self.attention.length)
    }

    /// Declares an array bf16`[B, S, 3, A, D]`.
    fn projections(&self) -> Tile<'p> {
        let FusedAttention { length, heads, size, .. } = self.attention;
        self.array(MemoryElement::BF16, length * 3 * heads * size)
    }

    /// Declares an array bf16`[B, S, A, D]`.
    fn contexts(&self) -> Tile<'p> {
        let FusedAttention { length, heads, size, .. } = self.attention;
        self.array(MemoryElement::BF16, length * heads * size)
    }

    /// Declares an array f32`[B, A, S]`.
    fn sums(&self) -> Tile<'p> {
        self.array(MemoryElement::F32, self.attention.heads * self.attention.length)
    }

    fn blocks(&self) -> usize {
        self.attention.length / BLOCK
    }

    fn scale(&self) -> f32 {
        1.0 / (self.attention.size as f32).sqrt()
    }

    /// The number of the program's head.
    fn number(&self) -> Tile<'p> {
        self.builder.program_id(1)
    }

    /// The positions of a block in their row.
    fn positions(&self, block: Tile<'p>) -> Tile<'p> {
        (block * BLOCK as u32).spread(0, &[BLOCK]) + self.builder.range(BLOCK)
    }

    /// Offsets of the elements of this head in an array `[…, A, D]` of a row, of which `before` counts the dimensions before A:
    /// `[BLOCK, D]`.
    fn head_offsets(&self, before: Tile<'p>) -> Tile<'p> {
        let FusedAttention { heads, size, .. } = self.attention;
        let start = before * (heads * size) as u32 + (self.number() * size as u32).spread(0, &[BLOCK]);
        start.spread(0, &[BLOCK, size]) + self.builder.range(size).spread(1, &[BLOCK, size])
    }

    fn qkv_offsets(&self, positions: Tile<'p>, part: usize) -> Tile<'p> {
        self.head_offsets(positions * 3u32 + part as u32)
    }

    fn lse_offsets(&self, positions: Tile<'p>) -> Tile<'p> {
        (self.number() * self.attention.length as u32).spread(0, &[BLOCK]) + positions
    }

    fn queries(&self, positions: Tile<'p>) -> Queries<'p> {
        Queries {
            q: self.qkv.load(self.qkv_offsets(positions, 0)),
            numbers: self.attention.packed.then(|| self.mask.load(positions)),
            words: self.words.map(|[first, second, _]| [first.load(positions), second.load(positions)]),
        }
    }

    fn keys(&self, positions: Tile<'p>) -> Keys<'p> {
        Keys {
            k: self.qkv.load(self.qkv_offsets(positions, 1)),
            v: self.qkv.load(self.qkv_offsets(positions, 2)),
            mask: self.mask.load(positions),
            places: self.words.map(|[_, _, keys]| keys.load(positions)),
        }
    }

    /// The masked scores of a block of queries and one of keys: f32`[BLOCK, BLOCK]`.
    fn scores(&self, queries: Queries<'p>, keys: Keys<'p>) -> Tile<'p> {
        let square = [BLOCK, BLOCK];
        let zeros = self.builder.full(0.0, &square);
        let scores = queries.q.dot(keys.k.transpose(), zeros) * self.scale();
        let mask = keys.mask.spread(1, &square);
        let bias = match queries.numbers {
            None => mask,
            Some(numbers) => {
                numbers.spread(0, &square).equal(mask).select(zeros, self.builder.full(MASKED as f32, &square))
            }
        };
        scores + bias
    }

    /// p′ and ds of a block of queries, of which `results` are do, lse and δ, and one of keys: bf16`[BLOCK, BLOCK]`.
    fn block_gradients(&self, queries: Queries<'p>, results: [Tile<'p>; 3], keys: Keys<'p>) -> [Tile<'p>; 2] {
        let square = [BLOCK, BLOCK];
        let [of_context, lse, delta] = results;
        let probs = (self.scores(queries, keys) - lse.spread(0, &square)).exp();
        let of_probs = of_context.dot(keys.v.transpose(), self.builder.full(0.0, &square));
        let of_probs = self.dropped(of_probs, queries, keys);
        let of_scores = probs * (of_probs - delta.spread(0, &square)) * self.scale();
        [self.dropped(probs, queries, keys).to_bf16(), of_scores.to_bf16()]
    }

    /// Dropout of a block of probabilities, or of their cotangents.
    fn dropped(&self, x: Tile<'p>, queries: Queries<'p>, keys: Keys<'p>) -> Tile<'p> {
        let (Some([first, second]), Some(places)) = (queries.words, keys.places) else { return x };
        let square = [BLOCK, BLOCK];
        let FusedAttention { length, dropout: probability, .. } = self.attention;
        let in_head = (self.number() * (length * length) as u32).spread(0, &[BLOCK]);
        let first = (first + in_head).spread(0, &square) + places.spread(1, &square);
        let kept = dropout::kept(first, second.spread(0, &square), probability);
        kept.select(x * dropout::scale(probability), self.builder.full(0.0, &square))
    }
}
