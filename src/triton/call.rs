//! The custom call that runs a program.

use super::Program;
use crate::graph::CustomCall;

/// The custom call of XLA's GPU compiler that compiles a Triton program with the rest of the step.
pub const TARGET: &str = "__gpu$xla.gpu.triton";
/// Warps of a program.
const WARPS: usize = 4;

/// Returns the call that runs `program` at every point of `grid`. Its loops load `stages` iterations ahead.
pub fn custom_call(program: &Program, grid: [usize; 3], stages: usize) -> CustomCall {
    let [x, y, z] = grid;
    let (name, ir) = (program.name(), escaped(&program.to_string()));
    let backend_config = format!(
        "{{debug = false, grid_x = {x} : i32, grid_y = {y} : i32, grid_z = {z} : i32, ir = \"{ir}\", name = \"{name}\", \
         num_stages = {stages} : i32, num_warps = {WARPS} : i32}}"
    );
    CustomCall { target: TARGET.to_owned(), backend_config }
}

/// Returns the text as the content of a string of MLIR.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\5C").replace('"', "\\22").replace('\n', "\\0A")
}

/// Counts the floating-point operations of the matrix products of a call, from the settings that [`custom_call`] wrote; none for
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
        } else if line.contains("= scf.for ") {
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
