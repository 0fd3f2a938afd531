#!/usr/bin/env python3
"""Times one BERT training step in JAX, for comparison with `lambert bench`.

    scripts/bench/jax_bert.py --model base --sequence-length 128 --micro-batch-size 8 --precision bf16

Measures the same work as `lambert bench`: forward, backward and LAMB as one jitted function with donated weights, on one
synthetic batch, with the MLM head on the masked positions only. bf16 means bf16 inputs of matrix multiplications with f32
accumulation; everything else is f32. XLA_FLAGS sets XLA's flags. Needs jax.
"""

import time

import jax
import jax.numpy as jnp
from bench_arguments import bench_arguments, report

ARGS = bench_arguments(__doc__, lambda parser: parser.add_argument(
    "--attention", choices=["composed", "fused"], default="composed",
    help="fused: jax.nn.dot_product_attention, with cuDNN on cuda; it has no dropout of attention (default: %(default)s)",
))
jax.config.update("jax_platforms", ARGS.platform)
DTYPE = jnp.bfloat16 if ARGS.precision == "bf16" else jnp.float32
HEADS = ARGS.hidden_size // 64


def initial(key):
    h, layers = ARGS.hidden_size, ARGS.layers
    keys = iter(jax.random.split(key, 8 + 6 * layers))
    normal = lambda *shape: 0.02 * jax.random.normal(next(keys), shape)
    linear = lambda i, o: {"w": normal(i, o), "b": jnp.zeros(o)}
    norm = lambda: {"g": jnp.ones(h), "b": jnp.zeros(h)}
    layer = lambda: {
        "q": linear(h, h), "k": linear(h, h), "v": linear(h, h), "o": linear(h, h), "n1": norm(),
        "up": linear(h, 4 * h), "down": linear(4 * h, h), "n2": norm(),
    }
    return {
        "word": normal(ARGS.vocab_size, h), "position": normal(512, h), "type": normal(2, h), "norm": norm(),
        "layers": [layer() for _ in range(layers)],
        "pool": linear(h, h), "mlm": linear(h, h), "mlm_norm": norm(), "mlm_bias": jnp.zeros(ARGS.vocab_size),
        "nsp": linear(h, 2),
    }


def dot(x, w):
    return jnp.matmul(x.astype(DTYPE), w.astype(DTYPE), preferred_element_type=jnp.float32)


def linear(p, x):
    return dot(x, p["w"]) + p["b"]


def norm(p, x):
    mean = x.mean(-1, keepdims=True)
    variance = jnp.square(x - mean).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-12) * p["g"] + p["b"]


def dropout(key, x):
    if ARGS.dropout == 0:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - ARGS.dropout, x.shape), x / (1 - ARGS.dropout), 0)


def composed_attention(q, k, v, mask, key):
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
    scores = dot(q, k.swapaxes(-1, -2)) / q.shape[-1] ** 0.5 + mask
    return dot(dropout(key, jax.nn.softmax(scores)), v).transpose(0, 2, 1, 3)


def fused_attention(q, k, v, mask, key):
    implementation = "cudnn" if ARGS.platform == "cuda" else "xla"
    # Lengths instead of an additive mask, which cuDNN would need in full, with its gradient.
    lengths = (mask[:, 0, 0, :] == 0).sum(-1).astype(jnp.int32)
    return jax.nn.dot_product_attention(
        *(x.astype(DTYPE) for x in (q, k, v)), query_seq_lengths=lengths, key_value_seq_lengths=lengths,
        implementation=implementation,
    )


def encoder_layer(p, x, mask, key):
    b, s, h = x.shape
    keys = jax.random.split(key, 3)
    attention = fused_attention if ARGS.attention == "fused" else composed_attention
    context = attention(*(linear(p[name], x).reshape(b, s, HEADS, h // HEADS) for name in "qkv"), mask, keys[0])
    context = context.reshape(b, s, h)
    x = norm(p["n1"], x + dropout(keys[1], linear(p["o"], context)))
    inner = jax.nn.gelu(linear(p["up"], x), approximate=False)
    return norm(p["n2"], x + dropout(keys[2], linear(p["down"], inner)))


def loss(p, batch, key):
    ids, types, mask, positions, targets, labels = batch
    keys = jax.random.split(key, ARGS.layers + 1)
    x = p["word"][ids] + p["position"][: ids.shape[1]] + p["type"][types]
    x = dropout(keys[-1], norm(p["norm"], x))
    mask = (1.0 - mask)[:, None, None, :] * -1e9
    for layer, key in zip(p["layers"], keys):
        x = encoder_layer(layer, x, mask, key)
    picked = jnp.take_along_axis(x, positions[..., None], axis=1)
    picked = norm(p["mlm_norm"], jax.nn.gelu(linear(p["mlm"], picked), approximate=False))
    mlm = jax.nn.log_softmax(dot(picked, p["word"].T) + p["mlm_bias"])
    nsp = jax.nn.log_softmax(linear(p["nsp"], jnp.tanh(linear(p["pool"], x[:, 0]))))
    mean = lambda logits, at: -jnp.take_along_axis(logits, at[..., None], axis=-1).mean()
    return mean(mlm, targets) + mean(nsp, labels)


def lamb(p, g, m, v, step, rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-6, decay=0.01):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    update = m / (1 - beta1**step) / (jnp.sqrt(v / (1 - beta2**step)) + epsilon) + decay * p
    weight, size = jnp.linalg.norm(p), jnp.linalg.norm(update)
    ratio = jnp.where((weight > 0) & (size > 0), weight / size, 1.0)
    return p - rate * ratio * update, m, v


def train_step(p, m, v, batch, step):
    value, g = jax.value_and_grad(loss)(p, batch, jax.random.fold_in(jax.random.key(0), step))
    leaves, tree = jax.tree.flatten(p)
    columns = zip(leaves, jax.tree.leaves(g), jax.tree.leaves(m), jax.tree.leaves(v))
    new = [lamb(*column, step.astype(jnp.float32)) for column in columns]
    return *(tree.unflatten(column) for column in zip(*new)), value


def main():
    key = jax.random.split(jax.random.key(1), 6)
    rows, length, predictions = ARGS.micro_batch_size, ARGS.sequence_length, ARGS.max_predictions_per_seq
    p = initial(key[0])
    m, v = (jax.tree.map(jnp.zeros_like, p) for _ in range(2))
    batch = (
        jax.random.randint(key[1], (rows, length), 5, ARGS.vocab_size),
        jnp.broadcast_to((jnp.arange(length) >= length // 2).astype(jnp.int32), (rows, length)),
        jnp.ones((rows, length)),
        jnp.sort(jax.random.randint(key[2], (rows, predictions), 1, length), axis=1),
        jax.random.randint(key[3], (rows, predictions), 5, ARGS.vocab_size),
        jax.random.randint(key[4], (rows,), 0, 2),
    )
    begin = time.perf_counter()
    step = jax.jit(train_step, donate_argnums=(0, 1, 2)).lower(p, m, v, batch, jnp.int32(1)).compile()
    compiled = time.perf_counter() - begin
    seconds = []
    for number in range(1, ARGS.steps + 3):  # two steps warm up
        begin = time.perf_counter()
        p, m, v, value = step(p, m, v, batch, jnp.int32(number))
        value = float(value)
        seconds.append(time.perf_counter() - begin)
    stats = jax.devices()[0].memory_stats() or {}
    report(ARGS, f"JAX {jax.__version__}", seconds[2:], loss=value, compile_seconds=compiled,
           device_peak_bytes=stats.get("peak_bytes_in_use"))


if __name__ == "__main__":
    main()
