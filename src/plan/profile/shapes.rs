//! Sizes and texts of HLO shapes.

use crate::hlo::proto::{PrimitiveType, ShapeProto};

/// Returns the number of elements of an array.
pub fn elements(shape: &ShapeProto) -> f64 {
    shape.dimensions.iter().map(|&dimension| dimension as f64).product()
}

/// Returns the bytes of an element; 0 for tokens, and for types that a step does not use.
pub fn element_size(shape: &ShapeProto) -> f64 {
    use PrimitiveType::*;
    match shape.element_type() {
        Pred | S8 | U8 => 1.0,
        S16 | U16 | F16 | Bf16 => 2.0,
        S32 | U32 | F32 => 4.0,
        S64 | U64 | F64 => 8.0,
        Invalid | Tuple | Token => 0.0,
    }
}

/// Returns the bytes of all arrays of a shape.
pub fn bytes(shape: &ShapeProto) -> f64 {
    arrays(shape).into_iter().map(|array| elements(array) * element_size(array)).sum()
}

/// Returns the number of the memory space of an array; 0 is the device's memory.
pub fn memory_space(shape: &ShapeProto) -> i64 {
    shape.layout.as_ref().map_or(0, |layout| layout.memory_space)
}

/// Returns the arrays of a shape: itself, or the leaves of the tuple.
pub fn arrays(shape: &ShapeProto) -> Vec<&ShapeProto> {
    match shape.element_type() {
        PrimitiveType::Tuple => shape.tuple_shapes.iter().flat_map(arrays).collect(),
        _ => vec![shape],
    }
}

/// Formats a shape with its element type and dimensions: `bf16[256,128,1024]`; of a tuple, its largest array and the number of
/// the others: `f32[32768,1024] + 2`.
pub fn text(shape: &ShapeProto) -> String {
    let mut arrays = arrays(shape);
    arrays.sort_by(|a, b| bytes(b).total_cmp(&bytes(a)));
    let others = arrays.len().saturating_sub(1);
    let Some(largest) = arrays.first() else { return "()".to_owned() };
    let dimensions: Vec<String> = largest.dimensions.iter().map(i64::to_string).collect();
    let name = format!("{:?}", largest.element_type()).to_lowercase();
    let text = format!("{name}[{}]", dimensions.join(","));
    if others == 0 { text } else { format!("{text} + {others}") }
}

/// Returns whether an array grows with the square of `length`: of at least three dimensions, two are `length`, or one is its
/// square.
pub fn is_square_in(shape: &ShapeProto, length: usize) -> bool {
    let length = length as i64;
    let dimensions: Vec<i64> = shape.dimensions.iter().copied().filter(|&d| d > 1).collect();
    let sides = dimensions.iter().filter(|&&d| d == length).count();
    length > 1 && dimensions.len() > 2 && (sides >= 2 || dimensions.contains(&(length * length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(dimensions: &[i64]) -> ShapeProto {
        ShapeProto {
            element_type: PrimitiveType::Bf16.into(),
            dimensions: dimensions.to_vec(),
            ..ShapeProto::default()
        }
    }

    #[test]
    fn tuple_is_named_by_its_largest_array() {
        let tuple = ShapeProto {
            element_type: PrimitiveType::Tuple.into(),
            tuple_shapes: vec![array(&[3]), array(&[4, 5]), array(&[])],
            ..ShapeProto::default()
        };
        assert_eq!(text(&tuple), "bf16[4,5] + 2");
        assert_eq!(text(&array(&[])), "bf16[]");
        assert_eq!(bytes(&tuple), 48.0);
    }

    #[test]
    fn scores_are_square_in_the_length_and_activations_are_not() {
        for square in [&[8, 16, 64, 64][..], &[128, 64, 64], &[8, 16, 4096]] {
            assert!(is_square_in(&array(square), 64), "{square:?}");
        }
        for other in [&[8, 64, 1024][..], &[64, 64], &[8192, 4096], &[8, 64, 8192]] {
            assert!(!is_square_in(&array(other), 64), "{other:?}");
        }
    }
}
