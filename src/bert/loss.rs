//! Cross entropy and accuracy as *sums* over the micro-batch, never means: the denominators are those of the global batch.

use crate::graph::Tensor;

/// Appends (Σ w·nll, Σ w·\[the label has the highest logit\]) for logits `[…, C]`, labels s32`[…]` and weights w `[…]`; a tie
/// counts as highest. A label outside `0..C` requires weight 0.
pub(super) fn weighted_sums<'g>(
    logits: Tensor<'g>,
    labels: Tensor<'g>,
    weights: Tensor<'g>,
) -> (Tensor<'g>, Tensor<'g>) {
    let classes = logits.dims()[logits.dims().len() - 1];
    let n = labels.shape().elements();
    let (logits, labels, weights) = (logits.reshape(&[n, classes]), labels.reshape(&[n]), weights.reshape(&[n]));
    let nll = cross_entropy(logits, labels);
    let right = logit_of(logits, labels).ge(logits.reduce_max(&[1])).convert(weights.dtype());
    ((weights * nll).sum(), (weights * right).sum())
}

/// Appends −log softmax(x)[label] for each row of x `[N, C]` and labels s32`[N]`, without materialising the softmax: `[N]`.
fn cross_entropy<'g>(x: Tensor<'g>, labels: Tensor<'g>) -> Tensor<'g> {
    let max = x.reduce_max(&[1]).stop_gradient();
    let log_sum = (x - max.broadcast_like(x, &[0])).exp().reduce_sum(&[1]).log() + max;
    log_sum - logit_of(x, labels)
}

/// Appends x`[i, labels[i]]`: `[N]`, by comparison rather than by gather, whose derivative would be a scatter.
fn logit_of<'g>(x: Tensor<'g>, labels: Tensor<'g>) -> Tensor<'g> {
    let class = x.graph().iota(x.shape().with_dtype(labels.dtype()), 1);
    class.eq(labels.broadcast_like(class, &[0])).select(x, x.filled(0.0)).reduce_sum(&[1])
}
