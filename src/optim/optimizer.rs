//! An optimizer bound to the tensors that it updates: clips the gradients, runs the update rule on each tensor, and
//! computes the norms of all tensors together.

use super::stages::{Placement, global_norm};
use super::{OptimizerConfig, OptimizerError, Param, PartialUpdate, Treatment, UpdateScalars};
use crate::graph::Tensor;

/// A configuration bound to the tensors that it updates.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    config: OptimizerConfig,
    treatments: Vec<Treatment>,
}

/// The new values of all tensors; lists are in the order of the names.
pub struct Update<'g> {
    /// The weights after the update.
    pub weights: Vec<Tensor<'g>>,
    /// The optimizer state of each tensor after the update, each in the order of [`OptimizerConfig::state_names`].
    pub state: Vec<Vec<Tensor<'g>>>,
    /// A scalar for each tensor; 1 where no ratio applies. Of the two ratios of LANS, the momentum's.
    pub trust_ratios: Vec<Tensor<'g>>,
    /// The norm of each gradient, before clipping.
    pub gradient_norms: Vec<Tensor<'g>>,
    /// The global norm of the gradients, before clipping.
    pub gradient_norm: Tensor<'g>,
}

impl Optimizer {
    /// Binds `config` to tensors named `names`.
    ///
    /// # Errors
    /// If a setting is out of range or a pattern matches no name.
    pub fn new(config: &OptimizerConfig, names: &[&str]) -> Result<Self, OptimizerError> {
        config.validate()?;
        Ok(Optimizer { config: config.clone(), treatments: config.rule().treatments(names)? })
    }

    /// Returns the configuration.
    pub fn config(&self) -> &OptimizerConfig {
        &self.config
    }

    /// Returns the treatment of each tensor, in the order of the names.
    pub fn treatments(&self) -> &[Treatment] {
        &self.treatments
    }

    /// Builds one update of all tensors. `state[i]` is the optimizer state of tensor i; `scalars` has the numbers of
    /// [`OptimizerConfig::hyperparameters`].
    ///
    /// Norms are computed at two points, for all tensors together: those of the gradients, and those of weights and
    /// directions. So sharded tensors need two all-reduces, whatever their number.
    pub fn update<'g>(
        &self,
        weights: &[Tensor<'g>],
        gradients: &[Tensor<'g>],
        state: &[Vec<Tensor<'g>>],
        scalars: &UpdateScalars<'g>,
        placement: Placement,
    ) -> Update<'g> {
        let rule = self.config.rule();
        let squares = placement.squared_norms(gradients);
        let decayed: Vec<bool> = self.treatments.iter().map(|treatment| treatment.decayed).collect();
        let clipped = rule.gradient_clip().clip(scalars, gradients, &squares, &decayed);
        let partial = |(i, &treatment): (usize, &Treatment)| {
            let param = Param { weight: weights[i], gradient: clipped[i], state: state[i].clone(), treatment };
            rule.update(&param, scalars)
        };
        let partial: Vec<PartialUpdate> = self.treatments.iter().enumerate().map(partial).collect();
        let norms_of: Vec<Tensor> = partial.iter().flat_map(|tensor| tensor.norms_of.iter().copied()).collect();
        let mut norms = placement.squared_norms(&norms_of).into_iter().map(Tensor::sqrt);

        let mut update = Update {
            weights: Vec::new(),
            state: Vec::new(),
            trust_ratios: Vec::new(),
            gradient_norms: squares.iter().map(|square| square.sqrt()).collect(),
            gradient_norm: global_norm(squares),
        };
        for PartialUpdate { norms_of, finish } in partial {
            let tensor = finish(&norms.by_ref().take(norms_of.len()).collect::<Vec<_>>());
            update.weights.push(tensor.weight);
            update.state.push(tensor.state);
            update.trust_ratios.push(tensor.trust_ratio);
        }
        update
    }
}
