//! The parameters of a model: names, shapes and initial values.
//!
//! A tensor has two shapes. Its **published** shape is the one in files, Hugging Face's; its **device** shape may have its
//! first dimension padded with rows of zeros (a vocabulary that is padded for alignment). The name is the same from
//! initialisation to the exported file, and the order of a task's list is the order of tensors everywhere: inputs and
//! outputs of the step, gradients, optimizer state, trust ratios.

use rayon::prelude::*;

use super::Precision;
use crate::rng::Key;
use crate::shape::{DType, HostTensor, Shape};

/// The initialisation of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Normal with mean 0 and this standard deviation, redrawn while beyond two deviations, as `tf.truncated_normal_initializer`
    /// in google-research/bert `modeling.py`.
    TruncatedNormal {
        /// The standard deviation.
        std: f64,
    },
    /// All zeros.
    Zeros,
    /// All ones.
    Ones,
}

/// A learned tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// Hugging Face's name, such as `bert.encoder.layer.3.attention.self.query.weight`.
    pub name: String,
    /// The published shape. Weights of linear layers are `[out, in]`.
    pub published_dims: Vec<usize>,
    /// The device shape: the published one, possibly with rows of padding.
    pub dims: Vec<usize>,
    /// The initial values.
    pub init: Init,
    /// The model reads the tensor as an operand of matrix products only.
    pub matmul_only: bool,
}

impl ParamSpec {
    /// Returns the device shape.
    pub fn shape(&self, dtype: DType) -> Shape {
        Shape::new(dtype, self.dims.clone())
    }

    /// Returns the type that the model reads the tensor in: operands of matrix products are rounded, others are not.
    pub fn read_dtype(&self, precision: Precision) -> DType {
        if self.matmul_only { precision.compute() } else { precision.master() }
    }

    /// Returns the initial values, f32 in the device shape: a function of `seed` and the name, so that neither the order of
    /// tensors nor the vocabulary size changes the values of a row.
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

    /// Pads from the published shape to the device shape with rows of zeros.
    ///
    /// # Panics
    /// If `published` does not have the published dimensions; readers check shapes before.
    pub fn pad(&self, published: &HostTensor) -> HostTensor {
        assert_eq!(published.shape().dims, self.published_dims, "{}", self.name);
        let shape = Shape::new(published.shape().dtype, self.dims.clone());
        let mut bytes = published.bytes().to_vec();
        bytes.resize(shape.bytes(), 0);
        HostTensor::from_bytes(shape, bytes).expect("resized to the shape's bytes")
    }

    /// Removes the rows of padding: from the device shape to the published shape.
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

/// Fills `values` with normal draws of `key` by Box and Muller's method, of which those within two deviations are kept.
fn truncated_normal(key: Key, std: f64, values: &mut [f32]) {
    const UNIT: f64 = 1.0 / (1u64 << 32) as f64;
    let pairs = (0u64..).flat_map(|counter| {
        let bits = key.bits(counter);
        // The radius uses (0, 1], which excludes the pole of the logarithm.
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
