//! The PJRT wrapper on a real plugin, with programs written by hand: tests `src/pjrt` independently of the graph lowering.

use std::sync::mpsc;
use std::time::Duration;

use lambert::pjrt::{
    Buffer, Client, CompileOptions, CreateOption, Environment, ErrorCode, ExecuteOptions, LoadedExecutable, PjrtError,
    Platform, PlatformChoice, Plugin, Topology, Value, recommended_overrides,
};
use lambert::shape::{DType, HostTensor, Shape};

fn plugin() -> Plugin {
    let cpu = PlatformChoice::Platform(Platform::Cpu);
    match Environment::of_process().find(&cpu) {
        Ok(found) => found.item,
        Err(error) => panic!("this test requires a CPU plugin: {error}"),
    }
}

fn client(devices: i64) -> Client {
    Client::new(&plugin(), &[CreateOption::new("cpu_device_count", devices)], None).unwrap()
}

fn on_one_device(client: &Client, hlo: &[u8]) -> LoadedExecutable {
    client.compile(hlo, &CompileOptions::default()).unwrap()
}

fn upload(client: &Client, tensor: &HostTensor, device: usize) -> Buffer {
    client.buffer_from_host(tensor.bytes(), tensor.shape(), &client.addressable_devices()[device]).unwrap()
}

fn floats(values: &[f32]) -> HostTensor {
    HostTensor::new([values.len()], values)
}

#[test]
fn program_runs() {
    let client = client(1);
    assert_eq!(client.platform_name(), "cpu");
    assert_eq!(client.process_index(), 0);
    let add = on_one_device(&client, &hlo::add(3));
    assert_eq!(add.output_shapes().unwrap(), [Shape::new(DType::F32, [3])]);
    let x = upload(&client, &floats(&[1.0, 2.0, 3.0]), 0);
    let y = client.buffer_from_tensor(floats(&[10.0, 20.0, 30.0]), &client.addressable_devices()[0]).unwrap();
    let outputs = add.execute(&[vec![&x, &y]]).unwrap();
    assert_eq!(outputs[0][0].shape(), &Shape::new(DType::F32, [3]));
    assert_eq!(outputs[0][0].to_host().unwrap(), floats(&[11.0, 22.0, 33.0]));
    assert_eq!(outputs[0][0].device().unwrap(), client.addressable_devices()[0]);
}

#[test]
fn every_element_type_round_trips_through_the_device() {
    let client = client(1);
    for dtype in DType::ALL {
        for dims in [vec![], vec![3], vec![2, 3, 5], vec![0, 4]] {
            let shape = Shape::new(dtype, dims);
            let values: Vec<f64> = (0..shape.elements()).map(|i| (i % 2) as f64).collect();
            let tensor = HostTensor::from_f64(shape.clone(), &values);
            let buffer = client.buffer_from_tensor(tensor.clone(), &client.addressable_devices()[0]).unwrap();
            assert_eq!(buffer.to_host().unwrap(), tensor, "{shape}");
        }
    }
}

#[test]
fn donated_buffer_is_deleted_and_non_donatable_input_is_kept() {
    let client = client(1);
    let add = on_one_device(&client, &hlo::module("donating_add", hlo::add_computation(4, &[]), Some(0)));
    assert_eq!(add.memory_stats().unwrap().alias, 16, "the output aliases the donated argument");
    let y = upload(&client, &floats(&[1.0; 4]), 0);

    let x = upload(&client, &floats(&[1.0, 2.0, 3.0, 4.0]), 0);
    let options = ExecuteOptions { non_donatable_input_indices: vec![0] };
    let execution = add.execute_with(&[vec![&x, &y]], &options).unwrap();
    assert_eq!(execution.outputs[0][0].to_host().unwrap(), floats(&[2.0, 3.0, 4.0, 5.0]));
    assert!(!x.is_deleted().unwrap());

    let sum = add.execute(&[vec![&x, &y]]).unwrap();
    assert_eq!(sum[0][0].to_host().unwrap(), floats(&[2.0, 3.0, 4.0, 5.0]));
    assert!(x.is_deleted().unwrap() && !y.is_deleted().unwrap());
    let error = x.to_host().unwrap_err();
    assert!(error.to_string().starts_with("PJRT_Buffer_ToHostBuffer: "), "{error}");
    let error = add.execute(&[vec![&x, &y]]).expect_err("a deleted argument");
    assert!(error.to_string().starts_with("PJRT_LoadedExecutable_Execute: "), "{error}");
}

#[test]
fn all_reduce_sums_over_four_devices() {
    let client = client(4);
    let devices = client.addressable_devices();
    assert_eq!(devices.len(), 4);
    for assignment in [None, Some(vec![vec![3, 1, 0, 2]])] {
        let options = CompileOptions { device_assignment: assignment.clone(), ..CompileOptions::replicas(4) };
        let all_reduce = client.compile(&hlo::all_reduce(2), &options).unwrap();
        assert_eq!(all_reduce.num_replicas().unwrap(), 4);
        if let Some(assignment) = assignment {
            let ids: Vec<i64> = all_reduce.devices().iter().map(|d| i64::from(d.id())).collect();
            assert_eq!(ids, assignment[0]);
        }
        let arguments: Vec<Buffer> = (0..4)
            .map(|i| {
                let tensor = floats(&[i as f32, 100.0 * i as f32]);
                client.buffer_from_tensor(tensor, &all_reduce.devices()[i]).unwrap()
            })
            .collect();
        let lists: Vec<Vec<&Buffer>> = arguments.iter().map(|buffer| vec![buffer]).collect();
        let execution = all_reduce.execute_with(&lists, &ExecuteOptions::default()).unwrap();
        for complete in &execution.complete {
            complete.wait().unwrap();
            assert!(complete.is_ready().unwrap());
        }
        for (device, outputs) in all_reduce.devices().iter().zip(&execution.outputs) {
            assert_eq!(outputs[0].to_host().unwrap(), floats(&[6.0, 600.0]));
            assert_eq!(&outputs[0].device().unwrap(), device);
        }
        let error = all_reduce.execute(&lists[..3]).expect_err("missing argument list");
        assert!(error.to_string().contains("requires one argument list for each of 4 devices, got 3"), "{error}");
    }
}

#[test]
fn buffer_is_copied_between_devices() {
    let client = client(2);
    let devices = client.addressable_devices();
    let x = upload(&client, &floats(&[1.0, 2.0]), 0);
    let copy = x.copy_to_device(&devices[1]).unwrap();
    assert_eq!(copy.device().unwrap(), devices[1]);
    drop(x);
    assert_eq!(copy.to_host().unwrap(), floats(&[1.0, 2.0]));
}

#[test]
fn executable_round_trips_through_serialization() {
    let client = client(1);
    let add = on_one_device(&client, &hlo::add(3));
    let bytes = add.serialize().unwrap();
    let again = client.deserialize(&bytes).unwrap();
    let x = upload(&client, &floats(&[1.0, 2.0, 3.0]), 0);
    assert_eq!(again.execute(&[vec![&x, &x]]).unwrap()[0][0].to_host().unwrap(), floats(&[2.0, 4.0, 6.0]));
    let error = client.deserialize(b"not an executable").expect_err("invalid bytes");
    assert!(error.to_string().starts_with("PJRT_Executable_DeserializeAndLoad: "), "{error}");
}

#[test]
fn executable_reports_memory_cost_and_program() {
    let client = client(1);
    let add = on_one_device(&client, &hlo::add(1000));
    let stats = add.memory_stats().unwrap();
    assert_eq!((stats.argument, stats.output, stats.alias), (8000, 4000, 0));
    assert!(stats.peak_estimate() >= 12000, "{stats:?}");
    assert!(add.name().unwrap().starts_with("add"), "{:?}", add.name());
    let optimized = add.optimized_program().unwrap();
    assert!(!optimized.format.is_empty() && optimized.code.len() > 100, "{}", optimized.format);
    match add.cost_analysis() {
        Ok(costs) => assert_eq!(costs.get("flops").and_then(Value::as_f64), Some(1000.0), "{costs:?}"),
        Err(PjrtError::Call { code: ErrorCode::Unimplemented, .. }) => {}
        Err(error) => panic!("{error}"),
    }
    match add.fingerprint() {
        Ok(fingerprint) => assert_eq!(fingerprint, on_one_device(&client, &hlo::add(1000)).fingerprint().unwrap()),
        Err(PjrtError::Call { code: ErrorCode::Unimplemented, .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn recommended_overrides_are_accepted_and_unknown_flags_rejected() {
    let client = client(1);
    assert!(!recommended_overrides("cpu").is_empty());
    assert!(recommended_overrides("tpu").is_empty());
    let options = CompileOptions::default().for_platform(client.platform_name());
    client.compile(&hlo::add(3), &options).unwrap();
    let mut wrong = CompileOptions::default();
    wrong.env_option_overrides.insert("xla_no_such_flag".to_owned(), lambert::pjrt::Override::Bool(true));
    let error = client.compile(&hlo::add(3), &wrong).expect_err("no such flag").to_string();
    assert!(error.starts_with("PJRT_Client_Compile: ") && error.contains("xla_no_such_flag"), "{error}");
}

#[test]
fn argument_errors_name_both_sides() {
    let client = client(1);
    let device = &client.addressable_devices()[0];
    let error = client.buffer_from_host(&[0; 7], &Shape::new(DType::F32, [2]), device).unwrap_err();
    assert_eq!(error.to_string(), "a buffer of shape f32[2] requires 8 bytes, got 7");
    let add = on_one_device(&client, &hlo::add(3));
    let short = upload(&client, &floats(&[1.0, 2.0]), 0);
    let error = add.execute(&[vec![&short, &short]]).expect_err("wrong shape");
    assert!(error.to_string().starts_with("PJRT_LoadedExecutable_Execute: "), "{error}");
    let error = add.execute(&[vec![&short]]).expect_err("missing argument");
    assert!(error.to_string().starts_with("PJRT_LoadedExecutable_Execute: "), "{error}");
    let other = Client::new(&plugin(), &[], None).unwrap();
    let foreign = upload(&other, &floats(&[1.0, 2.0, 3.0]), 0);
    let error = add.execute(&[vec![&foreign, &foreign]]).expect_err("buffer of another client");
    assert!(error.to_string().contains("a buffer of another client"), "{error}");
    let error = client.compile(b"not a program", &CompileOptions::default()).unwrap_err();
    assert!(error.to_string().starts_with("PJRT_Client_Compile: "), "{error}");
}

#[test]
fn failed_execution_returns_its_error_when_awaited() {
    let client = client(1);
    // 2^48 floats exceed any memory; the allocation fails when the program runs.
    let program = on_one_device(&client, &hlo::broadcast(1 << 48));
    let x = upload(&client, &HostTensor::scalar(1.0f32), 0);
    let message = match program.execute(&[vec![&x]]) {
        Err(error) => error.to_string(),
        Ok(outputs) => outputs[0][0].ready().unwrap().wait().unwrap_err().to_string(),
    };
    assert!(message.contains("RESOURCE_EXHAUSTED"), "{message}");
    // The client is still usable.
    let add = on_one_device(&client, &hlo::add(1));
    let x = upload(&client, &floats(&[1.0]), 0);
    assert_eq!(add.execute(&[vec![&x, &x]]).unwrap()[0][0].to_host().unwrap(), floats(&[2.0]));
}

#[test]
fn callback_runs_once_and_may_panic() {
    let client = client(1);
    let x = upload(&client, &floats(&[1.0]), 0);
    let ready = x.ready().unwrap();
    let (send, receive) = mpsc::channel();
    ready.on_ready(move |result| send.send(result).unwrap()).unwrap();
    assert_eq!(receive.recv_timeout(Duration::from_secs(10)), Ok(Ok(())));
    assert!(receive.recv_timeout(Duration::from_millis(10)).is_err(), "the callback was dropped after one call");
    ready.on_ready(|_| panic!("a panic in a callback, on purpose")).unwrap();
    assert_eq!(x.to_host().unwrap(), floats(&[1.0]));
}

#[test]
fn threads_share_an_executable() {
    let client = client(1);
    let add = on_one_device(&client, &hlo::add(64));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (client, add) = (&client, &add);
            scope.spawn(move || {
                for i in 0..50 {
                    let value = (thread * 1000 + i) as f32;
                    let x = upload(client, &floats(&[value; 64]), 0);
                    let sum = add.execute(&[vec![&x, &x]]).unwrap();
                    assert_eq!(sum[0][0].to_host().unwrap(), floats(&[2.0 * value; 64]));
                }
            });
        }
    });
}

/// Returns the resident memory of this process in bytes.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Measures memory in a process of its own, because resident memory counts the other tests too.
#[test]
#[cfg(target_os = "linux")]
fn buffers_events_and_errors_do_not_leak() {
    const ALONE: &str = "LAMBERT_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let itself = std::env::current_exe().unwrap();
        let arguments = ["--exact", "pjrt::buffers_events_and_errors_do_not_leak", "--nocapture"];
        let status = std::process::Command::new(itself).args(arguments).env(ALONE, "1").status().unwrap();
        assert!(status.success(), "the test failed in a process of its own; see its output above");
        return;
    }
    let client = client(1);
    let add = on_one_device(&client, &hlo::add(1024));
    let round = |n: usize| {
        for _ in 0..n {
            let x = client.buffer_from_tensor(floats(&[1.0; 1024]), &client.addressable_devices()[0]).unwrap();
            let sum = add.execute(&[vec![&x, &x]]).unwrap();
            sum[0][0].ready().unwrap().on_ready(|_| ()).unwrap();
            assert_eq!(sum[0][0].to_host().unwrap().bytes().len(), 4096);
            // Errors are C objects too.
            assert!(client.compile(b"x", &CompileOptions::default()).is_err());
        }
    };
    round(2000);
    let before = resident();
    round(20_000);
    let grown = resident().saturating_sub(before);
    // One leaked buffer or host copy per round is at least 80 MB, one leaked event or error several MB.
    assert!(grown < 8 << 20, "grew by {grown} bytes over 20,000 rounds");
}

#[test]
fn plugin_reports_version_attributes_and_path() {
    let plugin = plugin();
    let (major, minor) = plugin.api_version();
    assert!(major == 0 && minor >= 57, "{major}.{minor}");
    plugin.attributes().unwrap();
    assert!(format!("{plugin:?}").contains(&format!("{major}.{minor}")));
    let again = Plugin::load(plugin.path()).unwrap();
    assert_eq!(again.path(), plugin.path());
}

#[test]
fn topology_compiles_without_devices() {
    let plugin = plugin();
    let topology = match Topology::new(&plugin, "", &[]) {
        Ok(topology) => topology,
        // Some CPU plugins do not support topologies.
        Err(PjrtError::Call { function, code: ErrorCode::Unimplemented, .. }) => {
            assert_eq!(function, "PJRT_TopologyDescription_Create");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    assert_eq!(topology.platform_name().unwrap(), "cpu");
    assert!(!topology.device_descriptions().unwrap().is_empty());
    let add = topology.compile(&hlo::add(3), &CompileOptions::default()).unwrap();
    assert_eq!(add.output_shapes().unwrap(), [Shape::new(DType::F32, [3])]);
    assert!(!add.serialize().unwrap().is_empty());
}

/// Programs written as protobuf messages by hand. Field numbers from openxla/xla `xla/service/hlo.proto` and
/// `xla/xla_data.proto`.
mod hlo {
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    pub struct Layout {
        #[prost(int64, repeated, tag = "1")]
        minor_to_major: Vec<i64>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Shape {
        #[prost(int32, tag = "2")]
        element_type: i32,
        #[prost(int64, repeated, tag = "3")]
        dimensions: Vec<i64>,
        #[prost(message, optional, tag = "5")]
        layout: Option<Layout>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct ProgramShape {
        #[prost(message, repeated, tag = "1")]
        parameters: Vec<Shape>,
        #[prost(message, optional, tag = "2")]
        result: Option<Shape>,
        #[prost(string, repeated, tag = "3")]
        parameter_names: Vec<String>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Instruction {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(string, tag = "2")]
        opcode: String,
        #[prost(message, optional, tag = "3")]
        shape: Option<Shape>,
        #[prost(int64, tag = "9")]
        parameter_number: i64,
        #[prost(int64, tag = "35")]
        id: i64,
        #[prost(int64, repeated, tag = "36")]
        operand_ids: Vec<i64>,
        #[prost(int64, repeated, tag = "38")]
        called_computation_ids: Vec<i64>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Computation {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(message, repeated, tag = "2")]
        instructions: Vec<Instruction>,
        #[prost(message, optional, tag = "4")]
        program_shape: Option<ProgramShape>,
        #[prost(int64, tag = "5")]
        id: i64,
        #[prost(int64, tag = "6")]
        root_id: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct AliasEntry {
        #[prost(int64, tag = "2")]
        parameter_number: i64,
        #[prost(int32, tag = "4")]
        kind: i32,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Alias {
        #[prost(message, repeated, tag = "1")]
        entries: Vec<AliasEntry>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Module {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(string, tag = "2")]
        entry_computation_name: String,
        #[prost(message, repeated, tag = "3")]
        computations: Vec<Computation>,
        #[prost(message, optional, tag = "4")]
        host_program_shape: Option<ProgramShape>,
        #[prost(int64, tag = "5")]
        id: i64,
        #[prost(int64, tag = "6")]
        entry_computation_id: i64,
        #[prost(message, optional, tag = "8")]
        input_output_alias: Option<Alias>,
    }

    fn f32(dimensions: &[i64]) -> Shape {
        let minor_to_major = (0..dimensions.len() as i64).rev().collect();
        Shape { element_type: 11, dimensions: dimensions.to_vec(), layout: Some(Layout { minor_to_major }) }
    }

    fn instruction(id: i64, opcode: &str, shape: Shape, operand_ids: &[i64]) -> Instruction {
        Instruction {
            name: format!("{opcode}.{id}"),
            opcode: opcode.to_owned(),
            shape: Some(shape),
            id,
            operand_ids: operand_ids.to_vec(),
            ..Instruction::default()
        }
    }

    /// Builds a computation; the last instruction is the root.
    fn computation(id: i64, name: &str, mut instructions: Vec<Instruction>) -> Computation {
        let (mut parameters, mut parameter_names) = (Vec::new(), Vec::new());
        for instruction in instructions.iter_mut().filter(|i| i.opcode == "parameter") {
            instruction.parameter_number = parameters.len() as i64;
            parameters.extend(instruction.shape.clone());
            parameter_names.push(instruction.name.clone());
        }
        let root = instructions.last().cloned().unwrap_or_default();
        Computation {
            name: name.to_owned(),
            program_shape: Some(ProgramShape { parameters, result: root.shape, parameter_names }),
            root_id: root.id,
            instructions,
            id,
        }
    }

    /// Builds the sum of two parameters of shape `dims`, with ids from `100 * n` on.
    fn sum(n: i64, name: &str, dims: &[i64]) -> Computation {
        let id = 100 * n;
        let instructions = vec![
            instruction(id + 1, "parameter", f32(dims), &[]),
            instruction(id + 2, "parameter", f32(dims), &[]),
            instruction(id + 3, "add", f32(dims), &[id + 1, id + 2]),
        ];
        computation(n, name, instructions)
    }

    /// Returns `others` and the entry computation, which adds two arrays of `n` elements.
    pub fn add_computation(n: i64, others: &[Computation]) -> Vec<Computation> {
        others.iter().cloned().chain([sum(1, "main", &[n])]).collect()
    }

    /// Serializes a module whose entry is the last computation. The output aliases the parameter `donated`.
    pub fn module(name: &str, computations: Vec<Computation>, donated: Option<i64>) -> Vec<u8> {
        let entry = computations.last().cloned().unwrap_or_default();
        let may_alias = 1;
        Module {
            name: name.to_owned(),
            entry_computation_name: entry.name,
            host_program_shape: entry.program_shape,
            entry_computation_id: entry.id,
            id: 1,
            computations,
            input_output_alias: donated
                .map(|parameter_number| Alias { entries: vec![AliasEntry { parameter_number, kind: may_alias }] }),
        }
        .encode_to_vec()
    }

    pub fn add(n: i64) -> Vec<u8> {
        module("add", add_computation(n, &[]), None)
    }

    /// Sums an array of `n` elements over replicas.
    pub fn all_reduce(n: i64) -> Vec<u8> {
        let mut all_reduce = instruction(102, "all-reduce", f32(&[n]), &[101]);
        all_reduce.called_computation_ids = vec![2];
        let entry = computation(1, "main", vec![instruction(101, "parameter", f32(&[n]), &[]), all_reduce]);
        module("all_reduce", vec![sum(2, "sum", &[]), entry], None)
    }

    /// Broadcasts a number to `n` elements.
    pub fn broadcast(n: i64) -> Vec<u8> {
        let instructions =
            vec![instruction(101, "parameter", f32(&[]), &[]), instruction(102, "broadcast", f32(&[n]), &[101])];
        module("broadcast", vec![computation(1, "main", instructions)], None)
    }
}
