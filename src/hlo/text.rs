//! The printer of serialized modules, in XLA's HLO text notation, for readers and golden files.
//!
//! `%add.12 = f32[2,3]{1,0} add(%a.1, %b.2), metadata={op_name="encoder"}`. The text depends on the bytes alone. Modules
//! with equal text differ at most in constants of more than 16 elements and in fields that [`proto`](super::proto) does
//! not declare.

use std::collections::HashMap;
use std::fmt::{self, Display, Write};

use half::{bf16, f16};
use prost::Message;

use super::proto::*;

/// The most elements of a constant that are printed; a longer constant prints as `{...}`.
const LONGEST_CONSTANT: usize = 16;

/// Prints the bytes of an `.hlo.pb` file as HLO text. Unknown fields are ignored, and an unknown operand prints as `%?`:
/// the module is not validated.
///
/// # Errors
/// If the bytes are not a protobuf message.
pub fn text(bytes: &[u8]) -> Result<String, prost::DecodeError> {
    Ok(Module::new(&HloModuleProto::decode(bytes)?).to_string())
}

struct Module<'a> {
    proto: &'a HloModuleProto,
    instructions: HashMap<i64, &'a str>,
    computations: HashMap<i64, &'a str>,
}

impl<'a> Module<'a> {
    fn new(proto: &'a HloModuleProto) -> Self {
        let instructions = proto.computations.iter().flat_map(|c| &c.instructions).map(|i| (i.id, &*i.name)).collect();
        let computations = proto.computations.iter().map(|c| (c.id, &*c.name)).collect();
        Module { proto, instructions, computations }
    }

    fn computation(&self, f: &mut fmt::Formatter<'_>, computation: &HloComputationProto) -> fmt::Result {
        if computation.id == self.proto.entry_computation_id {
            f.write_str("ENTRY ")?;
        }
        let shape = computation.program_shape.clone().unwrap_or_default();
        let parameters = shape.parameters.iter().enumerate().map(|(i, shape)| {
            let name = shape_name(&computation.program_shape, i);
            format!("{name}: {}", Typed(shape))
        });
        let parameters: Vec<String> = parameters.collect();
        writeln!(f, "%{} ({}) -> {} {{", computation.name, parameters.join(", "), Maybe(&shape.result))?;
        for instruction in &computation.instructions {
            let root = if instruction.id == computation.root_id { "ROOT " } else { "" };
            write!(f, "  {root}%{} = {} ", instruction.name, Maybe(&instruction.shape))?;
            write!(f, "{}({})", instruction.opcode, self.arguments(instruction))?;
            self.attributes(f, instruction)?;
            writeln!(f)?;
        }
        writeln!(f, "}}")
    }

    fn arguments(&self, instruction: &HloInstructionProto) -> String {
        match (&*instruction.opcode, &instruction.literal) {
            ("parameter", _) => instruction.parameter_number.to_string(),
            (_, Some(literal)) => constant(literal),
            _ => self.names(&self.instructions, &instruction.operand_ids).join(", "),
        }
    }

    fn names(&self, known: &HashMap<i64, &'a str>, ids: &[i64]) -> Vec<String> {
        ids.iter().map(|id| format!("%{}", known.get(id).unwrap_or(&"?"))).collect()
    }

    fn attributes(&self, f: &mut fmt::Formatter<'_>, i: &HloInstructionProto) -> fmt::Result {
        match &*i.opcode {
            "iota" => write!(f, ", iota_dimension={}", Joined(&i.dimensions))?,
            "get-tuple-element" => write!(f, ", index={}", i.tuple_index)?,
            "broadcast" => write!(f, ", dimensions={}", Braced(&i.dimensions))?,
            _ if !i.dimensions.is_empty() => write!(f, ", dimensions={}", Braced(&i.dimensions))?,
            _ => {}
        }
        if !i.slice_dimensions.is_empty() {
            let ranges = i.slice_dimensions.iter().map(|d| match d.stride {
                1 => format!("[{}:{}]", d.start, d.limit),
                stride => format!("[{}:{}:{stride}]", d.start, d.limit),
            });
            write!(f, ", slice={{{}}}", ranges.collect::<Vec<_>>().join(", "))?;
        }
        if let Some(padding) = &i.padding_config {
            let edges = padding.dimensions.iter().map(|d| match d.interior_padding {
                0 => format!("{}_{}", d.edge_padding_low, d.edge_padding_high),
                interior => format!("{}_{}_{interior}", d.edge_padding_low, d.edge_padding_high),
            });
            write!(f, ", padding={}", edges.collect::<Vec<_>>().join("x"))?;
        }
        if !i.comparison_direction.is_empty() {
            write!(f, ", direction={}", i.comparison_direction)?;
        }
        if let Some(d) = &i.dot_dimension_numbers {
            if !d.lhs_batch_dimensions.is_empty() {
                write!(f, ", lhs_batch_dims={}", Braced(&d.lhs_batch_dimensions))?;
                write!(f, ", rhs_batch_dims={}", Braced(&d.rhs_batch_dimensions))?;
            }
            write!(f, ", lhs_contracting_dims={}", Braced(&d.lhs_contracting_dimensions))?;
            write!(f, ", rhs_contracting_dims={}", Braced(&d.rhs_contracting_dimensions))?;
        }
        if let Some(precision) = &i.precision_config {
            let operands = precision.operand_precision().map(precision_name);
            write!(f, ", operand_precision={{{}}}", operands.collect::<Vec<_>>().join(","))?;
        }
        if !i.dynamic_slice_sizes.is_empty() {
            write!(f, ", dynamic_slice_sizes={}", Braced(&i.dynamic_slice_sizes))?;
        }
        if let Some(d) = &i.gather_dimension_numbers {
            write!(f, ", offset_dims={}", Braced(&d.offset_dims))?;
            write!(f, ", collapsed_slice_dims={}", Braced(&d.collapsed_slice_dims))?;
            write!(f, ", start_index_map={}", Braced(&d.start_index_map))?;
            write!(f, ", index_vector_dim={}", d.index_vector_dim)?;
            write!(f, ", slice_sizes={}", Braced(&i.gather_slice_sizes))?;
        }
        if let Some(d) = &i.scatter_dimension_numbers {
            write!(f, ", update_window_dims={}", Braced(&d.update_window_dims))?;
            write!(f, ", inserted_window_dims={}", Braced(&d.inserted_window_dims))?;
            write!(f, ", scatter_dims_to_operand_dims={}", Braced(&d.scatter_dims_to_operand_dims))?;
            write!(f, ", index_vector_dim={}", d.index_vector_dim)?;
        }
        if let Some(window) = &i.window {
            write!(f, ", window={{{}}}", window_text(window))?;
        }
        if let Some(d) = &i.convolution_dimension_numbers {
            write!(f, ", dim_labels={}", dim_labels(d))?;
        }
        for (name, groups) in
            [("feature_group_count", i.feature_group_count), ("batch_group_count", i.batch_group_count)]
        {
            if groups > 1 {
                write!(f, ", {name}={groups}")?;
            }
        }
        if i.channel_id > 0 {
            write!(f, ", channel_id={}", i.channel_id)?;
        }
        let groups = i.collective_device_list.as_ref().map_or(&i.replica_groups, |list| &list.replica_groups);
        if !groups.is_empty() {
            let groups: Vec<String> = groups.iter().map(|group| Braced(&group.replica_ids).to_string()).collect();
            write!(f, ", replica_groups={{{}}}", groups.join(","))?;
        }
        if !i.custom_call_target.is_empty() {
            write!(f, ", custom_call_target={:?}", i.custom_call_target)?;
        }
        match (&*i.opcode, &*self.names(&self.computations, &i.called_computation_ids)) {
            (_, []) => {}
            ("while", [body, condition]) => write!(f, ", condition={condition}, body={body}")?,
            ("select-and-scatter", [select, scatter]) => write!(f, ", select={select}, scatter={scatter}")?,
            ("async-start", [called]) => write!(f, ", calls={called}")?,
            ("fusion", [called]) => write!(f, ", kind={}, calls={called}", i.fusion_kind)?,
            (_, called) => write!(f, ", to_apply={}", called.join(", "))?,
        }
        match &i.metadata {
            Some(OpMetadata { op_name, .. }) if !op_name.is_empty() => write!(f, ", metadata={{op_name={op_name:?}}}")?,
            _ => {}
        }
        match std::str::from_utf8(&i.backend_config) {
            Ok("") => Ok(()),
            Ok(json) if json.starts_with('{') => write!(f, ", backend_config={json}"),
            Ok(text) => write!(f, ", backend_config={text:?}"),
            Err(_) => write!(f, ", backend_config={{... {} bytes}}", i.backend_config.len()),
        }
    }
}

impl Display for Module<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HloModule {}", self.proto.name)?;
        if let Some(aliases) = &self.proto.input_output_alias {
            let entries = aliases.entries.iter().map(|entry| {
                let kind = match entry.kind() {
                    AliasKind::Undefined => "undefined-alias",
                    AliasKind::May => "may-alias",
                    AliasKind::Must => "must-alias",
                };
                let (output, parameter) = (Braced(&entry.output_shape_index), Braced(&entry.parameter_shape_index));
                format!("{output}: ({}, {parameter}, {kind})", entry.parameter_number)
            });
            write!(f, ", input_output_alias={{ {} }}", entries.collect::<Vec<_>>().join(", "))?;
        }
        writeln!(f)?;
        for computation in &self.proto.computations {
            writeln!(f)?;
            self.computation(f, computation)?;
        }
        Ok(())
    }
}

fn shape_name(program_shape: &Option<ProgramShapeProto>, parameter: usize) -> &str {
    program_shape.as_ref().and_then(|shape| shape.parameter_names.get(parameter)).map_or("?", |name| name)
}

/// Prints a shape, or `?` if it is missing.
struct Maybe<'a>(&'a Option<ShapeProto>);

impl Display for Maybe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(shape) => Typed(shape).fmt(f),
            None => f.write_char('?'),
        }
    }
}

/// Prints `f32[2,3]{1,0}`, or `(f32[], s32[4]{0})`.
struct Typed<'a>(&'a ShapeProto);

impl Display for Typed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.element_type() == PrimitiveType::Tuple {
            let elements: Vec<String> = self.0.tuple_shapes.iter().map(|s| Typed(s).to_string()).collect();
            return write!(f, "({})", elements.join(", "));
        }
        let element_type = element_type_name(self.0.element_type());
        write!(f, "{element_type}[{}]", Joined(&self.0.dimensions))?;
        match &self.0.layout {
            Some(layout) if !layout.minor_to_major.is_empty() => {
                write!(f, "{{{}{}}}", Joined(&layout.minor_to_major), Placement(layout))
            }
            _ => Ok(()),
        }
    }
}

/// Prints the tiles and the memory space of a layout, `:T(8,128)(2,1)S(1)`; nothing for a plain layout.
struct Placement<'a>(&'a LayoutProto);

impl Display for Placement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LayoutProto { tiles, memory_space, .. } = self.0;
        if tiles.is_empty() && *memory_space == 0 {
            return Ok(());
        }
        f.write_str(if tiles.is_empty() { ":" } else { ":T" })?;
        tiles.iter().try_for_each(|tile| write!(f, "({})", Joined(&tile.dimensions)))?;
        if *memory_space != 0 { write!(f, "S({memory_space})") } else { Ok(()) }
    }
}

struct Joined<'a>(&'a [i64]);

impl Display for Joined<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(|n| n.to_string()).collect();
        f.write_str(&numbers.join(","))
    }
}

struct Braced<'a>(&'a [i64]);

impl Display for Braced<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}", Joined(self.0))
    }
}

/// Prints the attributes of a window that differ from their defaults: `size=1x128 pad=0_0x127_127 rhs_reversal=0x1`.
fn window_text(window: &Window) -> String {
    let dimensions = &window.dimensions;
    let attribute = |name: &str, default: &str, value: &dyn Fn(&WindowDimension) -> String| {
        let values: Vec<String> = dimensions.iter().map(value).collect();
        values.iter().any(|value| value != default).then(|| format!("{name}={}", values.join("x")))
    };
    let attributes = [
        attribute("size", "", &|d| d.size.to_string()),
        attribute("stride", "1", &|d| d.stride.to_string()),
        attribute("pad", "0_0", &|d| format!("{}_{}", d.padding_low, d.padding_high)),
        attribute("lhs_dilate", "1", &|d| d.base_dilation.to_string()),
        attribute("rhs_dilate", "1", &|d| d.window_dilation.to_string()),
        attribute("rhs_reversal", "0", &|d| i32::from(d.window_reversal).to_string()),
    ];
    attributes.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Prints the roles of the dimensions of a convolution: `b01f_01io->b01f`.
fn dim_labels(d: &ConvolutionDimensionNumbers) -> String {
    let labels = |named: [(i64, char); 2], spatial: &[i64]| {
        let mut labels = vec!['?'; 2 + spatial.len()];
        let spatial = spatial.iter().zip("0123456789".chars()).map(|(&dimension, label)| (dimension, label));
        for (dimension, label) in named.into_iter().chain(spatial) {
            if let Some(place) = usize::try_from(dimension).ok().and_then(|dimension| labels.get_mut(dimension)) {
                *place = label;
            }
        }
        labels.into_iter().collect::<String>()
    };
    format!(
        "{}_{}->{}",
        labels([(d.input_batch_dimension, 'b'), (d.input_feature_dimension, 'f')], &d.input_spatial_dimensions),
        labels(
            [(d.kernel_input_feature_dimension, 'i'), (d.kernel_output_feature_dimension, 'o')],
            &d.kernel_spatial_dimensions
        ),
        labels([(d.output_batch_dimension, 'b'), (d.output_feature_dimension, 'f')], &d.output_spatial_dimensions),
    )
}

fn precision_name(precision: Precision) -> &'static str {
    match precision {
        Precision::Default => "default",
        Precision::High => "high",
        Precision::Highest => "highest",
    }
}

fn element_type_name(element_type: PrimitiveType) -> &'static str {
    match element_type {
        PrimitiveType::Invalid => "invalid",
        PrimitiveType::Pred => "pred",
        PrimitiveType::S8 => "s8",
        PrimitiveType::S16 => "s16",
        PrimitiveType::S32 => "s32",
        PrimitiveType::S64 => "s64",
        PrimitiveType::U8 => "u8",
        PrimitiveType::U16 => "u16",
        PrimitiveType::U32 => "u32",
        PrimitiveType::U64 => "u64",
        PrimitiveType::F16 => "f16",
        PrimitiveType::F32 => "f32",
        PrimitiveType::F64 => "f64",
        PrimitiveType::Tuple => "tuple",
        PrimitiveType::Bf16 => "bf16",
        PrimitiveType::Token => "token",
    }
}

/// Prints the elements in row-major order, without nesting by dimension.
fn constant(literal: &LiteralProto) -> String {
    fn halves<T: Display>(bytes: &[u8], from_le_bytes: impl Fn([u8; 2]) -> T) -> Vec<String> {
        bytes.as_chunks().0.iter().map(|&pair| from_le_bytes(pair).to_string()).collect()
    }
    fn each<T: ToString>(elements: &[T]) -> Vec<String> {
        elements.iter().map(T::to_string).collect()
    }
    let shape = literal.shape.clone().unwrap_or_default();
    let count = shape.dimensions.iter().fold(1, |product: usize, &d| product.saturating_mul(d as usize));
    if count > LONGEST_CONSTANT {
        return "{...}".to_string();
    }
    let elements = match shape.element_type() {
        PrimitiveType::Pred => each(&literal.preds),
        PrimitiveType::S32 => each(&literal.s32s),
        PrimitiveType::U8 => each(&literal.u8s),
        PrimitiveType::U16 => halves(&literal.u16s, u16::from_le_bytes),
        PrimitiveType::U32 => each(&literal.u32s),
        PrimitiveType::U64 => each(&literal.u64s),
        PrimitiveType::F16 => halves(&literal.f16s, f16::from_le_bytes),
        PrimitiveType::F32 => each(&literal.f32s),
        PrimitiveType::F64 => each(&literal.f64s),
        PrimitiveType::Bf16 => halves(&literal.bf16s, bf16::from_le_bytes),
        PrimitiveType::Invalid
        | PrimitiveType::S8
        | PrimitiveType::S16
        | PrimitiveType::S64
        | PrimitiveType::Tuple
        | PrimitiveType::Token => vec!["?".to_string()],
    };
    match &*elements {
        [scalar] if shape.dimensions.is_empty() => scalar.clone(),
        _ => format!("{{{}}}", elements.join(", ")),
    }
}
