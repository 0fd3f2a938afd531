//! [`Value`]: the result of a node, and the element moves that most operations are made of.

use crate::shape::{DType, HostTensor, Shape};

/// An array of evaluated elements: f64 for every float type, exact numbers for integers and truth values.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    shape: Shape,
    data: Data,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Data {
    Float(Vec<f64>),
    /// Values within the range of the shape's type.
    Integer(Vec<i128>),
}

impl Value {
    pub(super) fn new(shape: Shape, data: Data) -> Self {
        let len = match &data {
            Data::Float(elements) => elements.len(),
            Data::Integer(elements) => elements.len(),
        };
        assert_eq!(shape.elements(), len, "{shape} evaluated to {len} elements");
        assert_eq!(
            shape.dtype.is_float(),
            matches!(data, Data::Float(_)),
            "{shape} evaluated to elements of the wrong kind"
        );
        Value { shape, data }
    }

    /// Creates a value from row-major elements: unrounded for a float type, truncated and wrapped for an integer type.
    ///
    /// # Panics
    /// If the number of elements is not that of the shape.
    pub fn from_f64(shape: Shape, elements: Vec<f64>) -> Self {
        let data = match shape.dtype.is_float() {
            true => Data::Float(elements),
            false => Data::Integer(elements.into_iter().map(|x| wrap(shape.dtype, x as i128)).collect()),
        };
        Value::new(shape, data)
    }

    /// Returns the declared shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(super) fn data(&self) -> &Data {
        &self.data
    }

    /// Returns the elements in row-major order; integers are converted (exact below 2⁵³).
    pub fn to_f64(&self) -> Vec<f64> {
        match &self.data {
            Data::Float(elements) => elements.clone(),
            Data::Integer(elements) => elements.iter().map(|&x| x as f64).collect(),
        }
    }

    /// Returns the first element, which is the value of a scalar.
    ///
    /// # Panics
    /// If the array is empty.
    pub fn scalar(&self) -> f64 {
        match &self.data {
            Data::Float(elements) => elements[0],
            Data::Integer(elements) => elements[0] as f64,
        }
    }

    /// Rounds the value to its declared type.
    pub fn to_host(&self) -> HostTensor {
        match &self.data {
            Data::Float(elements) => HostTensor::from_f64(self.shape.clone(), elements),
            Data::Integer(elements) => {
                let size = self.shape.dtype.size();
                let bytes = elements.iter().flat_map(|x| x.to_le_bytes().into_iter().take(size)).collect();
                host(&self.shape, bytes)
            }
        }
    }

    /// Rounds to the declared type and reads the bits as `dtype`.
    pub(super) fn bitcast(&self, dtype: DType) -> Value {
        Value::from(&host(&self.shape.with_dtype(dtype), self.to_host().into_bytes()))
    }

    pub(super) fn integers(&self) -> &[i128] {
        match &self.data {
            Data::Integer(elements) => elements,
            Data::Float(_) => panic!("{} holds floating-point numbers, not integers", self.shape),
        }
    }

    /// Returns the first element of an integer array.
    pub(super) fn integer(&self) -> i128 {
        self.integers()[0]
    }

    /// Returns an array of zeros (false).
    pub(super) fn zeros(shape: Shape) -> Value {
        let n = shape.elements();
        let data = if shape.dtype.is_float() { Data::Float(vec![0.0; n]) } else { Data::Integer(vec![0; n]) };
        Value::new(shape, data)
    }

    /// Returns the same elements under other dimensions.
    pub(super) fn with_dims(&self, dims: &[usize]) -> Value {
        Value::new(Shape::new(self.shape.dtype, dims), self.data.clone())
    }

    /// Returns an array of dimensions `dims` whose elements, in order, are those at the positions `from`.
    pub(super) fn take(&self, dims: &[usize], from: impl Iterator<Item = usize>) -> Value {
        let data = match &self.data {
            Data::Float(elements) => Data::Float(from.map(|i| elements[i]).collect()),
            Data::Integer(elements) => Data::Integer(from.map(|i| elements[i]).collect()),
        };
        Value::new(Shape::new(self.shape.dtype, dims), data)
    }

    /// Writes the elements of `source`, in order, to the positions `to`.
    pub(super) fn put(&mut self, to: impl Iterator<Item = usize>, source: &Value) {
        match (&mut self.data, &source.data) {
            (Data::Float(target), Data::Float(source)) => to.zip(source).for_each(|(i, &x)| target[i] = x),
            (Data::Integer(target), Data::Integer(source)) => to.zip(source).for_each(|(i, &x)| target[i] = x),
            _ => panic!("{} and {} hold different kinds of number", self.shape, source.shape),
        }
    }

    /// Adds the elements of `source` at the positions `from` to those at the positions `to`.
    pub(super) fn add_at(
        &mut self,
        to: impl Iterator<Item = usize>,
        source: &Value,
        from: impl Iterator<Item = usize>,
    ) {
        let dtype = self.shape.dtype;
        match (&mut self.data, &source.data) {
            (Data::Float(target), Data::Float(source)) => to.zip(from).for_each(|(i, j)| target[i] += source[j]),
            (Data::Integer(target), Data::Integer(source)) => {
                to.zip(from).for_each(|(i, j)| target[i] = wrap(dtype, target[i] + source[j]));
            }
            _ => panic!("{} and {} hold different kinds of number", self.shape, source.shape),
        }
    }
}

impl From<&HostTensor> for Value {
    fn from(tensor: &HostTensor) -> Self {
        let shape = tensor.shape().clone();
        if shape.dtype.is_float() {
            return Value::new(shape, Data::Float(tensor.to_f64()));
        }
        let integer = |bytes: &[u8]| {
            let mut wide = [0; 16];
            wide[..bytes.len()].copy_from_slice(bytes);
            wrap(shape.dtype, i128::from_le_bytes(wide))
        };
        let data = Data::Integer(tensor.bytes().chunks_exact(shape.dtype.size()).map(integer).collect());
        Value::new(shape, data)
    }
}

/// Wraps `x` into the range of an integer type; for pred, keeps the lowest bit.
pub(super) fn wrap(dtype: DType, x: i128) -> i128 {
    match dtype {
        DType::Pred => x & 1,
        DType::U8 => x as u8 as i128,
        DType::U16 => x as u16 as i128,
        DType::S32 => x as i32 as i128,
        DType::U32 => x as u32 as i128,
        DType::U64 => x as u64 as i128,
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => panic!("{dtype} is not an integer type"),
    }
}

/// Returns the number of bits of an integer type; 1 for pred.
pub(super) fn width(dtype: DType) -> u32 {
    if dtype == DType::Pred { 1 } else { 8 * dtype.size() as u32 }
}

fn host(shape: &Shape, bytes: Vec<u8>) -> HostTensor {
    match HostTensor::from_bytes(shape.clone(), bytes) {
        Ok(tensor) => tensor,
        Err(e) => panic!("{e}"),
    }
}

/// Returns the positions `offset + Σ index[i] · strides[i]` for all indices within `dims`, last dimension fastest. The
/// strides determine whether this is a transposition, a broadcast (stride 0), a slice or a window.
pub(super) fn positions(dims: &[usize], strides: &[usize], offset: usize) -> impl Iterator<Item = usize> + use<> {
    let (dims, strides) = (dims.to_vec(), strides.to_vec());
    let mut index = vec![0; dims.len()];
    let mut next = offset;
    (0..dims.iter().product::<usize>()).map(move |_| {
        let position = next;
        for i in (0..dims.len()).rev() {
            index[i] += 1;
            next += strides[i];
            if index[i] < dims[i] {
                break;
            }
            next -= strides[i] * dims[i];
            index[i] = 0;
        }
        position
    })
}
