//! The profile of a compiled step, without running it: each kernel of the optimized program with the bytes it moves, its
//! floating-point operations, and the time that the slower of the two takes at the published rates.
//!
//! The program comes from the compiler ([`OptimizedProgram`]), for absent devices too. [`program`] indexes it; [`executions`]
//! lists what a device executes, with trip counts; [`kernels`] describes it, [`costs`] and [`products`] count one kernel,
//! [`collectives`] its communication; [`kinds`] and [`scopes`] group kernels; [`rates`] turns counts into times.
//!
//! The time of a kernel is a lower bound: it reaches neither the published rates nor perfect reuse of caches, and elementwise
//! arithmetic and launches are not counted. Differences between two programs are more reliable than the times themselves.

pub mod collectives;
pub mod costs;
pub mod executions;
pub mod kernels;
pub mod kinds;
pub mod products;
pub mod program;
pub mod rates;
pub mod scopes;
pub mod shapes;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::AddAssign;

use self::costs::Counter;
use self::executions::{Loop, Schedule};
use self::kernels::{Kernel, Kernels};
use self::kinds::Kind;
use self::program::Program;
use self::rates::Rates;
use crate::hlo::proto::ShapeProto;
use crate::pjrt::{OptimizedProgram, Platform};

/// The number of kernels in [`Profile::costliest`].
const COSTLIEST: usize = 10;

/// Facts about a step that its program does not contain.
#[derive(Clone, Debug)]
pub struct Context {
    /// The platform that the step is compiled for.
    pub platform: Platform,
    /// The rates of a device, if they are published.
    pub rates: Option<Rates>,
    /// Tokens of a row.
    pub sequence_length: usize,
    /// Layers of the encoder.
    pub layers: usize,
    /// Micro-batches of a step on one device, for a loop whose number of iterations depends on the data.
    pub micro_batches: f64,
    /// Floating-point operations of the model in a step on one device, without recomputation
    /// ([`training_flops`](crate::bert::flops::training_flops)).
    pub model_flops: f64,
}

/// The profile of one step on one device.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The sum over all kernels.
    pub total: Sum,
    /// Kernels by kind, the costliest first.
    pub kinds: Vec<(Kind, Sum)>,
    /// Kernels by scope over all layers, the costliest first.
    pub scopes: Vec<(String, Sum)>,
    /// The costliest kernels. Kernels that differ only in their name and layer are one.
    pub costliest: Vec<Kernel>,
    /// Results in the device's memory that grow with the square of the sequence length, by scope and shape. Only their own bytes
    /// count as written.
    pub squares: Vec<(Place, Sum)>,
    /// Copies, transposes and type conversions, by scope and shape.
    pub copies: Vec<(Place, Sum)>,
    /// Matrix products with f32 operands, by scope and shape.
    pub f32_products: Vec<(Place, Sum)>,
    /// One layer of the encoder in one micro-batch: the mean over all layers, forward and backward pass.
    pub layer: Layer,
    /// The loops of the program.
    pub loops: Vec<Loop>,
    /// [`Context::model_flops`].
    pub model_flops: f64,
    /// The rates of a device ([`Rates::per_device`]); none if they are unknown. Kernels then have no times, and bytes order them.
    pub rates: Option<[f64; 3]>,
}

/// A group of kernels: where, and with which result.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The scope, over all layers.
    pub scope: String,
    /// The text of the shape.
    pub shape: String,
}

/// A sum over kernels and their executions in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sum {
    /// Executions of kernels.
    pub kernels: f64,
    /// Bytes read.
    pub read: f64,
    /// Bytes written.
    pub written: f64,
    /// Floating-point operations of matrix products.
    pub products: f64,
    /// Arithmetic operations outside matrix products.
    pub elementwise: f64,
    /// Roofline seconds; 0 if the rates are unknown.
    pub seconds: f64,
}

/// The cost of a layer, without moves between memories.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Layer {
    /// Kernels.
    pub kernels: f64,
    /// Bytes of the kernels with matrix products.
    pub product_bytes: f64,
    /// Bytes of all other kernels.
    pub other_bytes: f64,
}

impl Sum {
    /// Returns the sum over the executions of one kernel.
    pub fn of(kernel: &Kernel) -> Sum {
        let (n, cost) = (kernel.executions, &kernel.cost);
        Sum {
            kernels: n,
            read: n * cost.read,
            written: n * cost.written,
            products: n * cost.products(),
            elementwise: n * cost.elementwise,
            seconds: n * kernel.seconds.unwrap_or(0.0),
        }
    }

    /// Returns the bytes read and written.
    pub fn bytes(&self) -> f64 {
        self.read + self.written
    }
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Sum) {
        self.kernels += other.kernels;
        self.read += other.read;
        self.written += other.written;
        self.products += other.products;
        self.elementwise += other.elementwise;
        self.seconds += other.seconds;
    }
}

impl Profile {
    /// Profiles the program of a compiled step.
    ///
    /// # Errors
    /// If the plugin returns the program in a format other than HLO.
    pub fn of(program: &OptimizedProgram, context: &Context) -> anyhow::Result<Profile> {
        Ok(Profile::of_program(&Program::decode(program)?, context))
    }

    fn of_program(program: &Program, context: &Context) -> Profile {
        // libtpu numbers its vector memory 1; on GPUs that number is a part of the main memory.
        let on_chip = (context.platform == Platform::Tpu).then_some(1);
        let describe = Kernels::new(Counter { program, on_chip }, context.rates.as_ref());
        let Schedule { executions, loops } = Schedule::of(program, context.micro_batches);
        let mut kernels: Vec<Kernel> = executions.iter().filter_map(|execution| describe.kernel(execution)).collect();
        let mut total = Sum::default();
        kernels.iter().for_each(|kernel| total += Sum::of(kernel));
        let place = |kernel: &Kernel, shape: &ShapeProto| Place {
            scope: scopes::over_layers(&kernel.scope),
            shape: shapes::text(shape),
        };
        let chosen = |choose: &dyn Fn(&Kernel) -> bool| {
            let chosen = kernels.iter().filter(|kernel| choose(kernel));
            grouped(chosen.map(|kernel| (place(kernel, &kernel.shape), Sum::of(kernel))))
        };
        let square = |kernel: &Kernel| -> Vec<(Place, Sum)> {
            let arrays = shapes::arrays(&kernel.shape).into_iter().cloned();
            let squares = arrays.filter(|array| {
                shapes::is_square_in(array, context.sequence_length) && Some(shapes::memory_space(array)) != on_chip
            });
            let of_array = |array: ShapeProto| {
                let written = kernel.executions * shapes::bytes(&array);
                let sum = Sum { kernels: kernel.executions, written, ..Sum::default() };
                (place(kernel, &array), sum)
            };
            squares.map(of_array).collect()
        };
        let (copies, f32_products) = (
            chosen(&|kernel| matches!(kernel.kind, Kind::Copy | Kind::Conversion)),
            chosen(&|kernel| kernel.cost.f32_products > 0.0),
        );
        let kinds = grouped(kernels.iter().map(|kernel| (kernel.kind, Sum::of(kernel))));
        let scopes = grouped(kernels.iter().map(|kernel| (scopes::over_layers(&kernel.scope), Sum::of(kernel))));
        let squares = grouped(kernels.iter().flat_map(square));
        let layer = Layer::of(&kernels, context.layers);
        kernels = merged(kernels);
        kernels.sort_by(|a, b| order(&Sum::of(a), &Sum::of(b)));
        kernels.truncate(COSTLIEST);
        let rates = context.rates.as_ref().map(Rates::per_device);
        let model_flops = context.model_flops;
        let costliest = kernels;
        Profile { total, kinds, scopes, costliest, squares, copies, f32_products, layer, loops, model_flops, rates }
    }

    /// Returns the operations of the program's matrix products over those of the model: more than 1 is recomputation, padding or
    /// products that the model does not count.
    pub fn executed_over_model(&self) -> f64 {
        self.total.products / self.model_flops
    }
}

impl Layer {
    fn of(kernels: &[Kernel], layers: usize) -> Layer {
        let mut layer = Layer::default();
        // Moves between memories have no scope outside of loops.
        for kernel in kernels.iter().filter(|kernel| kernel.kind != Kind::MemoryMove) {
            let per_layer = kernel.in_layers / layers.max(1) as f64;
            layer.kernels += per_layer;
            match kernel.kind {
                Kind::MatrixProduct => layer.product_bytes += per_layer * kernel.cost.bytes(),
                _ => layer.other_bytes += per_layer * kernel.cost.bytes(),
            }
        }
        layer
    }
}

/// Merges kernels that differ only in their name and layer: adds their executions, and keeps the name of the first.
fn merged(kernels: Vec<Kernel>) -> Vec<Kernel> {
    let mut distinct: Vec<Kernel> = Vec::new();
    let mut positions: HashMap<_, usize> = HashMap::new();
    for kernel in kernels {
        let scope = scopes::over_layers(&kernel.scope);
        let operands: Vec<String> = kernel.operands.iter().map(shapes::text).collect();
        let key = (kernel.kind, scope.clone(), shapes::text(&kernel.shape), operands, kernel.cost.bytes().to_bits());
        match positions.get(&key) {
            Some(&position) => distinct[position].executions += kernel.executions,
            None => {
                positions.insert(key, distinct.len());
                distinct.push(Kernel { scope, ..kernel });
            }
        }
    }
    distinct
}

/// Sums by key, the costliest group first; groups of equal cost in the order of their first item.
fn grouped<K: Clone + Eq + Hash>(items: impl Iterator<Item = (K, Sum)>) -> Vec<(K, Sum)> {
    let mut groups: Vec<(K, Sum)> = Vec::new();
    let mut positions: HashMap<K, usize> = HashMap::new();
    for (key, sum) in items {
        let position = *positions.entry(key.clone()).or_insert_with(|| {
            groups.push((key, Sum::default()));
            groups.len() - 1
        });
        groups[position].1 += sum;
    }
    groups.sort_by(|a, b| order(&a.1, &b.1));
    groups
}

/// Orders sums by time, and by bytes where the rates are unknown; the largest first.
fn order(a: &Sum, b: &Sum) -> std::cmp::Ordering {
    b.seconds.total_cmp(&a.seconds).then(b.bytes().total_cmp(&a.bytes()))
}
