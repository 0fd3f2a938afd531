//! Element types, shapes, and tensors in host memory.
//!
//! A [`Shape`] is an element type and dimensions, and prints in XLA's notation, `f32[64,128,1024]`. A [`HostTensor`] is a
//! shape with its elements, row-major (last dimension fastest) and little-endian. A safetensors file, a PJRT host buffer
//! and an HLO literal hold the same bytes, so elements are copied between them but never converted.

use std::fmt;

use bytemuck::Pod;
use half::{bf16, f16};

/// An element type, with HLO's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// Truth value: one byte, 0 or 1.
    Pred,
    /// 8-bit unsigned integer.
    U8,
    /// 16-bit unsigned integer.
    U16,
    /// 32-bit signed integer.
    S32,
    /// 32-bit unsigned integer.
    U32,
    /// 64-bit unsigned integer.
    U64,
    /// IEEE 754 half precision.
    F16,
    /// bfloat16: 8 bits of exponent, 7 of mantissa.
    BF16,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 double precision.
    F64,
}

impl DType {
    /// Every element type, in declaration order.
    pub const ALL: [DType; 10] = [
        DType::Pred,
        DType::U8,
        DType::U16,
        DType::S32,
        DType::U32,
        DType::U64,
        DType::F16,
        DType::BF16,
        DType::F32,
        DType::F64,
    ];

    /// Returns the bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::Pred | DType::U8 => 1,
            DType::U16 | DType::F16 | DType::BF16 => 2,
            DType::S32 | DType::U32 | DType::F32 => 4,
            DType::U64 | DType::F64 => 8,
        }
    }

    /// Returns HLO's name, as in `bf16[8,128]`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::Pred => "pred",
            DType::U8 => "u8",
            DType::U16 => "u16",
            DType::S32 => "s32",
            DType::U32 => "u32",
            DType::U64 => "u64",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::F32 => "f32",
            DType::F64 => "f64",
        }
    }

    /// Returns true for the four floating-point types, which have gradients.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
    }

    /// Returns true for the integer types; [`DType::Pred`] is not one.
    pub const fn is_integer(self) -> bool {
        matches!(self, DType::U8 | DType::U16 | DType::S32 | DType::U32 | DType::U64)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Element type and dimensions of an array.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Element type.
    pub dtype: DType,
    /// Size of each dimension.
    pub dims: Vec<usize>,
}

impl Shape {
    /// Creates a shape.
    pub fn new(dtype: DType, dims: impl Into<Vec<usize>>) -> Self {
        Shape { dtype, dims: dims.into() }
    }

    /// Creates a shape without dimensions, which has one element.
    pub fn scalar(dtype: DType) -> Self {
        Shape { dtype, dims: Vec::new() }
    }

    /// Returns the number of dimensions.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// Returns the number of elements.
    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// Returns the bytes of the elements, without padding.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.size()
    }

    /// Returns the same dimensions with another element type.
    pub fn with_dtype(&self, dtype: DType) -> Self {
        Shape { dtype, dims: self.dims.clone() }
    }

    /// Returns the row-major strides in elements: `strides[i]` is the distance between neighbours along dimension `i`.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.rank()];
        for i in (1..self.rank()).rev() {
            strides[i - 1] = strides[i] * self.dims[i];
        }
        strides
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, d) in self.dims.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{d}")?;
        }
        f.write_str("]")
    }
}

/// A Rust type that can be the element of a [`HostTensor`].
pub trait Element: Pod {
    /// The element type.
    const DTYPE: DType;
}

macro_rules! element {
    ($($rust:ty => $dtype:ident),* $(,)?) => {
        $(impl Element for $rust { const DTYPE: DType = DType::$dtype; })*
    };
}
element!(u8 => U8, u16 => U16, i32 => S32, u32 => U32, u64 => U64, f16 => F16, bf16 => BF16, f32 => F32, f64 => F64);

/// A tensor in host memory: a shape and its elements, row-major and little-endian.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HostTensor {
    shape: Shape,
    bytes: Vec<u8>,
}

/// An error of creating or reading a [`HostTensor`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message explains the fields")]
pub enum HostTensorError {
    /// The number of bytes is not that of the shape.
    #[error("a tensor {shape} requires {} bytes, got {found}", shape.bytes())]
    Size { shape: Shape, found: usize },
    /// The elements were read as another type.
    #[error("a tensor {shape} cannot be read as {requested}")]
    Type { shape: Shape, requested: DType },
}

impl HostTensor {
    /// Creates a tensor from the bytes of its elements.
    ///
    /// # Errors
    /// If the number of bytes is not that of the shape.
    pub fn from_bytes(shape: Shape, bytes: Vec<u8>) -> Result<Self, HostTensorError> {
        if bytes.len() != shape.bytes() {
            return Err(HostTensorError::Size { shape, found: bytes.len() });
        }
        Ok(HostTensor { shape, bytes })
    }

    /// Copies `elements` (row-major) into a tensor of dimensions `dims`.
    ///
    /// # Panics
    /// If the number of elements is not the product of `dims`, which is a bug of the caller.
    #[track_caller]
    pub fn new<T: Element>(dims: impl Into<Vec<usize>>, elements: &[T]) -> Self {
        let shape = Shape::new(T::DTYPE, dims);
        assert_eq!(shape.elements(), elements.len(), "{shape} requires {} elements", shape.elements());
        HostTensor { shape, bytes: bytemuck::cast_slice(elements).to_vec() }
    }

    /// Creates a tensor of truth values.
    ///
    /// # Panics
    /// As [`HostTensor::new`].
    #[track_caller]
    pub fn from_bools(dims: impl Into<Vec<usize>>, elements: &[bool]) -> Self {
        let shape = Shape::new(DType::Pred, dims);
        assert_eq!(shape.elements(), elements.len(), "{shape} requires {} elements", shape.elements());
        HostTensor { shape, bytes: elements.iter().map(|&b| b as u8).collect() }
    }

    /// Creates a tensor without dimensions.
    pub fn scalar<T: Element>(value: T) -> Self {
        HostTensor::new(Vec::new(), &[value])
    }

    /// Creates a tensor of zeros (false).
    pub fn zeros(shape: Shape) -> Self {
        let bytes = vec![0; shape.bytes()];
        HostTensor { shape, bytes }
    }

    /// Returns the shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Copies `rows` rows (indices of the first dimension) from row `start` on. Rows behind the last are zeros.
    ///
    /// # Panics
    /// If the tensor is a scalar or has no rows.
    #[track_caller]
    pub fn rows(&self, start: usize, rows: usize) -> HostTensor {
        let mut shape = self.shape.clone();
        let row_bytes = self.bytes.len() / shape.dims[0];
        shape.dims[0] = rows;
        let end = self.bytes.len();
        let mut bytes = self.bytes[(start * row_bytes).min(end)..((start + rows) * row_bytes).min(end)].to_vec();
        bytes.resize(rows * row_bytes, 0);
        HostTensor { shape, bytes }
    }

    /// Puts tensors of the same type and the same other dimensions one after the other, along the first dimension.
    ///
    /// # Panics
    /// If there is none.
    pub fn concatenate(tensors: impl Iterator<Item = HostTensor>) -> HostTensor {
        let join = |mut all: HostTensor, next: HostTensor| {
            debug_assert_eq!(all.shape.dims[1..], next.shape.dims[1..]);
            all.shape.dims[0] += next.shape.dims[0];
            all.bytes.extend(next.bytes);
            all
        };
        tensors.reduce(join).expect("there is at least one tensor")
    }

    /// Returns the bytes of the elements, row-major and little-endian.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the bytes of the elements, without a copy.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Copies the elements as `T`, because the bytes may be unaligned.
    ///
    /// # Errors
    /// If the tensor's element type is not that of `T`. Read truth values with [`HostTensor::to_f64`].
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>, HostTensorError> {
        if T::DTYPE != self.shape.dtype {
            return Err(HostTensorError::Type { shape: self.shape.clone(), requested: T::DTYPE });
        }
        Ok(bytemuck::allocation::pod_collect_to_vec(&self.bytes))
    }

    /// Converts the elements of any type to f64. The conversion is exact except for large `u64`.
    pub fn to_f64(&self) -> Vec<f64> {
        fn widen<T: Element>(bytes: &[u8], f: impl Fn(T) -> f64) -> Vec<f64> {
            bytemuck::allocation::pod_collect_to_vec::<u8, T>(bytes).into_iter().map(f).collect()
        }
        match self.shape.dtype {
            DType::Pred | DType::U8 => self.bytes.iter().map(|&b| b as f64).collect(),
            DType::U16 => widen(&self.bytes, |x: u16| x as f64),
            DType::S32 => widen(&self.bytes, |x: i32| x as f64),
            DType::U32 => widen(&self.bytes, |x: u32| x as f64),
            DType::U64 => widen(&self.bytes, |x: u64| x as f64),
            DType::F16 => widen(&self.bytes, |x: f16| x.to_f64()),
            DType::BF16 => widen(&self.bytes, |x: bf16| x.to_f64()),
            DType::F32 => widen(&self.bytes, |x: f32| x as f64),
            DType::F64 => widen(&self.bytes, |x: f64| x),
        }
    }

    /// Creates a tensor by rounding `values` to the element type; integers truncate and saturate as Rust's `as` does.
    ///
    /// # Panics
    /// As [`HostTensor::new`].
    #[track_caller]
    pub fn from_f64(shape: Shape, values: &[f64]) -> Self {
        assert_eq!(shape.elements(), values.len(), "{shape} requires {} elements", shape.elements());
        fn narrow<T: Element>(values: &[f64], f: impl Fn(f64) -> T) -> Vec<u8> {
            let narrowed: Vec<T> = values.iter().map(|&x| f(x)).collect();
            bytemuck::cast_slice(&narrowed).to_vec()
        }
        let bytes = match shape.dtype {
            DType::Pred => narrow(values, |x| (x != 0.0) as u8),
            DType::U8 => narrow(values, |x| x as u8),
            DType::U16 => narrow(values, |x| x as u16),
            DType::S32 => narrow(values, |x| x as i32),
            DType::U32 => narrow(values, |x| x as u32),
            DType::U64 => narrow(values, |x| x as u64),
            DType::F16 => narrow(values, f16::from_f64),
            DType::BF16 => narrow(values, bf16::from_f64),
            DType::F32 => narrow(values, |x| x as f32),
            DType::F64 => narrow(values, |x| x),
        };
        HostTensor { shape, bytes }
    }
}

impl fmt::Debug for HostTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.to_f64();
        let shown = &values[..values.len().min(8)];
        write!(f, "{} {shown:?}{}", self.shape, if values.len() > 8 { " …" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_prints_in_xla_notation() {
        assert_eq!(Shape::new(DType::F32, [64, 128, 1024]).to_string(), "f32[64,128,1024]");
        assert_eq!(Shape::scalar(DType::Pred).to_string(), "pred[]");
    }

    #[test]
    fn strides_are_row_major() {
        assert_eq!(Shape::new(DType::U8, [2, 3, 4]).strides(), [12, 4, 1]);
    }

    #[test]
    fn every_type_round_trips_through_f64() {
        for dtype in DType::ALL {
            let shape = Shape::new(dtype, [2]);
            let tensor = HostTensor::from_f64(shape, &[0.0, 1.0]);
            assert_eq!(tensor.to_f64(), [0.0, 1.0], "{dtype}");
        }
    }

    #[test]
    fn rows_behind_the_last_are_zeros() {
        let tensor = HostTensor::new([3, 2], &[1i32, 2, 3, 4, 5, 6]);
        assert_eq!(tensor.rows(1, 1), HostTensor::new([1, 2], &[3i32, 4]));
        assert_eq!(tensor.rows(2, 2), HostTensor::new([2, 2], &[5i32, 6, 0, 0]));
        assert_eq!(tensor.rows(7, 1), HostTensor::new([1, 2], &[0i32, 0]));
    }

    #[test]
    fn size_and_type_errors_name_both_sides() {
        let e = HostTensor::from_bytes(Shape::new(DType::F32, [2]), vec![0; 7]).unwrap_err();
        assert_eq!(e.to_string(), "a tensor f32[2] requires 8 bytes, got 7");
        let e = HostTensor::scalar(1.0f32).to_vec::<i32>().unwrap_err();
        assert_eq!(e.to_string(), "a tensor f32[] cannot be read as s32");
    }
}
