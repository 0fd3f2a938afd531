//! The protocol buffer messages of an event file, with the fields that lambert writes.
//!
//! Sources of the field numbers: tensorflow/tensorflow `core/util/event.proto`, `core/framework/summary.proto`, `tensor.proto`
//! and `tensor_shape.proto`; tensorflow/tensorboard `plugins/hparams/plugin_data.proto`; protobuf `struct.proto`.

use std::collections::BTreeMap;

use prost::{Message, Oneof};

/// One record: `tensorflow.Event`.
#[derive(Clone, PartialEq, Message)]
pub struct Event {
    #[prost(double, tag = "1")]
    pub wall_time: f64,
    #[prost(int64, tag = "2")]
    pub step: i64,
    #[prost(oneof = "Content", tags = "3, 5, 7")]
    pub content: Option<Content>,
}

/// The content of an event.
#[derive(Clone, PartialEq, Oneof)]
pub enum Content {
    /// The first record of every file: `brain.Event:2`.
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
pub struct Summary {
    #[prost(message, repeated, tag = "1")]
    pub value: Vec<Value>,
}

/// One value of a summary: `tensorflow.Summary.Value`.
#[derive(Clone, PartialEq, Message)]
pub struct Value {
    #[prost(string, tag = "1")]
    pub tag: String,
    // Optional, because proto3 does not write a plain field that is zero, but a loss may be zero.
    #[prost(float, optional, tag = "2")]
    pub simple_value: Option<f32>,
    #[prost(message, optional, tag = "8")]
    pub tensor: Option<Tensor>,
    /// TensorBoard reads only that of the first value of each tag.
    #[prost(message, optional, tag = "9")]
    pub metadata: Option<Metadata>,
}

/// `tensorflow.SummaryMetadata`.
#[derive(Clone, PartialEq, Message)]
pub struct Metadata {
    #[prost(message, optional, tag = "1")]
    pub plugin_data: Option<PluginData>,
    /// Markdown, shown beside the plot.
    #[prost(string, tag = "3")]
    pub summary_description: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct PluginData {
    #[prost(string, tag = "1")]
    pub plugin_name: String,
    #[prost(bytes = "vec", tag = "2")]
    pub content: Vec<u8>,
}

/// A tensor without content, which values of plugins require: `tensorflow.TensorProto` of type float and shape \[1\].
#[derive(Clone, PartialEq, Message)]
pub struct Tensor {
    /// 1 is `DT_FLOAT`.
    #[prost(int32, tag = "1")]
    pub dtype: i32,
    #[prost(message, optional, tag = "2")]
    pub tensor_shape: Option<TensorShape>,
    #[prost(float, repeated, tag = "5")]
    pub float_val: Vec<f32>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TensorShape {
    #[prost(message, repeated, tag = "2")]
    pub dim: Vec<Dim>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Dim {
    #[prost(int64, tag = "1")]
    pub size: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct SessionLog {
    /// 1 is START: TensorBoard discards earlier points from this step on.
    #[prost(int32, tag = "1")]
    pub status: i32,
}

/// The content of a value of the plugin `hparams`: `tensorboard.hparams.HParamsPluginData`, version 0.
#[derive(Clone, PartialEq, Message)]
pub struct HParams {
    #[prost(oneof = "Session", tags = "3, 4")]
    pub session: Option<Session>,
}

/// The start or the end of a run.
#[derive(Clone, PartialEq, Oneof)]
pub enum Session {
    #[prost(message, tag = "3")]
    Start(SessionStart),
    #[prost(message, tag = "4")]
    End(SessionEnd),
}

#[derive(Clone, PartialEq, Message)]
pub struct SessionStart {
    #[prost(btree_map = "string, message", tag = "1")]
    pub hparams: BTreeMap<String, HParam>,
    #[prost(double, tag = "5")]
    pub start_time_secs: f64,
}

/// `google.protobuf.Value`.
#[derive(Clone, PartialEq, Message)]
pub struct HParam {
    #[prost(oneof = "HParamKind", tags = "2, 3, 4")]
    pub kind: Option<HParamKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum HParamKind {
    #[prost(double, tag = "2")]
    Number(f64),
    #[prost(string, tag = "3")]
    Text(String),
    #[prost(bool, tag = "4")]
    Bool(bool),
}

#[derive(Clone, PartialEq, Message)]
pub struct SessionEnd {
    /// 1 is `STATUS_SUCCESS`.
    #[prost(int32, tag = "1")]
    pub status: i32,
    #[prost(double, tag = "2")]
    pub end_time_secs: f64,
}
