//! The collectives of sharded state, compiled for absent TPUs and GPUs. A compiler may make an all-reduce of an all-gather or a
//! reduce-scatter, which then sends more bytes.
//!
//! Each test needs the plugin of its platform (`lambert plugin install tpu`), and is skipped without it.

use lambert::graph::{Graph, Tensor};
use lambert::hlo::{LowerOptions, lower};
use lambert::pjrt::{Environment, Platform, PlatformChoice};
use lambert::plan::compiler::{Compiler, Purpose};
use lambert::plan::profile::collectives::{Collective, CollectiveKind};
use lambert::plan::profile::program::Program;
use lambert::plan::target::Target;
use lambert::plan::traffic::Collectives;
use lambert::shape::{DType, Shape};
use lambert::step::sharding::Shards;

/// Dimensions of a word embedding, matrices, and vectors, not all of whose shards fill whole rows.
const TENSORS: [&[usize]; 7] = [&[1000, 128], &[512, 128], &[512], &[128, 512], &[128], &[2, 128], &[2]];

/// Compiles the reduce-scatter of gradients and the all-gathers of the shards, rounded as a model reads them, for `target`;
/// returns the collectives of the compiled program and those of the graph.
fn compiled(target: &str) -> (Vec<Collective>, Collectives) {
    let target: Target = target.parse().unwrap();
    let shards = Shards { count: target.devices() };
    let graph = Graph::new("collectives");
    let shapes: Vec<Shape> = TENSORS.iter().map(|&dims| Shape::new(DType::F32, dims)).collect();
    let gradients: Vec<Tensor> = shapes.iter().map(|shape| graph.parameter("gradient", shape.clone()) * 2.0).collect();
    let sums = shards.reduce_scatter(&gradients);
    let read = |sum: &Tensor<'_>, shape: &Shape| if shape.rank() == 2 { DType::BF16 } else { sum.dtype() };
    let read: Vec<Tensor> = sums.iter().zip(&shapes).map(|(sum, shape)| sum.convert(read(sum, shape))).collect();
    let gathered = shards.all_gather(&read, &shapes).into_iter().map(|weight| weight.convert(DType::F32) * 2.0);
    let computation = graph.finish(&gathered.collect::<Vec<_>>());
    let options = LowerOptions { num_replicas: target.devices(), ..LowerOptions::default() };
    let compiler = Compiler::open(&target, &PlatformChoice::Auto, Purpose::Inspect).unwrap();
    let optimized = compiler.compile(&lower(&computation, &options).bytes).unwrap().optimized_program().unwrap();
    (Collective::of_program(&Program::decode(&optimized).unwrap(), 1.0), Collectives::of(&computation, 1))
}

/// Compiles for each of `targets`, and passes the collectives of the compiled program, the ratio of the bytes that it sends to
/// those of the graph, and the target to `check`. Without the plugin, nothing is compiled.
fn compile_for(platform: Platform, targets: &[&str], check: impl Fn(&[Collective], f64, &str)) {
    if Environment::of_process().plugin_files(platform).is_empty() {
        eprintln!("skipped: no plugin for {platform}; run `lambert plugin install {platform}`");
        return;
    }
    for target in targets {
        let (found, in_graph) = compiled(target);
        let replicas = target.parse::<Target>().unwrap().devices();
        let sent = Collectives::of_compiled(&found, replicas).sent_in_ring(replicas);
        check(&found, sent / in_graph.sent_in_ring(replicas), target);
    }
}

fn count(found: &[Collective], kind: CollectiveKind) -> usize {
    found.iter().filter(|collective| collective.kind == kind).count()
}

/// Requires the collectives of the graph: one reduce-scatter, and an all-gather for each element type.
fn kept(found: &[Collective], sent: f64, target: &str) {
    use CollectiveKind::*;
    let counts = [ReduceScatter, AllGather, AllReduce].map(|kind| count(found, kind));
    assert!(counts[0] == 1 && counts[1] >= 1 && counts[2] == 0, "{target}: {found:?}");
    assert!((sent - 1.0).abs() < 0.01, "{target} sends {sent} of the graph's bytes: {found:?}");
}

#[test]
fn tpu_compiler_keeps_the_collectives_of_slices_that_are_one_ring() {
    compile_for(Platform::Tpu, &["tpu:v5e:2x2", "tpu:v5e:2x4", "tpu:v5e:4x8", "tpu:v6e:2x4"], kept);
}

/// All-gathers of shards as small as these become all-reduces over many devices; those of BERT-Large do not.
#[test]
fn tpu_compiler_keeps_the_reduce_scatter_of_a_thousand_devices() {
    compile_for(Platform::Tpu, &["tpu:v3:16x32"], |found, _, target| {
        assert_eq!(count(found, CollectiveKind::ReduceScatter), 1, "{target}: {found:?}");
    });
}

#[test]
fn tpu_compiler_replaces_only_the_reduce_scatter_of_square_slices() {
    compile_for(Platform::Tpu, &["tpu:v3:2x2", "tpu:v5e:4x4", "tpu:v6e:4x4"], |found, sent, target| {
        use CollectiveKind::*;
        let counts = [ReduceScatter, AllReduce].map(|kind| count(found, kind));
        assert!(counts == [0, 1] && count(found, AllGather) >= 1, "{target}: {found:?}");
        assert!(
            sent > 1.0,
            "{target} sends {sent} of the graph's bytes, although an all-reduce sends twice those of a reduce-scatter"
        );
    });
}

#[test]
fn cuda_compiler_keeps_all_collectives() {
    compile_for(Platform::Cuda, &["cuda:h200:1x1x2", "cuda:h200:1x1x8"], kept);
}
