//! The hyper-parameters of an update as scalar arguments of the step, so that runs that differ in them alone share one compiled
//! program.
//!
//! Settings that change the form of the formulas stay in the graph: names, lists of patterns, absent settings, a weight decay, momentum
//! or dampening of 0, and a clip of `"none"`.

use crate::graph::Tensor;

/// The numbers in the formulas of an update by name, in the order of the arguments: hyper-parameters, and values that follow
/// from them, such as 1 − β2. The host computes those in f64, because f32 would lose digits of 1 − 0.999.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hyperparameters(Vec<(&'static str, f64)>);

impl Hyperparameters {
    /// The hyper-parameters of programs without an update.
    pub const NONE: Hyperparameters = Hyperparameters(Vec::new());

    /// Adds a number.
    pub fn add(&mut self, name: &'static str, value: f64) {
        debug_assert!(self.get(name).is_none(), "two hyper-parameters are called {name}");
        self.0.push((name, value));
    }

    /// Adds a number that formulas contain only if it is not 0.
    pub fn add_unless_zero(&mut self, name: &'static str, value: f64) {
        if value != 0.0 {
            self.add(name, value);
        }
    }

    /// Returns the names, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(name, _)| *name)
    }

    /// Returns the number called `name`.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
    }
}

impl Extend<(&'static str, f64)> for Hyperparameters {
    fn extend<T: IntoIterator<Item = (&'static str, f64)>>(&mut self, numbers: T) {
        numbers.into_iter().for_each(|(name, value)| self.add(name, value));
    }
}

impl IntoIterator for Hyperparameters {
    type Item = (&'static str, f64);
    type IntoIter = std::vec::IntoIter<(&'static str, f64)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// The scalars that an update reads, in a graph under construction. All have the element type of the weights.
pub struct UpdateScalars<'g> {
    /// The learning rate.
    pub learning_rate: Tensor<'g>,
    /// The number of the update, from 1.
    pub t: Tensor<'g>,
    hyperparameters: Vec<(&'static str, Tensor<'g>)>,
}

impl<'g> UpdateScalars<'g> {
    /// Returns the scalars of an update; `of` returns the tensor of each hyper-parameter, from its name and value: an argument of
    /// the graph, or a constant.
    pub fn new(
        learning_rate: Tensor<'g>,
        t: Tensor<'g>,
        hyperparameters: Hyperparameters,
        mut of: impl FnMut(&'static str, f64) -> Tensor<'g>,
    ) -> Self {
        let numbers = hyperparameters.into_iter();
        UpdateScalars { learning_rate, t, hyperparameters: numbers.map(|(name, x)| (name, of(name, x))).collect() }
    }

    /// Returns the scalars of an update, with constants as hyper-parameters.
    pub fn constant(learning_rate: Tensor<'g>, t: Tensor<'g>, hyperparameters: Hyperparameters) -> Self {
        let (graph, dtype) = (t.graph(), t.dtype());
        UpdateScalars::new(learning_rate, t, hyperparameters, |_, value| graph.scalar(value, dtype))
    }

    /// Returns the hyper-parameter called `name`.
    ///
    /// # Panics
    /// If the rule does not list it in [`UpdateRule::hyperparameters`](super::UpdateRule::hyperparameters), which is a bug in the
    /// rule.
    #[track_caller]
    pub fn get(&self, name: &str) -> Tensor<'g> {
        let found = self.hyperparameters.iter().find(|(own, _)| *own == name);
        found.unwrap_or_else(|| panic!("the rule does not list its hyper-parameter {name}")).1
    }
}
