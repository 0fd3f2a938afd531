"""The arguments of the training-step benchmarks in PyTorch and JAX, which are those of `lambert bench`, and their report."""

import argparse
import json
import resource
import statistics
from collections.abc import Callable

# Layers and hidden size of each model. A head has 64 dimensions, and the feed-forward layer has 4 times the hidden size.
MODELS = {
    "tiny": (2, 128), "mini": (4, 256), "small": (4, 512), "medium": (8, 512), "base": (12, 768), "large": (24, 1024),
}


def bench_arguments(description: str, options: Callable[[argparse.ArgumentParser], object]) -> argparse.Namespace:
    """Parses the command line, to which `options` adds those of one program; adds `layers`, `hidden_size` and the default of
    `max_predictions_per_seq`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--model", choices=MODELS, default="base", help="model (default: %(default)s)")
    add("--sequence-length", type=int, default=128, help="tokens of a row (default: %(default)s)")
    add("--max-predictions-per-seq", type=int, help="masked positions of a row (default: 15.6 %% of the sequence length)")
    add("--micro-batch-size", type=int, default=8, help="rows of the batch (default: %(default)s)")
    add("--precision", choices=["f32", "bf16"], default="f32", help="precision of the step (default: %(default)s)")
    add("--vocab-size", type=int, default=30522, help="tokens in the vocabulary (default: %(default)s)")
    add("--dropout", type=float, default=0.1, help="dropout probability (default: %(default)s)")
    add("--steps", type=int, default=5, help="measured steps, after two warm-up steps (default: %(default)s)")
    add("--platform", choices=["cpu", "cuda"], default="cpu", help="device of the step (default: %(default)s)")
    add("--json", action="store_true", help="print one JSON object instead of text")
    options(parser)
    arguments = parser.parse_args()
    arguments.layers, arguments.hidden_size = MODELS[arguments.model]
    if arguments.max_predictions_per_seq is None:
        arguments.max_predictions_per_seq = max(arguments.sequence_length * 5 // 32, 1)
    return arguments


def report(arguments: argparse.Namespace, program: str, seconds: list[float], **more) -> None:
    """Prints the result of the measured steps, which take `seconds`: `more` has the loss, and what only one program knows."""
    median, shortest, longest = statistics.median(seconds), min(seconds), max(seconds)
    if arguments.json:
        print(json.dumps({
            "program": program, "precision": arguments.precision, "sequences_per_second": arguments.micro_batch_size / median,
            "seconds_per_step": median, "host_peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, **more,
        }))
        return
    compiled = f", compiled in {more['compile_seconds']:.0f} s" if "compile_seconds" in more else ""
    print(f"{program} {arguments.precision}: {arguments.micro_batch_size / median:.2f} sequences/s, median of {len(seconds)} steps"
          f" ({median:.3f} s a step, from {shortest:.3f} to {longest:.3f}), loss {more['loss']:.3f}{compiled}")
