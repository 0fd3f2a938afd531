//! PJRT_NamedValue: create-options passed to a plugin, and the attributes and cost properties that it returns.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_int};

use super::api::{slice, text};
use super::sys::{self, Struct};

/// The value of a create-option, an attribute or a cost property.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text.
    String(String),
    /// An integer.
    Int64(i64),
    /// A list of integers.
    Int64List(Vec<i64>),
    /// A float.
    Float(f32),
    /// A truth value.
    Bool(bool),
}

impl Value {
    /// Returns the value if it is a number.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Int64(x) => Some(*x as f64),
            Value::Float(x) => Some(f64::from(*x)),
            _ => None,
        }
    }
}

macro_rules! value_from {
    ($($rust:ty => $variant:ident),* $(,)?) => {
        $(impl From<$rust> for Value {
            fn from(value: $rust) -> Self {
                Value::$variant(value.into())
            }
        })*
    };
}
value_from!(&str => String, String => String, i64 => Int64, Vec<i64> => Int64List, f32 => Float, bool => Bool);

/// An option of a client or topology, such as `cpu_device_count = 4`. The plugin defines names and types.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateOption {
    /// The option's name.
    pub name: String,
    /// Its value.
    pub value: Value,
}

impl CreateOption {
    /// Creates an option.
    pub fn new(name: impl Into<String>, value: impl Into<Value>) -> Self {
        CreateOption { name: name.into(), value: value.into() }
    }

    /// Returns the C struct, valid while `self` is.
    pub(super) fn as_named_value(&self) -> sys::PJRT_NamedValue {
        use sys::{PJRT_NamedValue_Union as Union, named_value as kind};
        let (kind, value, value_size) = match &self.value {
            Value::String(s) => (kind::STRING, Union { string: s.as_ptr().cast() }, s.len()),
            &Value::Int64(int64) => (kind::INT64, Union { int64 }, 1),
            Value::Int64List(list) => (kind::INT64_LIST, Union { int64_list: list.as_ptr() }, list.len()),
            &Value::Float(float) => (kind::FLOAT, Union { float }, 1),
            &Value::Bool(boolean) => (kind::BOOL, Union { boolean }, 1),
        };
        sys::PJRT_NamedValue {
            name: self.name.as_ptr().cast::<c_char>(),
            name_size: self.name.len(),
            kind,
            value,
            value_size,
            ..Struct::new()
        }
    }
}

/// Reads named values owned by the plugin; values of unknown types are skipped.
///
/// # Safety
/// `values` is null or valid for `count` elements, each with its name and value alive.
pub(super) unsafe fn named_values(values: *const sys::PJRT_NamedValue, count: usize) -> BTreeMap<String, Value> {
    use sys::named_value as kind;
    // SAFETY: the caller's promise; which field of the union is alive follows from `kind`.
    unsafe {
        slice(values, count)
            .iter()
            .filter_map(|v| {
                let value = match v.kind as c_int {
                    kind::STRING => Value::String(text(v.value.string, v.value_size)),
                    kind::INT64 => Value::Int64(v.value.int64),
                    kind::INT64_LIST => Value::Int64List(slice(v.value.int64_list, v.value_size).to_vec()),
                    kind::FLOAT => Value::Float(v.value.float),
                    kind::BOOL => Value::Bool(v.value.boolean),
                    _ => return None,
                };
                Some((text(v.name, v.name_size), value))
            })
            .collect()
    }
}
