//! Runs a module written by `lambert graph` with the `xla` crate instead of lambert's own PJRT wrapper.
//!
//! The file is a serialized HloModuleProto with separate parameters and one tuple as result. Here every argument is zero,
//! which is enough to parse, compile and run the module. A real caller passes weights and batch in the parameter order
//! that the text form of the file shows.

use anyhow::{Context, bail};
use lambert::hlo::proto::{HloModuleProto, PrimitiveType, ShapeProto};
use prost::Message;
use xla::{ElementType, Literal, PjRtClient, XlaComputation};

fn main() -> anyhow::Result<()> {
    let Some(path) = std::env::args().nth(1) else {
        bail!("usage: lambert-xla-rs FILE.hlo.pb; create a file with `lambert graph RUN.toml --out graphs/dump`")
    };
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {path}"))?;
    let shape = HloModuleProto::decode(&*bytes)?.host_program_shape.with_context(|| format!("{path} has no program shape; expected a module written by `lambert graph`"))?;
    let arguments = shape.parameters.iter().map(zeros).collect::<anyhow::Result<Vec<Literal>>>()?;
    println!("{path}: {} parameters", arguments.len());

    let module = xla::HloModuleProto::from_proto_file(&path, true)?;
    let client = PjRtClient::cpu()?;
    let executable = client.compile(&XlaComputation::from_proto(&module))?;
    let outputs = executable.execute(&arguments)?;
    // Depending on the client, PJRT returns a tuple as one buffer or as one buffer for each element.
    for output in &outputs[0] {
        let literal = output.to_literal_sync()?;
        match literal.shape()? {
            xla::Shape::Tuple(_) => literal.to_tuple()?.iter().try_for_each(show)?,
            _ => show(&literal)?,
        }
    }
    Ok(())
}

fn show(literal: &Literal) -> anyhow::Result<()> {
    println!("{:?}", literal.array_shape()?);
    Ok(())
}

/// Returns a literal of `shape` whose elements are zero.
fn zeros(shape: &ShapeProto) -> anyhow::Result<Literal> {
    let element_type = match shape.element_type() {
        PrimitiveType::Pred => ElementType::Pred,
        PrimitiveType::S32 => ElementType::S32,
        PrimitiveType::U8 => ElementType::U8,
        PrimitiveType::U16 => ElementType::U16,
        PrimitiveType::U32 => ElementType::U32,
        PrimitiveType::U64 => ElementType::U64,
        PrimitiveType::F16 => ElementType::F16,
        PrimitiveType::F32 => ElementType::F32,
        PrimitiveType::F64 => ElementType::F64,
        PrimitiveType::Bf16 => ElementType::Bf16,
        PrimitiveType::Invalid | PrimitiveType::Tuple => bail!("a parameter must be an array, got a tuple or an unknown element type"),
    };
    let dims: Vec<usize> = shape.dimensions.iter().map(|&d| d as usize).collect();
    let bytes = vec![0; dims.iter().product::<usize>() * element_type.element_size_in_bytes()];
    Ok(Literal::create_from_shape_and_untyped_data(element_type, &dims, &bytes)?)
}
