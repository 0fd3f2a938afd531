//! [`Composite`]: a computation that is one node, because it has a derivative of its own, or a device runs it as one kernel.

use std::sync::Arc;

use super::{Computation, Graph, Op, ShapeError, Tensor, ValueShape};
use crate::shape::Shape;

/// The attributes of [`Op::Composite`].
///
/// The result is the array that the definition computes, or the tuple of several. The last `residuals` results are for the
/// derivative alone; nothing else may depend on them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Composite {
    /// Operands → results, to be computed where no kernel is.
    pub definition: Arc<Computation>,
    /// The number of results that only the derivative reads.
    pub residuals: usize,
    /// (operands, results, cotangents of the results that are not residuals) → cotangents of the first operands. The other
    /// operands have none.
    pub derivative: Option<Arc<Composite>>,
    /// The kernel that computes the definition, up to rounding, on the device that the graph is built for.
    pub kernel: Option<CustomCall>,
}

/// A computation that is not HLO's, but of the plugin: HLO's custom call. Arrays are in row-major order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CustomCall {
    /// The name that the plugin knows it by.
    pub target: String,
    /// Its settings, in the syntax of the target.
    pub backend_config: String,
}

impl Composite {
    /// Returns the shape of the result for operands of the shapes `inputs`.
    ///
    /// # Errors
    /// If these are not the shapes of the definition's parameters.
    pub(super) fn result_shape(&self, inputs: &[&Shape]) -> Result<ValueShape, ShapeError> {
        let required = self.definition.parameter_shapes();
        if inputs != required {
            let list =
                |shapes: &[&Shape]| shapes.iter().map(|shape| shape.to_string()).collect::<Vec<_>>().join(" and ");
            let op = Op::Composite(self.clone()).name();
            let requires = format!("operands of the shapes {} ({})", list(&required), self.definition.name);
            return Err(ShapeError { op, requires, got: list(inputs) });
        }
        let results = self.definition.output_shapes();
        Ok(match results.as_slice() {
            &[only] => ValueShape::Array(only.clone()),
            several => ValueShape::Tuple(several.iter().map(|&shape| shape.clone()).collect()),
        })
    }
}

impl Graph {
    /// Appends [`Op::Composite`] and returns its results.
    #[track_caller]
    pub fn composite<'g>(&'g self, composite: &Composite, operands: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
        let result = self.add(Op::Composite(composite.clone()), operands);
        match composite.definition.outputs.len() {
            1 => vec![result],
            count => self.elements(result, count),
        }
    }
}
