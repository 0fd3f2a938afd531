//! Writes matrices in NumPy's `.npy` format, version 1.0 (NumPy's reference, "A simple file format for NumPy arrays").

use std::io::{self, Write};

use crate::shape::{DType, HostTensor};

/// The header is padded so that the elements begin at a multiple of this many bytes.
const ALIGNMENT: usize = 64;

/// Writes a tensor of f32 to `out`.
pub(super) fn write_npy(out: &mut impl Write, tensor: &HostTensor) -> io::Result<()> {
    assert_eq!(tensor.shape().dtype, DType::F32, "the header says f32");
    let dims: Vec<String> = tensor.shape().dims.iter().map(|dim| format!("{dim}, ")).collect();
    let dims = dims.concat();
    // A tuple of one element ends in a comma, a longer one does not have to.
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", dims.trim_end());
    let prefix = b"\x93NUMPY\x01\x00";
    // Length of the header, and the line feed that ends it.
    let unpadded = prefix.len() + 2 + header.len() + 1;
    let padding = unpadded.next_multiple_of(ALIGNMENT) - unpadded;
    out.write_all(prefix)?;
    out.write_all(&((header.len() + padding + 1) as u16).to_le_bytes())?;
    writeln!(out, "{header}{:padding$}", "")?;
    out.write_all(tensor.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_states_type_and_shape_and_aligns_the_elements() {
        let mut file = Vec::new();
        write_npy(&mut file, &HostTensor::new([2, 3], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0])).unwrap();
        assert_eq!(&file[..8], b"\x93NUMPY\x01\x00");
        let length = u16::from_le_bytes([file[8], file[9]]) as usize;
        assert_eq!((10 + length) % ALIGNMENT, 0);
        let header = std::str::from_utf8(&file[10..10 + length]).unwrap();
        assert_eq!(header.trim_end(), "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3,), }");
        assert!(header.ends_with(" \n"));
        assert_eq!(file.len(), 10 + length + 24);
        assert_eq!(file[10 + length..][..4], 1f32.to_le_bytes());
    }
}
