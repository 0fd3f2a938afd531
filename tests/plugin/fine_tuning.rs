//! The fine-tuning tasks on the CPU plugin against transformers: logits, and the losses of twenty AdamW steps.

use crate::common::cpu;
use crate::common::fine_tuning::fixture;
use lambert::task::Precision;

#[test]
fn outputs_on_the_plugin_equal_those_of_transformers() {
    fixture().assert_outputs(&cpu(1), Precision::F32, 1e-5);
}

#[test]
fn losses_of_twenty_adamw_steps_equal_those_of_transformers() {
    fixture().assert_losses(&cpu(1), Precision::F32, 20, 1e-4);
}
