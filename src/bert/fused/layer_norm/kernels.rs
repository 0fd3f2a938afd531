//! The kernels of fused LayerNorm. A program computes one block of [`BLOCK`] positions, a few of them at a time, whose hidden states
//! it holds in registers from the first to the last use.

use super::FusedLayerNorm;
use crate::bert::fused::dropout;
use crate::triton::{MemoryElement, Program, ProgramBuilder, Tile};

/// The positions of a block. Each block adds a row to the partial sums of the gradients of vectors, 12 bytes for each of the 640
/// bytes that the backward kernel moves otherwise.
pub(super) const BLOCK: usize = 64;
/// The elements of hidden states that a program holds at a time, if they are of several positions: eight for each of its threads, which
/// is a load of 16 bytes. With twice as many, the backward kernel needs 164 registers instead of 96 at a hidden size of 1024, and fewer
/// programs fit on a multiprocessor.
const ELEMENTS: usize = 1024;
/// The largest hidden size: a thread has twice as many elements of one position.
const MAX_WIDTH: usize = 2048;
/// Hidden sizes are multiples of this, so that a chunk of one position has an element for each thread.
const WIDTH_MULTIPLE: usize = 128;

/// Returns the requirement that the kernels have on a shape and that this one does not meet; none if they compute it.
pub(super) fn refusal(norm: &FusedLayerNorm) -> Option<String> {
    let FusedLayerNorm { rows, length, width, .. } = *norm;
    if !width.is_multiple_of(WIDTH_MULTIPLE) || width > MAX_WIDTH {
        return Some(format!(
            "a hidden_size that is a multiple of {WIDTH_MULTIPLE} and at most {MAX_WIDTH}, got {width}"
        ));
    }
    if !(rows * length).is_multiple_of(BLOCK) {
        return Some(format!("a sequence_length that is a multiple of {BLOCK}, got {length}"));
    }
    None
}

/// Builds the forward kernel. [`FusedLayerNorm::normed`] has the formulas.
pub(super) fn forward(norm: &FusedLayerNorm) -> Program {
    let builder = ProgramBuilder::new();
    let block = Block::new(&builder, norm);
    let [output, mean, scale] = [block.hidden_states(), block.by_position(), block.by_position()];
    let vectors = block.vectors();
    builder.repeat(block.iterations(), [], |iteration, []| {
        let positions = block.positions(iteration);
        let offsets = block.chunks(|chunk| block.offsets(positions, chunk));
        let sums = block.chunks(|chunk| block.sum(offsets[chunk], &vectors[chunk], block.kept(positions, chunk)));
        let means = block.mean(&sums);
        let centered: Vec<Tile> = sums.iter().map(|&sum| sum - block.over_width(means)).collect();
        let squares: Vec<Tile> = centered.iter().map(|&centered| centered * centered).collect();
        let scales = (block.mean(&squares) + norm.epsilon as f32).rsqrt();
        for (chunk, &centered) in centered.iter().enumerate() {
            let Vectors { gamma, beta, .. } = vectors[chunk];
            let normed = centered * block.over_width(scales);
            let result = normed * block.over_positions(gamma) + block.over_positions(beta);
            output.store(offsets[chunk], result.to_bf16());
        }
        mean.store(positions, means);
        scale.store(positions, scales);
        []
    });
    builder.finish("layer_norm")
}

/// Builds the backward kernel. [`FusedLayerNorm::partial_gradients`] has the formulas.
pub(super) fn backward(norm: &FusedLayerNorm) -> Program {
    let builder = ProgramBuilder::new();
    let block = Block::new(&builder, norm);
    let [mean, scale, cotangent] = [block.by_position(), block.by_position(), block.hidden_states()];
    let [of_x, of_residual] = [(); 2].map(|()| block.hidden_states());
    let of_vectors = block.array(MemoryElement::F32, VECTORS * norm.width);
    let vectors = block.vectors();
    let zeros = vec![builder.full(0.0, &block.dims()); VECTORS * block.chunk_count()];

    // The sums of bias, γ and β, each chunk by chunk, at every place in the tiles.
    let sums = builder.repeat_many(block.iterations(), &zeros, |iteration, sums| {
        let positions = block.positions(iteration);
        let [means, scales] = [mean, scale].map(|array| block.over_width(array.load(positions)));
        let offsets = block.chunks(|chunk| block.offsets(positions, chunk));
        let kept = block.chunks(|chunk| block.kept(positions, chunk));
        let normed = block.chunks(|chunk| (block.sum(offsets[chunk], &vectors[chunk], kept[chunk]) - means) * scales);
        let of_output = block.chunks(|chunk| cotangent.load(offsets[chunk]).to_f32());
        let of_normed = block.chunks(|chunk| of_output[chunk] * block.over_positions(vectors[chunk].gamma));
        let along = block.mean(&block.chunks(|chunk| of_normed[chunk] * normed[chunk]));
        let [along, mean] = [along, block.mean(&of_normed)].map(|means| block.over_width(means));
        let mut next = sums.to_vec();
        for chunk in 0..block.chunk_count() {
            let of_sum = (of_normed[chunk] - mean - normed[chunk] * along) * scales;
            let dropped = block.dropped(of_sum, kept[chunk]);
            of_residual.store(offsets[chunk], of_sum.to_bf16());
            of_x.store(offsets[chunk], dropped.to_bf16());
            let addends = [dropped, of_output[chunk] * normed[chunk], of_output[chunk]];
            for (vector, addend) in addends.into_iter().enumerate() {
                let sum = &mut next[vector * block.chunk_count() + chunk];
                *sum = *sum + addend;
            }
        }
        next
    });
    for (i, sum) in sums.into_iter().enumerate() {
        // The sums have the order of the chunks of an array [3, H].
        of_vectors.store(block.columns(i), sum.sum(0));
    }
    builder.finish("layer_norm_gradients")
}

/// The vectors that have gradients: bias, γ and β.
const VECTORS: usize = 3;

/// The arrays that both kernels read, at the positions of one block.
///
/// A tile has the elements of one chunk of the hidden states of a few positions. A chunk is the largest power of two that divides the
/// hidden size, because tiles have dimensions that are powers of two.
struct Block<'p> {
    builder: &'p ProgramBuilder,
    norm: FusedLayerNorm,
    x: Tile<'p>,
    residual: Tile<'p>,
    /// Bias, γ, β.
    vectors: [Tile<'p>; VECTORS],
    /// First and second words.
    words: Option<[Tile<'p>; 2]>,
}

/// One chunk of the vectors.
struct Vectors<'p> {
    bias: Tile<'p>,
    gamma: Tile<'p>,
    beta: Tile<'p>,
}

impl<'p> Block<'p> {
    /// Declares the operands of the forward pass.
    fn new(builder: &'p ProgramBuilder, norm: &FusedLayerNorm) -> Self {
        let empty = builder.integer(0);
        let mut block =
            Block { builder, norm: *norm, x: empty, residual: empty, vectors: [empty; VECTORS], words: None };
        (block.x, block.residual) = (block.hidden_states(), block.hidden_states());
        block.vectors = [(); VECTORS].map(|()| builder.argument(MemoryElement::F32));
        block.words = (norm.dropout > 0.0).then(|| [(); 2].map(|()| block.array(MemoryElement::I32, BLOCK)));
        block
    }

    /// Declares an array of `of_block` elements for each block, and returns the pointer to those of this block.
    fn array(&self, element: MemoryElement, of_block: usize) -> Tile<'p> {
        self.builder.argument(element).advance(self.builder.program_id(0), of_block)
    }

    /// Declares an array bf16`[B, S, H]`.
    fn hidden_states(&self) -> Tile<'p> {
        self.array(MemoryElement::BF16, BLOCK * self.norm.width)
    }

    /// Declares an array f32`[B, S]`.
    fn by_position(&self) -> Tile<'p> {
        self.array(MemoryElement::F32, BLOCK)
    }

    /// The elements of a position in one tile.
    fn chunk_width(&self) -> usize {
        1 << self.norm.width.trailing_zeros()
    }

    fn chunk_count(&self) -> usize {
        self.norm.width / self.chunk_width()
    }

    /// The positions of a tile.
    fn tile_positions(&self) -> usize {
        (ELEMENTS / self.norm.width.next_power_of_two()).max(1)
    }

    fn iterations(&self) -> usize {
        BLOCK / self.tile_positions()
    }

    /// The dimensions of a tile.
    fn dims(&self) -> [usize; 2] {
        [self.tile_positions(), self.chunk_width()]
    }

    fn chunks<T>(&self, of_chunk: impl FnMut(usize) -> T) -> Vec<T> {
        (0..self.chunk_count()).map(of_chunk).collect()
    }

    /// The positions of an iteration in their block.
    fn positions(&self, iteration: Tile<'p>) -> Tile<'p> {
        let count = self.tile_positions();
        (iteration * count as u32).spread(0, &[count]) + self.builder.range(count)
    }

    /// The places of the elements of a chunk in their position.
    fn columns(&self, chunk: usize) -> Tile<'p> {
        self.builder.range(self.chunk_width()) + (chunk * self.chunk_width()) as u32
    }

    /// The offsets of a tile in an array `[B, S, H]`.
    fn offsets(&self, positions: Tile<'p>, chunk: usize) -> Tile<'p> {
        self.over_width(positions * self.norm.width as u32) + self.over_positions(self.columns(chunk))
    }

    /// A number of each position, as a tile.
    fn over_width(&self, x: Tile<'p>) -> Tile<'p> {
        x.spread(0, &self.dims())
    }

    /// A chunk of a vector, as a tile.
    fn over_positions(&self, x: Tile<'p>) -> Tile<'p> {
        x.spread(1, &self.dims())
    }

    fn vectors(&self) -> Vec<Vectors<'p>> {
        self.chunks(|chunk| {
            let [bias, gamma, beta] = self.vectors.map(|vector| vector.load(self.columns(chunk)));
            Vectors { bias, gamma, beta }
        })
    }

    /// The means over the hidden states of each position, of which `chunks` are the tiles.
    fn mean(&self, chunks: &[Tile<'p>]) -> Tile<'p> {
        let sums = chunks.iter().map(|chunk| chunk.sum(1));
        let sum = sums.reduce(|sum, chunk| sum + chunk).expect("a position has a chunk");
        sum * (1.0 / self.norm.width as f32)
    }

    /// Residual + dropout(x + bias).
    fn sum(&self, offsets: Tile<'p>, vectors: &Vectors<'p>, kept: Option<Tile<'p>>) -> Tile<'p> {
        let x = self.x.load(offsets).to_f32() + self.over_positions(vectors.bias);
        self.residual.load(offsets).to_f32() + self.dropped(x, kept)
    }

    /// The elements that dropout keeps, if there is any.
    fn kept(&self, positions: Tile<'p>, chunk: usize) -> Option<Tile<'p>> {
        self.words.map(|words| {
            let [first, second] = words.map(|words| self.over_width(words.load(positions)));
            dropout::kept(first + self.over_positions(self.columns(chunk)), second, self.norm.dropout)
        })
    }

    fn dropped(&self, x: Tile<'p>, kept: Option<Tile<'p>>) -> Tile<'p> {
        let scaled =
            |kept: Tile<'p>| kept.select(x * dropout::scale(self.norm.dropout), self.builder.full(0.0, &self.dims()));
        kept.map_or(x, scaled)
    }
}
