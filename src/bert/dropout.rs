//! Counter-based dropout: whether an element is kept is a pure function of (seed, step, example, site, element).
//!
//! The *example* is the number of a row in the global batch and the *site* a place in the model, so that the mask depends
//! neither on how the batch is split into micro-batches, replicas and hosts, nor on the device, nor on a restart. It consists
//! of integer operations, which every backend computes alike.
//!
//! There are two generators. Threefry-2x32-20 turns (seed, step) and then (site, example) into a pair of words
//! (k₀, k₁): 64 well-mixed bits for each site and example, a table of sites × rows words made once a micro-batch. Then each
//! element is eight integer operations, the 32-bit finaliser of "lowbias32" (Wellons, "Prospecting for Hash Functions",
//! 2018) with k₁ put between its rounds, so that two keys never give shifted or permuted copies of one stream:
//!
//! ```text
//! h = element + k₀;  h ^= h >> 16;  h *= 0x7feb352d;  h ^= (h >> 15) ^ k₁;  h *= 0x846ca68b;  keep if h ≥ p·2³²
//! ```
//! The finaliser's last xor-shift is left out: it changes low bits only, and the comparison is decided by high ones.
//!
//! In packed rows every position has the words of its example and counts elements from the first position of that example,
//! so that the mask of an example does not depend on its place in the row.

use super::positions::in_flat_rows;
use crate::batch::pretraining::PackedTensors;
use crate::graph::{GatherDimensions, Graph, Tensor};
use crate::shape::{DType, HostTensor, Shape};
use crate::task::DropoutKey;

/// A place in the model where dropout is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// The output of the embeddings.
    Embeddings,
    /// The attention probabilities of a layer.
    AttentionProbs(usize),
    /// The output of attention, before it is added to the residual.
    AttentionOutput(usize),
    /// The output of the feed-forward layer, before it is added to the residual.
    Output(usize),
    /// The input of a classifier behind so many layers: the site after those of the layers.
    Classifier(usize),
}

/// The number of sites of a layer.
const SITES_OF_LAYER: usize = 3;

impl Site {
    /// Returns the number of sites of an encoder of `layers` layers.
    pub const fn count(layers: usize) -> usize {
        1 + SITES_OF_LAYER * layers
    }

    /// Returns the number of sites of an encoder of `layers` layers and a classifier.
    pub const fn count_with_classifier(layers: usize) -> usize {
        Site::count(layers) + 1
    }

    /// Returns the number of elements between two positions at site `index`.
    const fn stride(index: usize, sequence_length: usize, hidden_size: usize) -> usize {
        if index % 3 == 1 { sequence_length } else { hidden_size }
    }

    const fn index(self) -> usize {
        match self {
            Site::Embeddings => 0,
            Site::AttentionProbs(layer) => 1 + 3 * layer,
            Site::AttentionOutput(layer) => 2 + 3 * layer,
            Site::Output(layer) => 3 + 3 * layer,
            Site::Classifier(layers) => Site::count(layers),
        }
    }
}

/// The random words of one micro-batch.
#[derive(Clone, Copy)]
pub struct Dropout<'g> {
    /// u32`[sites, B]`, to which the number of an element in its row is added; by position u32`[sites, B, S]`, with the
    /// number of the first element of each position added.
    k0: Tensor<'g>,
    /// u32`[sites, B]`; by position u32`[sites, B, S]`.
    k1: Tensor<'g>,
    /// s32`[B, S]`: if words are by position, the place of each key in its example.
    keys: Option<Tensor<'g>>,
    /// The index of the first site that there are words of.
    first_site: usize,
}

/// The random words of the attention probabilities of one layer, by position.
#[derive(Clone, Copy)]
pub struct AttentionWords<'g> {
    /// u32`[B, S]`, by query: the first word, with the number of the query's first element added.
    pub first: Tensor<'g>,
    /// u32`[B, S]`, by query: the second word.
    pub second: Tensor<'g>,
    /// s32`[B, S]`: the place of each key in its example.
    pub keys: Tensor<'g>,
}

/// The random words of the hidden states at one site, by position.
#[derive(Clone, Copy)]
pub struct HiddenWords<'g> {
    /// u32`[B, S]`: the first word, with the number of the position's first element added.
    pub first: Tensor<'g>,
    /// u32`[B, S]`: the second word.
    pub second: Tensor<'g>,
}

impl<'g> HiddenWords<'g> {
    /// Appends dropout of `x` `[B, S, H]`, as [`Dropout::apply`].
    pub(super) fn apply(&self, x: Tensor<'g>, probability: f64) -> Tensor<'g> {
        let element = x.graph().iota(x.shape().with_dtype(DType::U32), 2);
        let of_position = |word: Tensor<'g>| word.broadcast_like(element, &[0, 1]);
        let kept = is_kept(element + of_position(self.first), || of_position(self.second), probability);
        kept.select(x * (1.0 / (1.0 - probability)), x.filled(0.0))
    }
}

/// The factor of the first round of the finaliser.
pub(super) const FIRST_FACTOR: u32 = 0x7feb_352d;
/// The factor of the second round.
pub(super) const SECOND_FACTOR: u32 = 0x846c_a68b;

/// Returns the least word of the elements that are kept. A word is below it with `probability`, up to 2⁻³².
pub(super) fn threshold(probability: f64) -> u32 {
    (probability * 2f64.powi(32)).round().min(f64::from(u32::MAX)) as u32
}

impl<'g> Dropout<'g> {
    /// Appends the words of `rows` consecutive examples from [`DropoutKey::first_row`] on, at the first `sites` sites.
    pub fn new(key: DropoutKey<'g>, rows: usize, sites: usize) -> Self {
        let graph = key.seed.graph();
        let first_example = key.first_row;
        let key = step_key(key.seed, key.step);
        let shape = Shape::new(DType::U32, [sites, rows]);
        let site = graph.iota(shape.clone(), 0);
        let example = graph.iota(shape, 1) + first_example.broadcast_like(site, &[]);
        let (k0, k1) = words_of(key, site, example);
        // The words are cheap, so that XLA would recompute them for each element of each mask.
        Dropout { k0: k0.optimization_barrier(), k1: k1.optimization_barrier(), keys: None, first_site: 0 }
    }

    /// Appends the words of packed rows with activations of `hidden_size`: `sequence_numbers` s32`[B, S]` is the number of the
    /// sequence in its row that a position belongs to, from 1, and 0 for padding.
    pub fn packed(
        key: DropoutKey<'g>,
        sequence_numbers: Tensor<'g>,
        packed: PackedTensors<Tensor<'g>>,
        sites: usize,
        hidden_size: usize,
    ) -> Self {
        let graph = key.seed.graph();
        let key = step_key(key.seed, key.step);
        let [rows, length] = <[usize; 2]>::try_from(sequence_numbers.dims()).expect("sequence numbers are [B, S]");
        let per_row = packed.example_ids.dims()[1];
        let shape = Shape::new(DType::U32, [sites, rows, per_row]);
        let site = graph.iota(shape, 0);
        let example = packed.example_ids.convert(DType::U32).broadcast_like(site, &[1, 2]);
        let (k0, k1) = words_of(key, site, example);

        // Select the words of each position from those of the sequences: all but one addend are zero.
        let place = graph.iota(Shape::new(DType::S32, [sites, rows, length, per_row]), 3) + 1.0;
        let owns = place.eq(sequence_numbers.broadcast_like(place, &[1, 2]));
        let of_position = |word: Tensor<'g>| {
            let word = word.broadcast_like(place, &[0, 1, 3]);
            owns.select(word, word.filled(0.0)).reduce_sum(&[3])
        };
        let k0 = of_position(k0);
        let first = first_elements(packed.position_ids, k0, length, hidden_size);
        Dropout {
            k0: (first + k0).optimization_barrier(),
            k1: of_position(k1).optimization_barrier(),
            keys: Some(packed.position_ids),
            first_site: 0,
        }
    }

    /// Appends the words of `positions` s32`[B, N]` in rows of `length`, with activations of `hidden_size`. Activations of
    /// these positions are `[B, A, N, S]` at [`Site::AttentionProbs`] and `[B, N, …]` elsewhere; their masks are those that
    /// they have among the activations of all positions.
    pub fn at(&self, positions: Tensor<'g>, length: usize, hidden_size: usize) -> Self {
        let graph = positions.graph();
        let (sites, rows, count) = (self.k0.dims()[0], positions.dims()[0], positions.dims()[1]);
        let dims = [sites, rows, count];
        let (k0, k1, keys) = match self.keys {
            None => {
                let [k0, k1] = [self.k0, self.k1].map(|word| word.broadcast(&dims, &[0, 1]));
                let keys = graph.iota(Shape::new(DType::S32, [rows, length]), 1);
                (first_elements(positions, k0, length, hidden_size) + k0, k1, keys)
            }
            Some(keys) => {
                let columns = in_flat_rows(positions, length);
                let taken =
                    |words: Tensor<'g>| take_columns(words.reshape(&[sites, rows * length]), columns).reshape(&dims);
                (taken(self.k0), taken(self.k1), keys)
            }
        };
        Dropout { k0: k0.optimization_barrier(), k1: k1.optimization_barrier(), keys: Some(keys), ..*self }
    }

    /// Appends the words of the first `layers` layers, stacked: u32`[layers, 3, B]` or `[layers, 3, B, S]`.
    pub(super) fn of_layers(&self, layers: usize) -> [Tensor<'g>; 2] {
        let first = Site::AttentionProbs(0).index() - self.first_site;
        [self.k0, self.k1].map(|k| {
            let words = k.slice_in(0, first, first + SITES_OF_LAYER * layers);
            words.reshape(&[&[layers, SITES_OF_LAYER], &k.dims()[1..]].concat())
        })
    }

    /// Returns the words of a layer, as [`Dropout::of_layers`] stacks them, for a layer that is built as layer 0.
    pub(super) fn of_layer(words: [Tensor<'g>; 2], keys: Option<Tensor<'g>>) -> Self {
        let [k0, k1] = words;
        Dropout { k0, k1, keys, first_site: Site::AttentionProbs(0).index() }
    }

    /// Appends the words of the attention probabilities of `layer`, in rows of `length`.
    pub(super) fn attention_words(&self, layer: usize, length: usize) -> AttentionWords<'g> {
        let place = Site::AttentionProbs(layer).index() - self.first_site;
        let [first, second] = [self.k0, self.k1].map(|k| k.slice_in(0, place, place + 1).reshape(&k.dims()[1..]));
        match self.keys {
            Some(keys) => AttentionWords { first, second, keys },
            None => {
                let dims = [first.dims()[0], length];
                let position = |dtype| first.graph().iota(Shape::new(dtype, dims), 1);
                let first = first.broadcast(&dims, &[0]) + position(DType::U32) * length as f64;
                AttentionWords { first, second: second.broadcast(&dims, &[0]), keys: position(DType::S32) }
            }
        }
    }

    /// Returns the words of attention probabilities as those of layer 0.
    pub(super) fn of_attention(AttentionWords { first, second, keys }: AttentionWords<'g>) -> Self {
        let [k0, k1] = [first, second].map(|words| words.reshape(&[&[1], &words.dims()[..]].concat()));
        Dropout { k0, k1, keys: Some(keys), first_site: Site::AttentionProbs(0).index() }
    }

    /// Appends the words of hidden states `[B, S, H]`, of dimensions `dims`, at `site`.
    pub(super) fn hidden_words(&self, site: Site, dims: &[usize]) -> HiddenWords<'g> {
        let place = site.index() - self.first_site;
        let [first, second] = [self.k0, self.k1].map(|k| k.slice_in(0, place, place + 1).reshape(&k.dims()[1..]));
        if self.keys.is_some() {
            return HiddenWords { first, second };
        }
        let [first, second] = [first, second].map(|words| words.broadcast(&dims[..2], &[0]));
        let position = first.graph().iota(first.shape(), 1);
        HiddenWords { first: first + position * dims[2] as f64, second }
    }

    /// Returns the place of each key in its example, if words are by position.
    pub(super) fn keys(&self) -> Option<Tensor<'g>> {
        self.keys
    }

    /// Appends dropout of `x` with `probability`; kept elements are scaled by 1 / (1 − probability). The first dimension of
    /// `x` counts the rows; with words by position, `x` is `[B, A, S, S]` at [`Site::AttentionProbs`] and `[B, S, …]` elsewhere.
    pub fn apply(&self, x: Tensor<'g>, site: Site, probability: f64) -> Tensor<'g> {
        if probability == 0.0 {
            return x;
        }
        let kept = x.graph().recomputed(|| self.kept(&x.dims(), site, probability));
        kept.select(x * (1.0 / (1.0 - probability)), x.filled(0.0))
    }

    /// Appends the mask of kept elements: pred of dimensions `dims`.
    pub fn kept(&self, dims: &[usize], site: Site, probability: f64) -> Tensor<'g> {
        let graph = self.k0.graph();
        let rows = self.k0.dims()[1];
        // Plain rows number all of their elements; words by position keep the dimensions, to find the position of each element.
        let counted = match self.keys {
            None => vec![rows, dims.iter().product::<usize>() / rows],
            Some(_) => dims.to_vec(),
        };
        let attention = matches!(site, Site::AttentionProbs(_));
        let words = |k: Tensor<'g>| {
            let place = site.index() - self.first_site;
            let word = k.slice_in(0, place, place + 1).reshape(&k.dims()[1..]);
            match self.keys {
                None => word.broadcast(&counted, &[0]),
                // An attention probability belongs to the position of the query.
                Some(_) if attention => word.broadcast(&counted, &[0, 2]),
                Some(_) => word.broadcast(&counted, &[0, 1]),
            }
        };
        let element = |dimension: usize| graph.iota(Shape::new(DType::U32, counted.clone()), dimension);
        let element = match self.keys {
            None => element(1),
            Some(keys) if attention => {
                // Each site has its own barrier: without it, the graph would share these numbers between all layers and keep
                // u32[B, A, S, S] for the backward pass.
                let length = counted[3];
                let keys = keys.optimization_barrier().convert(DType::U32).broadcast(&counted, &[0, 3]);
                element(1) * (length * length) as f64 + keys
            }
            Some(_) => element(2),
        };
        is_kept(element + words(self.k0), || words(self.k1), probability).reshape(dims)
    }
}

/// Appends the mask of kept elements. `first` is the first word of each element with its number added, `second` its second word.
fn is_kept<'g>(first: Tensor<'g>, second: impl FnOnce() -> Tensor<'g>, probability: f64) -> Tensor<'g> {
    let shifted = |h: Tensor<'g>, by: f64| h.shift_right_logical(h.filled(by));
    let mut h = first.xor(shifted(first, 16.0)) * f64::from(FIRST_FACTOR);
    h = h.xor(shifted(h, 15.0).xor(second())) * f64::from(SECOND_FACTOR);
    h.ge(h.filled(f64::from(threshold(probability))))
}

/// Appends the numbers of the first elements of `positions` s32`[B, N]` of their examples at each site, of the shape of
/// `words` u32`[sites, B, N]`.
fn first_elements<'g>(positions: Tensor<'g>, words: Tensor<'g>, length: usize, hidden_size: usize) -> Tensor<'g> {
    let sites = words.dims()[0];
    let strides: Vec<u32> = (0..sites).map(|site| Site::stride(site, length, hidden_size) as u32).collect();
    let strides = words.graph().constant(HostTensor::new([sites], &strides));
    positions.convert(DType::U32).broadcast_like(words, &[1, 2]) * strides.broadcast_like(words, &[0])
}

/// Appends the columns of x `[M, N]` at `indices` s32`[K]`: `[M, K]`.
fn take_columns<'g>(x: Tensor<'g>, indices: Tensor<'g>) -> Tensor<'g> {
    let dimensions = GatherDimensions {
        offset_dims: vec![0],
        collapsed_slice_dims: vec![1],
        start_index_map: vec![1],
        index_vector_dim: 1,
        slice_sizes: vec![x.dims()[0], 1],
    };
    x.gather(indices, dimensions)
}

/// Appends the pair of words of (seed, step).
fn step_key<'g>(seed: Tensor<'g>, step: Tensor<'g>) -> (Tensor<'g>, Tensor<'g>) {
    let word = |i| seed.slice(&[i], &[i + 1], &[1]).reshape(&[]);
    // The constant separates this use of the seed from others: initialisation, data order.
    threefry2x32((word(0), word(1)), (step, step.filled(f64::from(0xd209_0117u32))))
}

/// Appends the pair of words of each (site, example).
fn words_of<'g>(key: (Tensor<'g>, Tensor<'g>), site: Tensor<'g>, example: Tensor<'g>) -> (Tensor<'g>, Tensor<'g>) {
    threefry2x32((key.0.broadcast_like(site, &[]), key.1.broadcast_like(site, &[])), (site, example))
}

/// Appends one Threefry-2x32-20 block for every element, as [`crate::rng::threefry2x32`] computes it on the host.
fn threefry2x32<'g>(key: (Tensor<'g>, Tensor<'g>), counter: (Tensor<'g>, Tensor<'g>)) -> (Tensor<'g>, Tensor<'g>) {
    const ROTATIONS: [[u32; 4]; 2] = [[13, 15, 26, 6], [17, 29, 16, 24]];
    const PARITY: u32 = 0x1bd1_1bda;
    let rotated = |y: Tensor<'g>, r: u32| {
        y.shift_left(y.filled(f64::from(r))).or(y.shift_right_logical(y.filled(f64::from(32 - r))))
    };
    let parity = key.0.xor(key.1);
    let schedule = [key.0, key.1, parity.xor(parity.filled(f64::from(PARITY)))];
    let (mut x, mut y) = (counter.0 + schedule[0], counter.1 + schedule[1]);
    for group in 0..5 {
        for rotation in ROTATIONS[group % 2] {
            x = x + y;
            y = rotated(y, rotation).xor(x);
        }
        x = x + schedule[(group + 1) % 3];
        y = y + schedule[(group + 2) % 3] + (group + 1) as f64;
    }
    (x, y)
}

/// Builds the graph of the mask `pred[rows, width]` of one site as a function of (seed, step, first example), for tests and
/// for comparing devices.
pub fn mask_graph(rows: usize, width: usize, layers: usize, site: Site, probability: f64) -> crate::graph::Computation {
    let graph = Graph::new("dropout_mask");
    let seed = graph.parameter("seed", Shape::new(DType::U32, [2]));
    let step = graph.parameter("step", Shape::scalar(DType::U32));
    let first_example = graph.parameter("first_example", Shape::scalar(DType::U32));
    let dropout = Dropout::new(DropoutKey { seed, step, first_row: first_example }, rows, Site::count(layers));
    graph.finish(&[dropout.kept(&[rows, width], site, probability)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::evaluate;
    use crate::rng;
    use crate::shape::HostTensor;

    fn mask(step: u32, first: u32, rows: usize, width: usize, site: Site) -> Vec<f64> {
        let arguments = [HostTensor::new([2], &[17u32, 4]), HostTensor::scalar(step), HostTensor::scalar(first)];
        evaluate(&mask_graph(rows, width, 3, site, 0.1), &arguments).unwrap()[0].to_f64()
    }

    #[test]
    fn words_equal_threefry_on_the_host() {
        let graph = Graph::new("words");
        let seed = graph.parameter("seed", Shape::new(DType::U32, [2]));
        let step = graph.parameter("step", Shape::scalar(DType::U32));
        let dropout = Dropout::new(DropoutKey { seed, step, first_row: step.filled(40.0) }, 3, Site::count(2));
        let computation = graph.finish(&[dropout.k0, dropout.k1]);
        let found = evaluate(&computation, &[HostTensor::new([2], &[17u32, !4]), HostTensor::scalar(9u32)]).unwrap();
        let key = rng::threefry2x32((17, !4), (9, 0xd209_0117));
        for (site, example) in [(0, 0), (3, 2), (6, 1)] {
            let (a, b) = rng::threefry2x32(key, (site, 40 + example));
            let at = (site * 3 + example) as usize;
            assert_eq!((found[0].to_f64()[at], found[1].to_f64()[at]), (a as f64, b as f64));
        }
    }

    #[test]
    fn mask_of_an_example_is_independent_of_other_rows() {
        let whole = mask(5, 0, 8, 96, Site::Output(1));
        let part = mask(5, 6, 2, 96, Site::Output(1));
        assert_eq!(whole[6 * 96..], part);
    }

    /// Counts of dropped elements, in one mask and in two at once, within five deviations of the binomial.
    #[test]
    fn masks_have_their_rate_and_are_uncorrelated() {
        let (rows, width, p) = (16, 8192, 0.1);
        let n = (rows * width) as f64;
        let agree = |a: &[f64], b: &[f64], what: &str| {
            let both = a.iter().zip(b).filter(|(x, y)| **x == 0.0 && **y == 0.0).count() as f64;
            let (expected, deviation) = (n * p * p, (n * p * p * (1.0 - p * p)).sqrt());
            assert!((both - expected).abs() < 5.0 * deviation, "{what}: {both} dropped together, expected {expected}");
        };
        let base = mask(100, 0, rows, width, Site::AttentionProbs(0));
        for (what, other) in [
            ("next step", mask(101, 0, rows, width, Site::AttentionProbs(0))),
            ("next site", mask(100, 0, rows, width, Site::AttentionOutput(0))),
            ("next layer", mask(100, 0, rows, width, Site::AttentionProbs(1))),
            ("next examples", mask(100, rows as u32, rows, width, Site::AttentionProbs(0))),
        ] {
            let dropped = other.iter().filter(|x| **x == 0.0).count() as f64;
            assert!((dropped - n * p).abs() < 5.0 * (n * p * (1.0 - p)).sqrt(), "{what}: {dropped} of {n} dropped");
            agree(&base, &other, what);
        }
        for shift in [1, 2, 16, 64, 128, 768, 4096] {
            let mut shifted = base.clone();
            shifted.rotate_left(shift);
            agree(&base, &shifted, &format!("element + {shift}"));
        }
        // Neighbouring examples at the same element.
        let mut next_row = base.clone();
        next_row.rotate_left(width);
        agree(&base, &next_row, "next example");
        // Runs of three.
        let runs = base.windows(3).filter(|w| w.iter().all(|x| *x == 0.0)).count() as f64;
        assert!((runs - n * 1e-3).abs() < 8.0 * (n * 1e-3).sqrt(), "{runs} runs of three, expected {}", n * 1e-3);
    }
}
