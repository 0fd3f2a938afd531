//! Compares every derivative rule with finite differences, in f64 on the evaluator.
//!
//! A *case* builds a small formula around one operation from arguments with random shapes and values. The test takes a
//! random weighted sum of the result as the loss, and compares `gradients` with differences of the loss, element by
//! element and replica by replica. One macro generates [`CASES`] and an exhaustive match over [`Op`]: an operation
//! without a case does not compile, and a case that does not contain its operation fails.

mod formulas;

use std::panic::catch_unwind;

use lambert::autodiff::gradients;
use lambert::eval::{Value, evaluate_replicas};
use lambert::graph::{BinaryOp, Computation, DotDimensions, Graph, Op, Reduction, Tensor, UnaryOp, WindowDimension};
use lambert::rng::{Key, Stream};
use lambert::shape::{DType, HostTensor, Shape};

use self::formulas::{
    composite, convolution, convolution_of_batch_groups, gather_windows, grouped_convolution, recurrence,
    reduced_windows, scan_in_a_scan, scatter_rows, scatter_windows, two_batches_two_contractions, without_derivative,
};

/// Trials of each case, with different shapes and values.
const TRIALS: u64 = 6;
/// Step of the differences. Their error is h⁴/30 · f⁽⁵⁾ + ε/h: about 10⁻¹² for derivatives near 1.
const STEP: f64 = 1e-3;
/// Tolerance, absolute and relative.
const TOLERANCE: f64 = 1e-8;

/// The expected derivative of an operation.
enum Expected {
    /// Equal to the differences.
    Derivative(Case),
    /// Zero, like the differences.
    Flat(Case),
    /// Zero, regardless of the differences.
    Blocked(Case),
    /// None: differentiation panics with a message.
    Refused(Case),
}
use Expected::{Blocked, Derivative, Flat, Refused};

type Case = for<'g> fn(&mut Trial<'g>) -> Tensor<'g>;

macro_rules! cases {
    ($($pattern:pat => $name:literal: [$($expected:expr),+ $(,)?],)*) => {
        /// Returns the name of an operation's cases in [`CASES`].
        fn case_name(op: &Op) -> &'static str {
            match op { $($pattern => $name,)* }
        }
        const CASES: &[(&str, &[Expected])] = &[$(($name, &[$($expected),+])),*];
    };
}

cases! {
    // ---- leaves ----
    Op::Parameter { .. } => "parameter": [Derivative(|t| t.any())],
    Op::Constant(_) => "constant": [Derivative(|t| { let x = t.any(); x * t.constant(&x.dims()) })],
    Op::Iota { .. } => "iota": [Derivative(|t| { let x = t.any(); x * t.graph.iota(x.shape(), x.dims().len() - 1) })],

    // ---- elementwise, one operand ----
    Op::Unary(UnaryOp::Abs) => "abs": [Derivative(|t| t.any().abs())],
    Op::Unary(UnaryOp::Negate) => "negate": [Derivative(|t| -t.any())],
    Op::Unary(UnaryOp::Sign) => "sign": [Flat(|t| t.any().sign())],
    Op::Unary(UnaryOp::Floor) => "floor": [Flat(|t| t.any().floor())],
    Op::Unary(UnaryOp::Exp) => "exp": [Derivative(|t| t.any().exp())],
    Op::Unary(UnaryOp::Log) => "log": [Derivative(|t| t.positive().log())],
    Op::Unary(UnaryOp::Log1p) => "log1p": [Derivative(|t| t.any().abs().log1p())],
    Op::Unary(UnaryOp::Tanh) => "tanh": [Derivative(|t| t.any().tanh())],
    Op::Unary(UnaryOp::Sqrt) => "sqrt": [Derivative(|t| t.positive().sqrt())],
    Op::Unary(UnaryOp::Rsqrt) => "rsqrt": [Derivative(|t| t.positive().rsqrt())],
    Op::Unary(UnaryOp::Erf) => "erf": [Derivative(|t| t.any().erf())],
    Op::Unary(UnaryOp::Not) => "not": [Flat(|t| { let x = t.any(); x.gt(x.filled(0.0)).not().convert(DType::F32) })],
    Op::Unary(UnaryOp::IsFinite) => "is_finite": [Flat(|t| t.any().is_finite().convert(DType::F32))],
    Op::Convert { .. } => "convert": [
        Derivative(|t| t.any().convert(DType::BF16).tanh()),
        Derivative(|t| (2.0 * t.any().convert(DType::F16)).convert(DType::F32).square()),
        Flat(|t| t.any().convert(DType::S32).convert(DType::F32)),
    ],
    Op::BitcastConvert { .. } => "bitcast_convert": [
        Blocked(|t| t.any().bitcast_convert(DType::U64).bitcast_convert(DType::F64)),
    ],

    // ---- elementwise, two operands ----
    Op::Binary(BinaryOp::Add) => "add": [Derivative(|t| { let (x, y) = t.pair(); x + y }), Derivative(|t| { let x = t.any(); x + x })],
    Op::Binary(BinaryOp::Subtract) => "subtract": [Derivative(|t| { let (x, y) = t.pair(); x - y })],
    Op::Binary(BinaryOp::Multiply) => "multiply": [Derivative(|t| { let (x, y) = t.pair(); x * y }), Derivative(|t| t.any().square())],
    Op::Binary(BinaryOp::Divide) => "divide": [Derivative(|t| { let (x, y) = t.pair(); x / (y.abs() + 0.5) })],
    Op::Binary(BinaryOp::Remainder) => "remainder": [Derivative(|t| {
        // x/y stays near the middle between two integers of either sign.
        let (x, y) = t.pair();
        let y = y.abs() + 1.0;
        let halves = t.constant(&y.dims()).floor() + 0.5;
        (halves * y + 0.02 * x).rem(y)
    })],
    Op::Binary(BinaryOp::Power) => "power": [Derivative(|t| { let (x, y) = t.pair(); (x.abs() + 0.5).pow(y) })],
    Op::Binary(BinaryOp::Maximum) => "maximum": [Derivative(|t| { let (x, y) = t.pair(); x.maximum(y) })],
    Op::Binary(BinaryOp::Minimum) => "minimum": [Derivative(|t| { let (x, y) = t.pair(); x.minimum(y) })],
    Op::Binary(BinaryOp::And) => "and": [Flat(|t| { let (x, y) = t.pair(); (x.gt(y).and(x.gt(-y))).convert(DType::F32) })],
    Op::Binary(BinaryOp::Or) => "or": [Flat(|t| { let (x, y) = t.pair(); (x.gt(y).or(x.gt(-y))).convert(DType::F32) })],
    Op::Binary(BinaryOp::Xor) => "xor": [Flat(|t| { let (x, y) = t.pair(); (x.gt(y).xor(x.gt(-y))).convert(DType::F32) })],
    Op::Binary(BinaryOp::ShiftLeft) => "shift_left": [Flat(|t| {
        let whole = t.any().convert(DType::S32);
        whole.shift_left(whole.filled(2.0)).convert(DType::F32)
    })],
    Op::Binary(BinaryOp::ShiftRightLogical) => "shift_right_logical": [Flat(|t| {
        let whole = t.any().abs().convert(DType::U32);
        whole.shift_right_logical(whole.filled(1.0)).convert(DType::F32)
    })],

    // ---- compare and select ----
    Op::Compare { .. } => "compare": [
        Flat(|t| { let (x, y) = t.pair(); x.lt(y).convert(DType::F32) }),
        Flat(|t| { let (x, y) = t.pair(); x.ge(y).convert(DType::F32) }),
    ],
    Op::Select => "select": [Derivative(|t| {
        let (x, y) = t.pair();
        x.gt(x.filled(0.3)).select(x.square(), y.tanh())
    })],

    // ---- shape ----
    Op::Reshape { .. } => "reshape": [Derivative(|t| {
        let [a, b, c] = t.sizes();
        t.argument(&[a, b, c]).reshape(&[c, a * b])
    })],
    Op::Transpose { .. } => "transpose": [Derivative(|t| {
        let mut permutation = [0, 1, 2];
        t.stream.shuffle(&mut permutation);
        let dims: [usize; 3] = t.sizes();
        t.argument(&dims).transpose(&permutation)
    })],
    Op::Broadcast { .. } => "broadcast": [
        Derivative(|t| { let [a, b, c] = t.sizes(); t.argument(&[b]).broadcast(&[a, b, c], &[1]) }),
        Derivative(|t| { let [a, b, c] = t.sizes(); t.argument(&[a, c]).broadcast(&[a, b, c], &[0, 2]) }),
        Derivative(|t| { let [a, b] = t.sizes(); t.argument(&[]).convert(DType::BF16).broadcast(&[a, b], &[]) }),
    ],
    Op::Concatenate { .. } => "concatenate": [Derivative(|t| {
        let [a, b, c, d] = t.sizes();
        let (x, y) = (t.argument(&[a, b]), t.argument(&[a, c]));
        let parts = [x, y, t.constant(&[a, d]), x];
        t.graph.concatenate(&parts, 1)
    })],
    Op::Slice { .. } => "slice": [
        Derivative(|t| {
            let [a, b] = t.sizes();
            t.argument(&[a + 2, b + 5]).slice(&[1, 2], &[a + 2, b + 4], &[1, 2])
        }),
        Derivative(|t| t.argument(&[7]).slice(&[1], &[7], &[3])),
        Derivative(|t| { let x = t.argument(&[4]); t.graph.concatenate(&[x.slice(&[3], &[3], &[1]), x], 0) }),
    ],
    Op::Pad { .. } => "pad": [
        Derivative(|t| {
            let [a, b, low, gap] = t.sizes();
            let (x, value) = (t.argument(&[a, b]), t.argument(&[]));
            x.pad(value, &[low, 0], &[0, 2], &[gap, gap - 1])
        }),
        Derivative(|t| { let (x, value) = (t.argument(&[0]), t.argument(&[])); x.pad(value, &[1], &[2], &[3]) }),
    ],

    // ---- reduce ----
    Op::Reduce { .. } => "reduce": [
        Derivative(|t| { let dims: [usize; 3] = t.sizes(); t.argument(&dims).reduce_sum(&[0, 2]) }),
        Derivative(|t| { let dims: [usize; 3] = t.sizes(); t.argument(&dims).reduce_max(&[1]) }),
        Derivative(|t| { let dims: [usize; 3] = t.sizes(); t.argument(&dims).reduce(Reduction::Min, &[0, 1, 2]) }),
        Flat(|t| { let (x, y) = t.pair(); x.gt(y).reduce(Reduction::Or, &[0]).convert(DType::F32) }),
    ],

    // ---- dot ----
    Op::Convolution(_) => "convolution": [
        Derivative(convolution),
        Derivative(grouped_convolution),
        Derivative(convolution_of_batch_groups),
    ],
    Op::ReduceWindow { .. } => "reduce_window": [
        Derivative(|t| reduced_windows(t, Reduction::Sum)),
        Derivative(|t| reduced_windows(t, Reduction::Max)),
        Derivative(|t| reduced_windows(t, Reduction::Min)),
        Derivative(|t| {
            let dilated = WindowDimension { window_dilation: 2, ..WindowDimension::new(2).stride(3).padding(1, 2) };
            let n = 5 + t.stream.below(5) as usize;
            t.argument(&[n]).reduce_window(Reduction::Sum, &[dilated])
        }),
        Flat(|t| {
            let x = t.argument(&[5]);
            x.gt(x.filled(0.0)).reduce_window(Reduction::Or, &[WindowDimension::new(2)]).convert(DType::F32)
        }),
    ],
    Op::SelectAndScatter { .. } => "select_and_scatter": [Refused(|t| {
        let (x, y) = (t.argument(&[4]), t.argument(&[3]));
        x.select_and_scatter(y, &[WindowDimension::new(2)])
    })],
    Op::Reverse { .. } => "reverse": [Derivative(|t| { let [a, b, c] = t.sizes(); t.argument(&[a, b, c]).reverse(&[0, 2]).tanh() })],
    Op::DotGeneral { .. } => "dot_general": [
        Derivative(|t| { let [a, k, n] = t.sizes(); t.argument(&[2, a, k]).matmul(t.argument(&[k, n]), DType::F32) }),
        Derivative(|t| {
            let [a, k, n] = t.sizes();
            let (x, y) = (t.argument(&[a, k]).convert(DType::BF16), t.argument(&[k, n]).convert(DType::BF16));
            x.matmul(y, DType::F32)
        }),
        Derivative(two_batches_two_contractions),
        Derivative(|t| {
            let [a, b] = t.sizes();
            t.argument(&[a]).dot_general(t.argument(&[b]), DotDimensions::default(), DType::F32)
        }),
    ],

    // ---- index ----
    Op::DynamicSlice { .. } => "dynamic_slice": [Derivative(|t| {
        let [a, b] = t.sizes();
        let starts = [t.start(-1, 4), t.start(0, 3)];
        t.argument(&[a + 2, b + 2]).dynamic_slice(&starts, &[2, b])
    })],
    Op::DynamicUpdateSlice => "dynamic_update_slice": [Derivative(|t| {
        let [a, b] = t.sizes();
        let starts = [t.start(-1, 4), t.start(0, 3)];
        t.argument(&[a + 2, b + 2]).dynamic_update_slice(t.argument(&[2, b]), &starts)
    })],
    Op::Gather(_) => "gather": [
        Derivative(|t| {
            let [n, d, a, b] = t.sizes();
            t.argument(&[n, d]).take_rows(t.indices(&[a, b], n))
        }),
        Derivative(gather_windows),
    ],
    Op::ScatterAdd(_) => "scatter_add": [Derivative(scatter_rows), Derivative(scatter_windows)],

    // ---- control ----
    Op::While { .. } => "while": [Refused(|t| looped(t.any()))],
    Op::Scan(_) => "scan": [
        Derivative(|t| recurrence(t, false, |scan| scan.carried[0])),
        Derivative(|t| recurrence(t, true, |scan| scan.carried[0])),
        Derivative(|t| recurrence(t, true, |scan| scan.stacked[0])),
        Derivative(|t| recurrence(t, false, |scan| scan.stacked[1].tanh() + scan.stacked[0])),
        Derivative(|t| { let graph = t.graph; graph.recomputed(|| recurrence(t, false, |scan| scan.stacked[1])) }),
        Derivative(scan_in_a_scan),
    ],
    Op::Composite(_) => "composite": [
        Derivative(|t| composite(t)[0].square()),
        Derivative(|t| { let graph = t.graph; graph.recomputed(|| composite(t)[0].tanh()) }),
        Refused(|t| { let x = t.any(); t.graph.composite(&without_derivative(x.shape()), &[x])[0] }),
    ],
    Op::GetTupleElement { .. } => "get_tuple_element": [
        Refused(|t| looped(t.any())),
        // Only one element is read.
        Derivative(|t| { t.replicas = 2; let (x, y) = t.pair(); t.graph.all_reduce(&[x, y], Reduction::Sum)[1].square() }),
    ],
    Op::OptimizationBarrier => "optimization_barrier": [
        Derivative(|t| t.any().optimization_barrier().square()),
        Derivative(|t| {
            let (value, other) = (t.any(), t.any());
            value.square().optimization_barrier_after(other)
        }),
    ],
    Op::StopGradient => "stop_gradient": [Blocked(|t| t.any().exp().stop_gradient())],

    // ---- collective, over all replicas ----
    Op::ReplicaId => "replica_id": [Derivative(|t| {
        t.replicas = 3;
        let x = t.any();
        x * t.graph.replica_id().convert(DType::F64).broadcast_like(x, &[])
    })],
    Op::AllReduce { .. } => "all_reduce": [
        Derivative(|t| { t.replicas = 3; t.any().tanh().all_reduce(Reduction::Sum).square() }),
        Derivative(|t| { t.replicas = 3; t.any().all_reduce(Reduction::Max) }),
        Derivative(|t| { t.replicas = 2; t.any().all_reduce(Reduction::Min) }),
        Derivative(|t| together(t, |x| x[0].graph().all_reduce(x, Reduction::Sum))),
        Derivative(|t| together(t, |x| x[0].graph().all_reduce(x, Reduction::Max))),
    ],
    Op::AllGather { .. } => "all_gather": [
        Derivative(|t| {
            t.replicas = 2;
            let dims: [usize; 2] = t.sizes();
            t.argument(&dims).all_gather(1, 2).square()
        }),
        Derivative(|t| together(t, |x| x[0].graph().all_gather(x, 1, 2))),
    ],
    Op::ReduceScatter { .. } => "reduce_scatter": [Derivative(|t| {
        t.replicas = 2;
        let [a, b] = t.sizes();
        t.argument(&[a, 2 * b]).reduce_scatter(1, 2).square()
    })],
}

/// Formulas that are differentiated twice: the result of `gradients` is an ordinary graph.
const SECOND_DERIVATIVES: &[(&str, Case)] = &[
    ("exp", |t| {
        let x = t.any();
        t.slope(x.exp(), x)
    }),
    ("log", |t| {
        let x = t.positive();
        t.slope(x.log(), x)
    }),
    ("tanh", |t| {
        let x = t.any();
        t.slope(x.tanh(), x)
    }),
    ("rsqrt", |t| {
        let x = t.positive();
        t.slope(x.rsqrt(), x)
    }),
    ("erf", |t| {
        let x = t.any();
        t.slope(x.erf(), x)
    }),
    ("divide", |t| {
        let (x, y) = t.pair();
        let y = y.abs() + 0.5;
        t.slope(x / y, y)
    }),
    ("power", |t| {
        let (x, y) = t.pair();
        let x = x.abs() + 0.5;
        t.slope(x.pow(y), x)
    }),
    ("maximum", |t| {
        let (x, y) = t.pair();
        t.slope(x.maximum(y).square(), x)
    }),
    ("dot", |t| {
        let x = t.argument(&[3, 2]);
        t.slope(x.matmul(x.transpose(&[1, 0]), DType::F64).tanh(), x)
    }),
    ("gather", |t| {
        let x = t.argument(&[3, 2]);
        let rows = x.take_rows(t.indices(&[4], 3));
        t.slope(rows.tanh(), x)
    }),
    ("scan", |t| {
        let y = recurrence(t, false, |scan| scan.carried[0]);
        t.slope(y, t.arguments[0])
    }),
    ("scatter", |t| {
        let x = scatter_rows(t);
        t.slope(x.tanh(), t.arguments[0])
    }),
    ("log-softmax", |t| {
        let x = t.argument(&[2, 3]);
        let shifted = x - x.reduce_max(&[1]).stop_gradient().broadcast_like(x, &[0]);
        t.slope(shifted - shifted.exp().reduce_sum(&[1]).log().broadcast_like(x, &[0]), x)
    }),
];

fn looped(x: Tensor<'_>) -> Tensor<'_> {
    let count = x.graph().scalar(0.0, DType::S32);
    let state = x.graph().while_loop(
        "double",
        &[count, x],
        |_, state| state[0].lt(state[0].filled(3.0)),
        |_, state| vec![state[0] + 1.0, state[1] * 2.0],
    );
    state[1]
}

/// A collective of three arrays over two replicas. The last result is read twice, the middle one is not read.
fn together<'g>(t: &mut Trial<'g>, collective: impl Fn(&[Tensor<'g>]) -> Vec<Tensor<'g>>) -> Tensor<'g> {
    t.replicas = 2;
    let [a, b] = t.sizes();
    let operands = [a, 1, b].map(|rows| t.argument(&[rows, 2]));
    let results = collective(&operands);
    results[0].square().sum() + (results[2].tanh() * results[2]).sum()
}

/// A formula under construction, with its arguments and its random numbers.
struct Trial<'g> {
    graph: &'g Graph,
    stream: Stream,
    replicas: usize,
    arguments: Vec<Tensor<'g>>,
}

impl<'g> Trial<'g> {
    fn new(graph: &'g Graph, seed: Key) -> Self {
        Trial { graph, stream: seed.stream(), replicas: 1, arguments: Vec::new() }
    }

    fn sizes<const N: usize>(&mut self) -> [usize; N] {
        std::array::from_fn(|_| self.stream.between(1, 3) as usize)
    }

    /// Adds an f64 argument. In f64, constants of the rules (2/√π) are not rounded to f32.
    fn argument(&mut self, dims: &[usize]) -> Tensor<'g> {
        let argument = self.graph.parameter(format!("x{}", self.arguments.len()), Shape::new(DType::F64, dims));
        self.arguments.push(argument);
        argument
    }

    /// Adds an argument of random dimensions.
    fn any(&mut self) -> Tensor<'g> {
        let dims: [usize; 2] = self.sizes();
        self.argument(&dims)
    }

    /// Returns |x| + ½ of a new argument x, on which logarithms and roots are smooth.
    fn positive(&mut self) -> Tensor<'g> {
        self.any().abs() + 0.5
    }

    /// Adds two arguments of equal random dimensions.
    fn pair(&mut self) -> (Tensor<'g>, Tensor<'g>) {
        let dims: [usize; 2] = self.sizes();
        (self.argument(&dims), self.argument(&dims))
    }

    /// Returns random numbers that are not differentiated.
    fn constant(&mut self, dims: &[usize]) -> Tensor<'g> {
        let shape = Shape::new(DType::F64, dims);
        let values: Vec<f64> = (0..shape.elements()).map(|_| 2.0 * self.stream.normal()).collect();
        self.graph.constant(HostTensor::from_f64(shape, &values))
    }

    /// Returns s32 indices in −1..=limit, some of which are out of the bounds `0..limit`.
    fn indices(&mut self, dims: &[usize], limit: usize) -> Tensor<'g> {
        let n = dims.iter().product();
        let values: Vec<i32> = (0..n).map(|_| self.stream.between(0, limit as u64 + 1) as i32 - 1).collect();
        self.graph.constant(HostTensor::new(dims, &values))
    }

    /// Returns a scalar s32 in `low..=high`.
    fn start(&mut self, low: i32, high: i32) -> Tensor<'g> {
        let start = low + self.stream.below((high - low + 1) as u64) as i32;
        self.graph.constant(HostTensor::scalar(start))
    }

    /// Returns the gradient of a random weighted sum of `out` with respect to `x`.
    fn slope(&mut self, out: Tensor<'g>, x: Tensor<'g>) -> Tensor<'g> {
        let weights = self.constant(&out.dims());
        gradients((out * weights).sum(), &[x])[0]
    }

    /// Draws the arguments and the weights of each replica. The arguments are within ±4.5, or more if there are more than 90, and at
    /// least 0.03 from each other and from whole numbers, so that no kink or jump is within the steps.
    fn draw(&mut self, weights: Tensor<'g>) -> Arguments {
        let elements: usize = self.arguments.iter().map(|argument| argument.shape().elements()).sum();
        let half = (self.replicas * elements).div_ceil(2).max(45) as i32;
        let mut pool: Vec<f64> =
            (-half..half).map(|i| 0.1 * (i as f64 + 0.5) + 0.02 * (self.stream.uniform() - 0.5)).collect();
        self.stream.shuffle(&mut pool);
        let mut replica = || {
            let mut values = Vec::new();
            for argument in &self.arguments {
                values.push(pool.split_off(pool.len() - argument.shape().elements()));
            }
            values.push((0..weights.shape().elements()).map(|_| self.stream.normal()).collect());
            values
        };
        (0..self.replicas).map(|_| replica()).collect()
    }
}

/// Numbers by replica, parameter and element.
type Arguments = Vec<Vec<Vec<f64>>>;

fn evaluate(computation: &Computation, arguments: &Arguments) -> Arguments {
    let shapes = computation.parameter_shapes();
    let values = |replica: &Vec<Vec<f64>>| -> Vec<Value> {
        shapes.iter().zip(replica).map(|(&shape, x)| Value::from_f64(shape.clone(), x.clone())).collect()
    };
    let arguments: Vec<Vec<Value>> = arguments.iter().map(values).collect();
    let outputs = evaluate_replicas(computation, &arguments).unwrap();
    outputs.iter().map(|outputs| outputs.iter().map(Value::to_f64).collect()).collect()
}

/// Differentiates the sum of the replicas' losses by every element of the first `n` parameters with five-point differences.
fn differences(loss: &Computation, arguments: &Arguments, n: usize) -> Arguments {
    let total = |arguments: &Arguments| -> f64 { evaluate(loss, arguments).iter().map(|outputs| outputs[0][0]).sum() };
    let by_element = |r: usize, a: usize, i: usize| {
        let at = |steps: f64| {
            let mut moved = arguments.clone();
            moved[r][a][i] += steps * STEP;
            total(&moved)
        };
        (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * STEP)
    };
    (0..arguments.len())
        .map(|r| (0..n).map(|a| (0..arguments[r][a].len()).map(|i| by_element(r, a, i)).collect()).collect())
        .collect()
}

/// Builds `case`, takes a random weighted sum as the loss, and checks `right(found, numeric)` for every derivative.
fn check(name: &str, case: Case, seed: Key, right: impl Fn(f64, f64) -> bool) {
    let graph = Graph::new(name);
    let mut trial = Trial::new(&graph, seed);
    let out = case(&mut trial);
    let weights = graph.parameter("weights", out.shape());
    let loss = (out * weights).sum();
    let values = trial.draw(weights);
    let found = evaluate(&graph.finish(&gradients(loss, &trial.arguments)), &values);
    let numeric = differences(&graph.finish(&[loss]), &values, trial.arguments.len());
    for (r, a) in (0..values.len()).flat_map(|r| (0..trial.arguments.len()).map(move |a| (r, a))) {
        for (i, (&found, &numeric)) in found[r][a].iter().zip(&numeric[r][a]).enumerate() {
            assert!(
                right(found, numeric),
                "{name}: element {i} of argument {a} on replica {r}: gradient {found}, differences {numeric}"
            );
        }
    }
}

fn close(found: f64, numeric: f64) -> bool {
    (found - numeric).abs() <= TOLERANCE * (1.0 + numeric.abs())
}

#[test]
fn every_derivative_rule_matches_finite_differences() {
    for (name, expectations) in CASES {
        for (i, expected) in expectations.iter().enumerate() {
            for trial in 0..TRIALS {
                let seed = Key::new(trial).fold_in(i as u64);
                match expected {
                    Derivative(case) => check(name, *case, seed, close),
                    Flat(case) => check(name, *case, seed, |found, numeric| found == 0.0 && numeric == 0.0),
                    Blocked(case) => check(name, *case, seed, |found, _| found == 0.0),
                    Refused(case) => {
                        let panic = catch_unwind(|| check(name, *case, seed, close)).unwrap_err();
                        let message = panic.downcast_ref::<String>().unwrap();
                        assert!(message.contains("has no derivative"), "{name}: {message}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_case_contains_its_operation() {
    for (name, expectations) in CASES {
        for Derivative(case) | Flat(case) | Blocked(case) | Refused(case) in *expectations {
            let graph = Graph::new(*name);
            let out = case(&mut Trial::new(&graph, Key::new(0)));
            let nodes = graph.finish(&[out]).nodes;
            assert!(nodes.iter().any(|node| case_name(&node.op) == *name), "a case of {name} does not contain it");
        }
    }
}

#[test]
fn gradients_are_differentiable() {
    for (name, case) in SECOND_DERIVATIVES {
        (0..TRIALS).for_each(|trial| check(name, *case, Key::new(trial), close));
    }
}

/// Evaluates the gradients of a formula of f32 vectors at `values`.
fn gradients_at(values: &[&[f64]], formula: impl for<'g> Fn(&[Tensor<'g>]) -> Tensor<'g>) -> Vec<Vec<f64>> {
    let graph = Graph::new("at");
    let arguments: Vec<Tensor> =
        values.iter().map(|x| graph.parameter("x", Shape::new(DType::F32, [x.len()]))).collect();
    let computation = graph.finish(&gradients(formula(&arguments), &arguments));
    let values = values.iter().map(|x| x.to_vec()).collect();
    evaluate(&computation, &vec![values]).swap_remove(0)
}

#[test]
fn ties_share_the_gradient_evenly() {
    let max = gradients_at(&[&[2.0, 7.0, 7.0, 1.0]], |x| 6.0 * x[0].reduce_max(&[0]));
    assert_eq!(max, [[0.0, 3.0, 3.0, 0.0]]);
    let min = gradients_at(&[&[2.0, 1.0, 1.0, 1.0]], |x| 6.0 * x[0].reduce(Reduction::Min, &[0]));
    assert_eq!(min, [[0.0, 2.0, 2.0, 2.0]]);
    let both = gradients_at(&[&[1.0, 2.0, 3.0], &[2.0, 2.0, 2.0]], |x| x[0].maximum(x[1]).sum());
    assert_eq!(both, [[0.0, 0.5, 1.0], [1.0, 0.5, 0.0]]);
    let both = gradients_at(&[&[1.0, 2.0, 3.0], &[2.0, 2.0, 2.0]], |x| x[0].minimum(x[1]).sum());
    assert_eq!(both, [[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]]);
    let same = gradients_at(&[&[5.0]], |x| x[0].maximum(x[0]).sum());
    assert_eq!(same, [[1.0]]);
}

#[test]
fn gradient_of_an_unused_tensor_is_zero() {
    let found = gradients_at(&[&[1.0, 2.0], &[3.0]], |x| x[0].square().sum());
    assert_eq!(found, [vec![2.0, 4.0], vec![0.0]]);
}

#[test]
fn intermediate_tensors_and_the_loss_have_gradients() {
    let graph = Graph::new("inner");
    let x = graph.parameter("x", Shape::new(DType::F32, [2]));
    let inner = x.exp();
    let loss = (inner * 3.0).sum();
    let later = loss * 2.0;
    let computation = graph.finish(&gradients(loss, &[loss, inner, x, later]));
    let found = evaluate(&computation, &vec![vec![vec![0.0, 0.0]]]);
    assert_eq!(found, [[vec![1.0], vec![3.0, 3.0], vec![3.0, 3.0], vec![0.0]]]);
}

#[test]
#[should_panic(expected = "the loss must be a floating-point scalar, got f32[2]")]
fn loss_must_be_a_scalar() {
    gradients_at(&[&[1.0, 2.0]], |x| x[0].exp());
}
