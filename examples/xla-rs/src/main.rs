//! Runs a module that `lambert graph` wrote, with the `xla` crate in place of lambert's own runtime.
//!
//! There is nothing of lambert's in the file: it is a serialized HloModuleProto with separate parameters and one tuple
//! as result. Here every argument is zero, which is enough to see the module parse, compile and run; a real caller
//! passes its weights and its batch in the order that the file's text form lists.

use anyhow::{Context, bail};
use lambert::hlo::proto::{HloModuleProto, PrimitiveType, ShapeProto};
use prost::Message;
use xla::{ElementType, Literal, PjRtClient, XlaComputation};

fn main() -> anyhow::Result<()> {
    let Some(path) = std::env::args().nth(1) else {
        bail!("requires the path of an .hlo.pb file: `lambert graph RUN.toml --out graphs/dump` writes some")
    };
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {path}"))?;
    let shape = HloModuleProto::decode(&*bytes)?.host_program_shape.with_context(|| format!("{path} has no entry"))?;
    let arguments = shape.parameters.iter().map(zeros).collect::<anyhow::Result<Vec<Literal>>>()?;
    println!("{path}: {} parameters", arguments.len());

    let module = xla::HloModuleProto::from_proto_file(&path, true)?;
    let client = PjRtClient::cpu()?;
    let executable = client.compile(&XlaComputation::from_proto(&module))?;
    let outputs = executable.execute(&arguments)?;
    // PJRT hands a tuple over as one buffer or as one for each element, as the client is configured.
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

/// An argument of `shape` whose elements are all zero.
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
        PrimitiveType::Invalid | PrimitiveType::Tuple => bail!("a parameter must be an array, got {shape:?}"),
    };
    let dims: Vec<usize> = shape.dimensions.iter().map(|&d| d as usize).collect();
    let bytes = vec![0; dims.iter().product::<usize>() * element_type.element_size_in_bytes()];
    Ok(Literal::create_from_shape_and_untyped_data(element_type, &dims, &bytes)?)
}
