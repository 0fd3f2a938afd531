//! The cost of one kernel: the bytes that it moves between the device's memory and its cores, and the operations inside.
//!
//! A fusion reads its operands and writes its results; what is computed between them stays in registers. Of an operand that
//! the kernel only slices, it reads the slices, and a result that is an operand with some elements replaced is updated in
//! place. Each array is counted once: caches and repeated reads of tiles are ignored, so the bytes are a lower bound.

use super::products::Product;
use super::program::{Program, is_fused};
use super::shapes::{arrays, element_size, elements, memory_space};
use crate::hlo::proto::{HloInstructionProto, ShapeProto};

/// The cost of one execution of a kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Bytes read from the device's memory.
    pub read: f64,
    /// Bytes written to it.
    pub written: f64,
    /// Floating-point operations of matrix products with operands narrower than f32.
    pub narrow_products: f64,
    /// Floating-point operations of matrix products with operands in f32 or wider.
    pub f32_products: f64,
    /// Arithmetic operations outside matrix products, one for each element.
    pub elementwise: f64,
}

impl Cost {
    /// Returns the bytes read and written.
    pub fn bytes(&self) -> f64 {
        self.read + self.written
    }

    /// Returns the operations of matrix products.
    pub fn products(&self) -> f64 {
        self.narrow_products + self.f32_products
    }
}

/// Counts costs of the kernels of a program.
pub struct Counter<'a> {
    /// The program.
    pub program: &'a Program,
    /// The number of the memory space that lies on the chip: its traffic is not counted.
    pub on_chip: Option<i64>,
}

impl Counter<'_> {
    /// Returns the cost of `kernel`, an instruction of a computation that is not fused.
    pub fn cost(&self, kernel: &HloInstructionProto) -> Cost {
        let mut cost = Cost { read: self.read(kernel), written: self.written(kernel), ..Cost::default() };
        for instruction in self.program.interior(kernel) {
            match Product::of(self.program, instruction) {
                Some(Product { flops, is_f32: true }) => cost.f32_products += flops,
                Some(Product { flops, is_f32: false }) => cost.narrow_products += flops,
                None => cost.elementwise += self.operations(instruction),
            }
        }
        cost
    }

    /// Returns the bytes of one array in the device's memory.
    fn stored(&self, array: &ShapeProto, elements: f64) -> f64 {
        if self.on_chip == Some(memory_space(array)) { 0.0 } else { elements * element_size(array) }
    }

    fn read(&self, kernel: &HloInstructionProto) -> f64 {
        let of_operand = |(position, operand): (usize, &HloInstructionProto)| -> f64 {
            let Some(shape) = &operand.shape else { return 0.0 };
            match arrays(shape).as_slice() {
                [array] => self.stored(array, self.elements_read(kernel, position, elements(array))),
                arrays => arrays.iter().map(|array| self.stored(array, elements(array))).sum(),
            }
        };
        self.program.operands(kernel).enumerate().map(of_operand).sum()
    }

    /// Returns the elements that `user` reads of its operand at `position`, which has `all` elements.
    fn elements_read(&self, user: &HloInstructionProto, position: usize, all: f64) -> f64 {
        match (&*user.opcode, position) {
            ("slice" | "dynamic-slice" | "gather", 0) => elements_of(user).min(all),
            ("dynamic-update-slice", 0) => 0.0,
            ("scatter", 0) => self.program.operand(user, 2).map_or(all, elements_of).min(all),
            (opcode, _) if is_fused(opcode) => {
                let called = self.program.called(user).next();
                let parameter = called.and_then(|called| self.program.parameter(called, position));
                parameter.map_or(all, |parameter| self.elements_read_inside(parameter, all))
            }
            _ => all,
        }
    }

    /// Returns the elements that the users of `value`, a parameter of a fusion or the same elements in another type, read of it.
    fn elements_read_inside(&self, value: &HloInstructionProto, all: f64) -> f64 {
        let by = |(user, position): (&HloInstructionProto, usize)| match &*user.opcode {
            "bitcast" | "reshape" | "convert" if self.program.users(user).next().is_some() => {
                self.elements_read_inside(user, all)
            }
            _ => self.elements_read(user, position, all),
        };
        self.program.users(value).map(by).sum::<f64>().min(all)
    }

    fn written(&self, kernel: &HloInstructionProto) -> f64 {
        let Some(shape) = &kernel.shape else { return 0.0 };
        let whole = |shape: &ShapeProto| arrays(shape).iter().map(|array| self.stored(array, elements(array))).sum();
        match &*kernel.opcode {
            // The results of these are tuples with the operand, for the instruction that waits.
            "copy-start" => shape.tuple_shapes.first().map_or(0.0, whole),
            "all-gather-start" | "collective-permute-start" => shape.tuple_shapes.get(1).map_or(0.0, whole),
            "fusion" => {
                let root = self.program.called(kernel).next().and_then(|called| self.program.root(called));
                let Some(root) = root else { return whole(shape) };
                let arrays = arrays(shape);
                let results: Vec<&HloInstructionProto> =
                    if root.opcode == "tuple" { self.program.operands(root).collect() } else { vec![root] };
                if arrays.len() != results.len() {
                    return whole(shape);
                }
                let pairs = arrays.iter().zip(results);
                pairs.map(|(array, result)| self.stored(array, self.elements_written(result))).sum()
            }
            "dynamic-update-slice" | "scatter" => match arrays(shape).as_slice() {
                [array] => self.stored(array, self.elements_written(kernel)),
                _ => whole(shape),
            },
            _ => whole(shape),
        }
    }

    /// Returns the elements that are written for `result`.
    fn elements_written(&self, result: &HloInstructionProto) -> f64 {
        let all = elements_of(result);
        let update = |position| self.program.operand(result, position).map_or(all, elements_of).min(all);
        match &*result.opcode {
            "dynamic-update-slice" => update(1),
            "scatter" => update(2),
            "bitcast" => self.program.operand(result, 0).map_or(all, |value| self.elements_written(value)),
            _ => all,
        }
    }

    /// Counts the arithmetic operations of an instruction that is not a matrix product.
    fn operations(&self, instruction: &HloInstructionProto) -> f64 {
        match &*instruction.opcode {
            "reduce" | "reduce-window" => self.program.operand(instruction, 0).map_or(0.0, elements_of),
            "scatter" => self.program.operand(instruction, 2).map_or(0.0, elements_of),
            opcode if is_arithmetic(opcode) => elements_of(instruction),
            _ => 0.0,
        }
    }
}

fn elements_of(instruction: &HloInstructionProto) -> f64 {
    instruction.shape.iter().flat_map(|shape| arrays(shape)).map(elements).sum()
}

/// Returns whether an opcode computes each element of its result from the elements of its operands at the same place.
fn is_arithmetic(opcode: &str) -> bool {
    matches!(
        opcode,
        "abs"
            | "add"
            | "and"
            | "atan2"
            | "cbrt"
            | "ceil"
            | "clamp"
            | "compare"
            | "cosine"
            | "count-leading-zeros"
            | "divide"
            | "erf"
            | "exponential"
            | "exponential-minus-one"
            | "floor"
            | "is-finite"
            | "log"
            | "log-plus-one"
            | "logistic"
            | "map"
            | "maximum"
            | "minimum"
            | "multiply"
            | "negate"
            | "not"
            | "or"
            | "popcnt"
            | "power"
            | "reduce-precision"
            | "remainder"
            | "round-nearest-afz"
            | "round-nearest-even"
            | "rsqrt"
            | "select"
            | "shift-left"
            | "shift-right-arithmetic"
            | "shift-right-logical"
            | "sign"
            | "sine"
            | "sqrt"
            | "subtract"
            | "tan"
            | "tanh"
            | "xor"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::profile::tests::{Builder, bf16, f32, in_space, tuple};

    fn cost(builder: Builder, id: i64) -> Cost {
        let program = builder.program();
        Counter { program: &program, on_chip: Some(1) }.cost(program.instruction(id).unwrap())
    }

    #[test]
    fn arithmetic_and_other_opcodes_are_told_apart() {
        assert!(["abs", "logistic", "tanh", "xor", "divide"].into_iter().all(is_arithmetic));
        assert!(!["transpose", "broadcast", "dot", "parameter"].into_iter().any(is_arithmetic));
    }

    #[test]
    fn fusion_costs_its_operands_its_results_and_its_interior() {
        let mut b = Builder::default();
        let fused = b.computation(|b| {
            let (x, y) = (b.parameter(bf16(&[8, 32])), b.parameter(f32(&[8, 32])));
            let wide = b.add("convert", f32(&[8, 32]), &[x], |_| {});
            let sum = b.add("add", f32(&[8, 32]), &[wide, y], |_| {});
            let e = b.add("exponential", f32(&[8, 32]), &[sum], |_| {});
            b.add("tuple", tuple(&[f32(&[8, 32]), f32(&[8, 32])]), &[sum, e], |_| {})
        });
        let (x, y) = (b.parameter(bf16(&[8, 32])), b.parameter(f32(&[8, 32])));
        let kernel = b.fusion(fused, tuple(&[f32(&[8, 32]), f32(&[8, 32])]), &[x, y]);
        let expected = Cost { read: 512.0 + 1024.0, written: 2048.0, elementwise: 512.0, ..Cost::default() };
        assert_eq!(cost(b, kernel), expected);
    }

    #[test]
    fn sliced_operand_costs_the_slice_and_update_in_place_the_update() {
        let mut b = Builder::default();
        let fused = b.computation(|b| {
            let (whole, into, at) = (b.parameter(f32(&[100, 8])), b.parameter(f32(&[100, 8])), b.parameter(f32(&[])));
            let narrow = b.add("convert", bf16(&[100, 8]), &[whole], |_| {});
            let slice = b.add("dynamic-slice", bf16(&[4, 8]), &[narrow, at, at], |_| {});
            let wide = b.add("convert", f32(&[4, 8]), &[slice], |_| {});
            b.add("dynamic-update-slice", f32(&[100, 8]), &[into, wide, at, at], |_| {})
        });
        let operands = [b.parameter(f32(&[100, 8])), b.parameter(f32(&[100, 8])), b.parameter(f32(&[]))];
        let kernel = b.fusion(fused, f32(&[100, 8]), &operands);
        // 32 elements are read and 32 written, in f32; the two reads of the index are of one number.
        assert_eq!(cost(b, kernel), Cost { read: 128.0 + 4.0, written: 128.0, ..Cost::default() });
    }

    #[test]
    fn operand_that_is_sliced_and_read_is_read_once() {
        let mut b = Builder::default();
        let fused = b.computation(|b| {
            let x = b.parameter(f32(&[10]));
            let slice = b.add("slice", f32(&[10]), &[x], |_| {});
            b.add("add", f32(&[10]), &[slice, x], |_| {})
        });
        let x = b.parameter(f32(&[10]));
        let kernel = b.fusion(fused, f32(&[10]), &[x]);
        assert_eq!(cost(b, kernel), Cost { read: 40.0, written: 40.0, elementwise: 10.0, ..Cost::default() });
    }

    #[test]
    fn memory_on_the_chip_has_no_traffic() {
        let mut b = Builder::default();
        let x = b.parameter(f32(&[10]));
        let near = in_space(f32(&[10]), 1);
        let results = tuple(&[near.clone(), f32(&[10]), f32(&[])]);
        let start = b.add("copy-start", results, &[x], |_| {});
        let done = b.add("copy-done", near, &[start], |_| {});
        let add = b.add("add", f32(&[10]), &[done, x], |_| {});
        let program = b.program();
        let cost = |id| Counter { program: &program, on_chip: Some(1) }.cost(program.instruction(id).unwrap());
        assert_eq!(cost(start), Cost { read: 40.0, ..Cost::default() });
        assert_eq!(cost(add), Cost { read: 40.0, written: 40.0, elementwise: 10.0, ..Cost::default() });
        let everywhere = Counter { program: &program, on_chip: None }.cost(program.instruction(add).unwrap());
        assert_eq!(everywhere.read, 80.0);
    }
}
