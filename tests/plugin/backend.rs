//! Compares every operation on a real plugin with the evaluator, which shares no code with the lowering.
//!
//! Integers and truth values must be equal. Floats may differ by the rounding of their type: the evaluator computes in
//! f64, so the tolerance bounds the error of the device.

use std::sync::OnceLock;

use crate::common::operations;
use crate::common::operations::Case;
use lambert::eval::{Value, evaluate_replicas};
use lambert::graph::{Graph, ScatterDimensions};
use lambert::hlo::{self, DotPrecision, LowerOptions};
use lambert::pjrt::{Buffer, Client, CompileOptions, CreateOption, Environment, Platform, PlatformChoice};
use lambert::shape::{DType, HostTensor, Shape};
use lambert::step::Program;

/// Returns a client with four virtual CPU devices, shared by all tests because it is slow to create.
fn client() -> &'static Client {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        let options = |_| vec![CreateOption::new("cpu_device_count", 4i64)];
        let found = Environment::of_process().open(&PlatformChoice::Platform(Platform::Cpu), options);
        found.unwrap_or_else(|e| panic!("this test requires the CPU plugin: {e}")).item
    })
}

/// Lowers, compiles and runs a case with one device for each argument list, and returns the outputs of each replica.
fn run(case: &Case) -> Result<Vec<Vec<HostTensor>>, Box<dyn std::error::Error>> {
    let num_replicas = case.arguments.len();
    // Devices must not round f32 operands, which the evaluator does not do.
    let options = LowerOptions { name: &case.name, num_replicas, dot_precision: DotPrecision::Highest, donated: &[] };
    let module = hlo::lower(&case.computation, &options);
    let executable = client().compile(&module.bytes, &CompileOptions::replicas(num_replicas))?;
    let mut arguments = Vec::new();
    for (values, device) in case.arguments.iter().zip(executable.devices()) {
        let buffers = values.iter().map(|x| client().buffer_from_host(x.bytes(), x.shape(), device));
        arguments.push(buffers.collect::<Result<Vec<Buffer>, _>>()?);
    }
    let lists: Vec<Vec<&Buffer>> = arguments.iter().map(|list| list.iter().collect()).collect();
    let mut results = Vec::new();
    for outputs in executable.execute(&lists)? {
        results.push(outputs.iter().map(Buffer::to_host).collect::<Result<Vec<HostTensor>, _>>()?);
    }
    Ok(results)
}

/// Returns the tolerance for a value of type `dtype`, relative to the largest absolute value of its tensor, at least 1.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-12,
        DType::F32 => 1e-6,
        DType::F16 => 2e-3,
        DType::BF16 => 1e-2,
        DType::Pred | DType::U8 | DType::U16 | DType::S32 | DType::U32 | DType::U64 => 0.0,
    }
}

/// Describes the first element in which `found` differs from `expected`.
fn mismatch(expected: &Value, found: &HostTensor) -> Option<String> {
    if expected.shape() != found.shape() {
        return Some(format!("requires {}, got {}", expected.shape(), found.shape()));
    }
    let dtype = expected.shape().dtype;
    if !dtype.is_float() {
        let expected = expected.to_host();
        return (expected != *found).then(|| format!("requires {expected:?}, got {found:?}"));
    }
    let (expected, found) = (expected.to_f64(), found.to_f64());
    let largest = expected.iter().filter(|x| x.is_finite()).fold(1.0, |largest: f64, x| largest.max(x.abs()));
    let agree = |e: f64, f: f64| e == f || (e.is_nan() && f.is_nan()) || (e - f).abs() <= tolerance(dtype) * largest;
    let at = (0..expected.len()).find(|&i| !agree(expected[i], found[i]))?;
    Some(format!("{dtype} element {at}: requires {}, got {}", expected[at], found[at]))
}

#[test]
fn every_operation_matches_the_evaluator() {
    let cases = operations::all();
    assert_eq!(operations::without_a_case(&cases), [""; 0], "operations without a case");
    let mut complaints = Vec::new();
    for case in &cases {
        let arguments: Vec<Vec<Value>> = case.arguments.iter().map(|x| x.iter().map(Value::from).collect()).collect();
        let expected = evaluate_replicas(&case.computation, &arguments).unwrap();
        let found = match run(case) {
            Ok(found) => found,
            Err(error) => {
                complaints.push(format!("{}: {error}", case.name));
                continue;
            }
        };
        assert_eq!(found.len(), expected.len(), "{}: replicas", case.name);
        for (replica, (expected, found)) in expected.iter().zip(&found).enumerate() {
            assert_eq!(found.len(), expected.len(), "{}: outputs", case.name);
            for (i, (expected, found)) in expected.iter().zip(found).enumerate() {
                if let Some(mismatch) = mismatch(expected, found) {
                    let output = case.computation.outputs[i];
                    let node = case.computation.node(output);
                    complaints.push(format!(
                        "{}: replica {replica}, output {i} ({output}, {}): {mismatch}",
                        case.name,
                        node.op.name()
                    ));
                }
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn donated_argument_is_deleted_and_others_are_kept() {
    let graph = Graph::new("donate");
    let shape = Shape::new(DType::F32, [256]);
    let (x, y) = (graph.parameter("x", shape.clone()), graph.parameter("y", shape.clone()));
    let computation = graph.finish(&[x.sum(), x + y]);
    let module = hlo::lower(&computation, &LowerOptions { donated: &[(1, 1)], ..Default::default() });
    let executable = client().compile(&module.bytes, &CompileOptions::replicas(1)).unwrap();
    let device = &executable.devices()[0];
    let put = |value: f32| {
        let tensor = HostTensor::new([256], &[value; 256]);
        client().buffer_from_host(tensor.bytes(), tensor.shape(), device).unwrap()
    };
    let (x, y) = (put(1.0), put(2.0));
    let outputs = executable.execute(&[vec![&x, &y]]).unwrap();
    assert_eq!(outputs[0][0].to_host().unwrap().to_f64(), [256.0]);
    assert_eq!(outputs[0][1].to_host().unwrap().to_f64(), [3.0; 256]);
    assert!(!x.is_deleted().unwrap());
    assert!(y.is_deleted().unwrap());
    assert_eq!(executable.executable().memory_stats().unwrap().alias, 1024);
}

/// The sum of updates `[1, 2⁻⁶⁰]` into two rows: the unit of the rounded sums is 2⁻⁵⁰, so the small update is zero, which shows
/// that the compiler keeps the rounding.
#[test]
fn reproducible_scatters_round_their_updates() {
    let graph = Graph::new("scatter");
    let ids = graph.parameter("ids", Shape::new(DType::S32, [2]));
    let updates = graph.parameter("updates", Shape::new(DType::F32, [2, 1]));
    let dimensions = ScatterDimensions {
        update_window_dims: vec![1],
        inserted_window_dims: vec![0],
        scatter_dims_to_operand_dims: vec![0],
        index_vector_dim: 1,
    };
    let sums = graph.full(0.0, Shape::new(DType::F32, [2, 1])).scatter_add(ids, updates, dimensions);
    let computation = graph.finish(&[sums]);
    let plain = Program { computation, inputs: Vec::new(), outputs: Vec::new(), donated: Vec::new(), replicas: 1 };
    let arguments = vec![vec![
        HostTensor::new([2], &[0i32, 1]),
        HostTensor::from_f64(Shape::new(DType::F32, [2, 1]), &[1.0, 2f64.powi(-60)]),
    ]];
    let sums_of = |program: &Program| {
        let (name, computation) = ("scatter".to_owned(), program.computation.clone());
        run(&Case { name, computation, arguments: arguments.clone(), golden: false }).unwrap()[0][0].to_f64()
    };
    assert_eq!(sums_of(&plain), [1.0, 2f64.powi(-60)]);
    assert_eq!(sums_of(&plain.with_reproducible_scatters()), [1.0, 0.0]);
}
