//! Compares the field numbers of `src/hlo/proto.rs` with XLA's descriptors, which are embedded in every plugin. A wrong
//! number would not be an error but silently another field.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use lambert::hlo::proto::PrimitiveType;
use lambert::pjrt::{Environment, Platform};
use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};

/// The fields of `google.protobuf.FileDescriptorProto` that are read here.
#[derive(Clone, PartialEq, Message)]
struct FileDescriptor {
    #[prost(message, repeated, tag = "4")]
    messages: Vec<Descriptor>,
    #[prost(message, repeated, tag = "5")]
    enums: Vec<EnumDescriptor>,
}

#[derive(Clone, PartialEq, Message)]
struct Descriptor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    fields: Vec<Numbered>,
    #[prost(message, repeated, tag = "3")]
    nested: Vec<Descriptor>,
}

#[derive(Clone, PartialEq, Message)]
struct Numbered {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "3")]
    number: i32,
}

#[derive(Clone, PartialEq, Message)]
struct EnumDescriptor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    values: Vec<EnumValue>,
}

#[derive(Clone, PartialEq, Message)]
struct EnumValue {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "2")]
    number: i32,
}

/// Finds the descriptor of the proto file `name` in `program`. It begins with its own name (field 1) and has no length: it
/// ends where the bytes are not a field of a descriptor.
fn descriptor(program: &[u8], name: &str) -> FileDescriptor {
    let opening = [&[0x0a, name.len() as u8], name.as_bytes()].concat();
    let found = program.windows(opening.len()).enumerate().filter(|(_, window)| *window == opening);
    let ends = |start: usize| {
        let mut rest = &program[start..];
        let mut end = start;
        while let Ok((tag, wire_type)) = decode_key(&mut rest) {
            let again = tag == 1 && end > start;
            if tag > 14 || again || skip_field(wire_type, tag, &mut rest, DecodeContext::default()).is_err() {
                break;
            }
            end = program.len() - rest.len();
        }
        end
    };
    let candidates = found.filter_map(|(start, _)| FileDescriptor::decode(&program[start..ends(start)]).ok());
    candidates
        .max_by_key(|file| file.messages.len())
        .unwrap_or_else(|| panic!("the plugin has no descriptor of {name}"))
}

/// Collects `(message, field)` → number of all messages, at every level of nesting. (Nested messages with equal names in
/// different parents do not occur among the messages that are declared here.)
fn numbers(messages: &[Descriptor], into: &mut HashMap<(String, String), i32>) {
    for message in messages {
        into.extend(message.fields.iter().map(|f| ((message.name.clone(), f.name.clone()), f.number)));
        numbers(&message.nested, into);
    }
}

/// Parses `(message, field, number)` from `src/hlo/proto.rs`.
fn declared() -> Vec<(String, String, i32)> {
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/hlo/proto.rs")).unwrap();
    let (mut message, mut number) = (String::new(), None);
    let mut declared = Vec::new();
    for line in source.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("pub struct ") {
            message = name.trim_end_matches(" {").to_string();
        } else if let Some((_, tag)) = line.split_once("tag = \"") {
            number = tag.split('"').next().and_then(|tag| tag.parse().ok());
        } else if let (Some(field), Some(number)) = (line.strip_prefix("pub "), number.take()) {
            declared.push((message.clone(), field.split(':').next().unwrap().to_string(), number));
        }
    }
    assert_eq!(declared.len(), source.matches("tag = \"").count(), "a field of proto.rs was not parsed");
    declared
}

#[test]
fn field_numbers_are_those_of_xla() {
    let plugins = Environment::of_process().plugin_files(Platform::Cpu);
    let plugin = plugins.first().expect("this test requires the CPU plugin: run `lambert plugin install cpu`");
    let program = fs::read(plugin).unwrap();
    let files = ["xla/service/hlo.proto", "xla/xla_data.proto", "xla/xla.proto"].map(|name| descriptor(&program, name));

    let mut xla = HashMap::new();
    files.iter().for_each(|file| numbers(&file.messages, &mut xla));
    let declared = declared();
    for (message, field, number) in declared {
        let number_in_xla = xla.get(&(message.clone(), field.clone()));
        assert_eq!(number_in_xla, Some(&number), "{message}.{field} is {number} in src/hlo/proto.rs");
    }

    let types =
        files[1].enums.iter().find(|e| e.name == "PrimitiveType").expect("xla_data.proto declares the element types");
    for value in &types.values {
        if let Some(declared) = PrimitiveType::try_from(value.number).ok().filter(|&t| t != PrimitiveType::Invalid) {
            assert_eq!(format!("{declared:?}").to_uppercase(), value.name);
        }
    }
}
