//! The field numbers of `src/hlo/proto.rs`, compared with XLA's own: a plugin is a program that speaks protobuf, so it
//! carries the descriptor of every message it knows. A wrong number would not be an error but silently another field.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use lambert::hlo::proto::PrimitiveType;
use lambert::pjrt::{Environment, Platform};
use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};

/// `google.protobuf.FileDescriptorProto`, as far as it is read here.
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

/// The descriptor of the proto file `name` within `program`. It begins with its own name (field 1) and has no length: it
/// ends where the bytes are no more fields of a descriptor.
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
    candidates.max_by_key(|file| file.messages.len()).unwrap_or_else(|| panic!("the plugin knows no {name}"))
}

/// `(message, field)` → number, for every message however deeply nested. (Nested messages of equal name differ between
/// parents, but none that is declared here has such a namesake with fields of its names.)
fn numbers(messages: &[Descriptor], into: &mut HashMap<(String, String), i32>) {
    for message in messages {
        into.extend(message.fields.iter().map(|f| ((message.name.clone(), f.name.clone()), f.number)));
        numbers(&message.nested, into);
    }
}

/// `(message, field, number)` as written in `src/hlo/proto.rs`.
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
    assert_eq!(declared.len(), source.matches("tag = \"").count(), "a field of proto.rs was not read");
    declared
}

#[test]
fn every_field_number_is_xlas() {
    let plugins = Environment::of_process().plugin_files(Platform::Cpu);
    let plugin = plugins.first().expect("this test reads the CPU plugin: run `lambert plugin install cpu`");
    let program = fs::read(plugin).unwrap();
    let files = ["xla/service/hlo.proto", "xla/xla_data.proto"].map(|name| descriptor(&program, name));

    let mut xla = HashMap::new();
    files.iter().for_each(|file| numbers(&file.messages, &mut xla));
    let declared = declared();
    for (message, field, number) in declared {
        let theirs = xla.get(&(message.clone(), field.clone()));
        assert_eq!(theirs, Some(&number), "{message}.{field} is {number} in src/hlo/proto.rs");
    }

    let types = files[1].enums.iter().find(|e| e.name == "PrimitiveType").expect("xla_data.proto has element types");
    for value in &types.values {
        if let Some(ours) = PrimitiveType::try_from(value.number).ok().filter(|&t| t != PrimitiveType::Invalid) {
            assert_eq!(format!("{ours:?}").to_uppercase(), value.name);
        }
    }
}
