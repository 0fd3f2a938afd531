//! The tensors that are learned: names, shapes and first values.
//!
//! A tensor has two shapes. Its **published** shape is Hugging Face's, the one files have; its **device** shape has the
//! vocabulary padded to [`BertConfig::padded_vocab_size`] rows, zero beyond the vocabulary. Everything else is one and the
//! same: the name is Hugging Face's from first value to exported file, and the order of [`param_specs`] is the order of
//! tensors everywhere (inputs and outputs of the step, gradients, optimizer slots, trust ratios).

use rayon::prelude::*;

use super::{BertConfig, Precision};
use crate::rng::Key;
use crate::shape::{DType, HostTensor, Shape};

/// What a tensor holds before the first step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Normal with mean 0 and this standard deviation, drawn again while beyond two of them: what
    /// `tf.truncated_normal_initializer` does in google-research/bert `modeling.py`.
    TruncatedNormal {
        std: f64,
    },
    Zeros,
    Ones,
}

/// One learned tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// Hugging Face's name, as `bert.encoder.layer.3.attention.self.query.weight`.
    pub name: String,
    /// The published shape. Weights of linear layers are `[out, in]`.
    pub published_dims: Vec<usize>,
    /// The device shape: the published one with the rows of vocabulary-sized tensors padded.
    pub dims: Vec<usize>,
    pub init: Init,
    /// The model reads it as an operand of matrix products and in no other way.
    pub only_multiplied: bool,
}

impl ParamSpec {
    /// The device shape.
    pub fn shape(&self, dtype: DType) -> Shape {
        Shape::new(dtype, self.dims.clone())
    }

    /// The type that the model reads it in: what is only multiplied is rounded first, everything else is not.
    pub fn read_dtype(&self, precision: Precision) -> DType {
        if self.only_multiplied { precision.compute() } else { precision.master() }
    }

    /// The first values, f32 in the device shape: a function of `seed` and the name, so that neither the order of tensors
    /// nor the size of the vocabulary changes the values of a row.
    pub fn initial(&self, seed: u64) -> HostTensor {
        let elements = self.published_dims.iter().product();
        let published = match self.init {
            Init::Zeros => vec![0.0f32; elements],
            Init::Ones => vec![1.0f32; elements],
            Init::TruncatedNormal { std } => {
                let key = Key::new(seed).fold_in(fnv1a(&self.name));
                let width: usize = self.published_dims[1..].iter().product();
                let mut values = vec![0.0f32; elements];
                let rows = values.par_chunks_mut(width.max(1)).enumerate();
                rows.for_each(|(row, values)| truncated_normal(key.fold_in(row as u64), std, values));
                values
            }
        };
        self.pad(&HostTensor::new(self.published_dims.clone(), &published))
    }

    /// From the published shape to the device shape: rows beyond the vocabulary are zero.
    ///
    /// # Panics
    /// If `published` does not have the published dimensions: readers check shapes before they come here.
    pub fn pad(&self, published: &HostTensor) -> HostTensor {
        assert_eq!(published.shape().dims, self.published_dims, "{}", self.name);
        let shape = Shape::new(published.shape().dtype, self.dims.clone());
        let mut bytes = published.bytes().to_vec();
        bytes.resize(shape.bytes(), 0);
        HostTensor::from_bytes(shape, bytes).expect("resized to the shape's bytes")
    }

    /// From the device shape to the published shape: rows beyond the vocabulary are dropped.
    ///
    /// # Panics
    /// If `padded` does not have the device dimensions.
    pub fn unpad(&self, padded: &HostTensor) -> HostTensor {
        assert_eq!(padded.shape().dims, self.dims, "{}", self.name);
        let shape = Shape::new(padded.shape().dtype, self.published_dims.clone());
        let bytes = padded.bytes()[..shape.bytes()].to_vec();
        HostTensor::from_bytes(shape, bytes).expect("cut to the shape's bytes")
    }
}

/// Every learned tensor of `BertForPreTraining`, in declaration order. The MLM decoder is the word embedding itself and
/// is not listed twice.
pub fn param_specs(config: &BertConfig) -> Vec<ParamSpec> {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let mut specs = Specs { config, list: Vec::new() };
    specs.table("bert.embeddings.word_embeddings.weight", &[config.vocab_size, hidden]);
    specs.table("bert.embeddings.position_embeddings.weight", &[config.max_position_embeddings, hidden]);
    specs.table("bert.embeddings.token_type_embeddings.weight", &[config.type_vocab_size, hidden]);
    specs.layer_norm("bert.embeddings.LayerNorm");
    for layer in 0..config.num_hidden_layers {
        let layer = format!("bert.encoder.layer.{layer}");
        for projection in ["query", "key", "value"] {
            specs.linear(&format!("{layer}.attention.self.{projection}"), hidden, hidden);
        }
        specs.linear(&format!("{layer}.attention.output.dense"), hidden, hidden);
        specs.layer_norm(&format!("{layer}.attention.output.LayerNorm"));
        specs.linear(&format!("{layer}.intermediate.dense"), inner, hidden);
        specs.linear(&format!("{layer}.output.dense"), hidden, inner);
        specs.layer_norm(&format!("{layer}.output.LayerNorm"));
    }
    specs.linear("bert.pooler.dense", hidden, hidden);
    specs.add("cls.predictions.bias", &[config.vocab_size], Init::Zeros);
    specs.linear("cls.predictions.transform.dense", hidden, hidden);
    specs.layer_norm("cls.predictions.transform.LayerNorm");
    specs.linear("cls.seq_relationship", 2, hidden);
    specs.list
}

struct Specs<'c> {
    config: &'c BertConfig,
    list: Vec<ParamSpec>,
}

impl Specs<'_> {
    fn add(&mut self, name: &str, published_dims: &[usize], init: Init) {
        let mut dims = published_dims.to_vec();
        if VOCABULARY_SIZED.contains(&name) {
            dims[0] = self.config.padded_vocab_size();
        }
        self.list.push(ParamSpec {
            name: name.to_string(),
            published_dims: published_dims.to_vec(),
            dims,
            init,
            only_multiplied: false,
        });
    }

    fn table(&mut self, name: &str, dims: &[usize]) {
        self.add(name, dims, Init::TruncatedNormal { std: self.config.initializer_range });
    }

    fn linear(&mut self, name: &str, out: usize, input: usize) {
        self.table(&format!("{name}.weight"), &[out, input]);
        self.list.last_mut().expect("added just before").only_multiplied = true;
        self.add(&format!("{name}.bias"), &[out], Init::Zeros);
    }

    fn layer_norm(&mut self, name: &str) {
        self.add(&format!("{name}.weight"), &[self.config.hidden_size], Init::Ones);
        self.add(&format!("{name}.bias"), &[self.config.hidden_size], Init::Zeros);
    }
}

/// The tensors with a row for each entry of the vocabulary.
const VOCABULARY_SIZED: [&str; 2] = ["bert.embeddings.word_embeddings.weight", "cls.predictions.bias"];

/// Fills `values` with draws of `key`: Box and Muller's pairs, each member kept if it lies within two deviations.
fn truncated_normal(key: Key, std: f64, values: &mut [f32]) {
    const UNIT: f64 = 1.0 / (1u64 << 32) as f64;
    let pairs = (0u64..).flat_map(|counter| {
        let bits = key.bits(counter);
        // The radius takes the half-open side that excludes zero, where the logarithm has none.
        let radius = (-2.0 * (((bits >> 32) + 1) as f64 * UNIT).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * (bits as u32 as f64 * UNIT)).sin_cos();
        [radius * cos, radius * sin]
    });
    let within = pairs.filter(|z| z.abs() <= 2.0);
    values.iter_mut().zip(within).for_each(|(value, z)| *value = (std * z) as f32);
}

/// FNV-1a, 64 bits: turns a name into the number of its random stream, the same in every version of every compiler.
fn fnv1a(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ byte as u64).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bert::Preset;

    #[test]
    fn bert_large_has_its_published_number_of_parameters() {
        let count = |preset: Preset| -> usize {
            param_specs(&preset.config(30522)).iter().map(|p| p.published_dims.iter().product::<usize>()).sum()
        };
        assert_eq!(count(Preset::Large), 336_226_108);
        assert_eq!(count(Preset::Base), 110_106_428);
    }

    #[test]
    fn one_layer_is_thirty_tensors_with_unique_names() {
        let mut config = Preset::Tiny.config(500);
        config.num_hidden_layers = 1;
        let mut names: Vec<String> = param_specs(&config).into_iter().map(|p| p.name).collect();
        assert_eq!(names.len(), 30);
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 30);
    }

    #[test]
    fn first_values_are_truncated_normal_and_depend_on_seed_and_name_only() {
        let specs = param_specs(&Preset::Tiny.config(1000));
        let word = &specs[0];
        let values = word.initial(3).to_vec::<f32>().unwrap();
        let real = &values[..1000 * 128];
        let std = (real.iter().map(|x| (x * x) as f64).sum::<f64>() / real.len() as f64).sqrt();
        let mean = real.iter().map(|x| *x as f64).sum::<f64>() / real.len() as f64;
        // A normal cut at two deviations has 0.8796 of its standard deviation.
        assert!((std / 0.02 - 0.8796).abs() < 0.01 && mean.abs() < 2e-4, "std {std}, mean {mean}");
        assert!(real.iter().all(|x| x.abs() <= 0.04));
        assert!(values[1000 * 128..].iter().all(|x| *x == 0.0), "padded rows are zero");

        let larger = param_specs(&Preset::Tiny.config(2000));
        assert_eq!(&larger[0].initial(3).to_vec::<f32>().unwrap()[..1000 * 128], real);
        assert_ne!(word.initial(4), word.initial(3));
        assert_ne!(specs[5].initial(3).bytes(), specs[7].initial(3).bytes(), "query and key differ");
    }

    #[test]
    fn padding_and_unpadding_are_inverse() {
        let specs = param_specs(&Preset::Tiny.config(500));
        for spec in specs.iter().filter(|s| s.dims != s.published_dims) {
            let published = spec.unpad(&spec.initial(1));
            assert_eq!(published.shape().dims, spec.published_dims);
            assert_eq!(spec.pad(&published), spec.initial(1));
        }
    }
}
