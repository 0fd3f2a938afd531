//! The custom call that runs a program.

use super::{Program, interpret};
use crate::graph::CustomCall;
use crate::shape::{HostTensor, Shape};

/// The custom call of XLA's GPU compiler that compiles a Triton program with the rest of the step.
pub const TARGET: &str = "__gpu$xla.gpu.triton";
/// Warps of a program.
const WARPS: usize = 4;

/// A program and the points at which it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// The program. Its arguments are the operands of the call, then its results.
    pub program: Program,
    /// The grid.
    pub grid: [usize; 3],
    /// The number of iterations that a loop with products loads ahead.
    pub stages: usize,
}

impl Launch {
    /// Returns the call that runs the program at every point of the grid.
    pub fn custom_call(&self) -> CustomCall {
        let Launch { program, grid: [x, y, z], stages } = self;
        let (name, ir) = (program.name(), escaped(&program.to_string()));
        let backend_config = format!(
            "{{debug = false, grid_x = {x} : i32, grid_y = {y} : i32, grid_z = {z} : i32, ir = \"{ir}\", name = \"{name}\", \
             num_stages = {stages} : i32, num_warps = {WARPS} : i32}}"
        );
        CustomCall { target: TARGET.to_owned(), backend_config }
    }

    /// Interprets the call on `operands`, and returns the elements of its results, which have the shapes `results`. An element that
    /// no program writes is NaN.
    pub fn interpret(&self, operands: &[HostTensor], results: &[&Shape]) -> Vec<Vec<f64>> {
        let mut arrays: Vec<Vec<f64>> = operands.iter().map(HostTensor::to_f64).collect();
        arrays.extend(results.iter().map(|shape| vec![f64::NAN; shape.elements()]));
        interpret(&self.program, self.grid, &mut arrays);
        arrays.split_off(operands.len())
    }
}

/// Returns the text as the content of a string of MLIR.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\5C").replace('"', "\\22").replace('\n', "\\0A")
}

/// Counts the floating-point operations of the matrix products of a call, from the settings that [`Launch::custom_call`] wrote; none for
/// other settings.
pub fn product_flops(backend_config: &str) -> Option<f64> {
    let after = |text: &'_ str, key: &str| text.split_once(key).map(|(_, rest)| rest.to_owned());
    let number = |text: &str, key: &str| -> Option<f64> { after(text, key)?.split(' ').next()?.parse().ok() };
    let programs: f64 = ["grid_x = ", "grid_y = ", "grid_z = "]
        .map(|key| number(backend_config, key))
        .into_iter()
        .product::<Option<f64>>()?;
    let ir = after(backend_config, "ir = \"")?;
    let (mut flops, mut bound, mut open) = (0.0, 1.0, Vec::new());
    for line in ir.split("\\0A").map(str::trim) {
        if line.starts_with("%to") {
            bound = number(line, "arith.constant ")?;
        } else if line.contains("scf.for ") {
            open.push(bound);
        } else if line == "}" {
            open.pop();
        } else if line.contains("= tt.dot ") {
            let sizes: Vec<f64> = line
                .split("tensor<")
                .skip(1)
                .flat_map(|kind| kind.split('x').take(2))
                .map_while(|n| n.parse().ok())
                .collect();
            let &[m, k, _, n, ..] = sizes.as_slice() else { return None };
            flops += 2.0 * m * k * n * open.iter().product::<f64>();
        }
    }
    Some(programs * flops)
}
