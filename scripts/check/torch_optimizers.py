#!/usr/bin/env python3
"""Compares tests/fixtures/torch_optimizers.json with the trajectories of torch's optimizers, or writes it.

    torch_optimizers.py            exit code 1 if a weight differs by more than 1e-12 from the file
    torch_optimizers.py --write    write the file

The file holds a few small tensors, their gradients at each step, and for each optimizer its settings in the
syntax of a run file and the weights after each step, in f64. tests/it/optimizers.rs compares the update rules with it. Needs
any version of torch; the file names the version that wrote it.
"""

import argparse
import json
import math
import pathlib
import sys

import torch

FILE = pathlib.Path(__file__).resolve().parents[2] / "tests/fixtures/torch_optimizers.json"
TENSORS = {"a.dense.weight": 6, "a.dense.bias": 3, "a.LayerNorm.weight": 2, "b.dense.bias": 2}
STEPS = 6
RATE = 0.05
TOLERANCE = 1e-12


def decays(name):
    """Whether weight decay applies: lambert's default exclusions."""
    return not (name.endswith(".bias") or "LayerNorm" in name)


def sgd(decay, **options):
    """torch.optim.SGD with two parameter groups, the first with weight decay."""
    return lambda decayed, others: torch.optim.SGD(
        [{"params": decayed, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}], lr=RATE, **options
    )


def adamw(decay, **options):
    """torch.optim.AdamW, likewise."""
    return lambda decayed, others: torch.optim.AdamW(
        [{"params": decayed, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}], lr=RATE, **options
    )


# Settings, the optimizer, the global norm to clip to, and λ where it is decoupled (torch.optim.SGD has no such mode:
# the weights are multiplied by 1 − η·λ before its step, as torch.optim.AdamW does).
CASES = [
    ("kind = 'sgd'\nmomentum = 0\nweight_decay = 0", sgd(0.0), None, None),
    ("kind = 'sgd'\nmomentum = 0\nweight_decay = 0.1", sgd(0.1), None, None),
    ("kind = 'sgd'\nweight_decay = 0.1", sgd(0.1, momentum=0.9), None, None),
    ("kind = 'sgd'\ndampening = 0.3\nweight_decay = 0.1", sgd(0.1, momentum=0.9, dampening=0.3), None, None),
    ("kind = 'sgd'\nnesterov = true\nweight_decay = 0.1", sgd(0.1, momentum=0.9, nesterov=True), None, None),
    (
        "kind = 'sgd'\nnesterov = true\nweight_decay = 0.1\nweight_decay_mode = 'decoupled'",
        sgd(0.0, momentum=0.9, nesterov=True),
        None,
        0.1,
    ),
    (
        "kind = 'sgd'\nmomentum = 0.8\nweight_decay = 0.1\n"
        "gradient_clip = { global_norm = { max = 1.0, formula = 'distributed_fused_lamb' } }",
        sgd(0.1, momentum=0.8),
        1.0,
        None,
    ),
    ("kind = 'adamw'\nweight_decay = 0.1\nepsilon = 1e-8", adamw(0.1, betas=(0.9, 0.999), eps=1e-8), None, None),
]


def initial():
    """The weights before the first step; the last tensor is zero."""
    value = lambda i, k: 0.0 if i == 3 else math.sin(1.3 * (7 * i + k) + 0.4) * (1 + i)
    return [[value(i, k) for k in range(size)] for i, size in enumerate(TENSORS.values())]


def gradients(step):
    """Gradients whose global norm is below 1 at some steps and above 1 at others."""
    size = [0.02, 3.0, 0.4, 0.1, 1.7, 0.6][step]
    value = lambda i, k: size * math.cos(0.9 * (11 * i + 5 * k + 3 * step) + 1.1)
    return [[value(i, k) for k in range(count)] for i, count in enumerate(TENSORS.values())]


def trajectory(make, clip, decoupled):
    """The weights after each step."""
    weights = [torch.tensor(w, dtype=torch.float64, requires_grad=True) for w in initial()]
    named = list(zip(TENSORS, weights))
    optimizer = make([w for name, w in named if decays(name)], [w for name, w in named if not decays(name)])
    after = []
    for step in range(STEPS):
        for w, g in zip(weights, gradients(step)):
            w.grad = torch.tensor(g, dtype=torch.float64)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(weights, clip)
        if decoupled is not None:
            with torch.no_grad():
                for name, w in named:
                    if decays(name):
                        w.mul_(1.0 - RATE * decoupled)
        optimizer.step()
        after.append([w.detach().tolist() for w in weights])
    return after


def laid_out(value, depth=0):
    """JSON with one tensor a line."""
    is_table = isinstance(value, dict)
    if not is_table and not (isinstance(value, list) and isinstance(value[0], (dict, list))):
        return json.dumps(value)
    if is_table:
        items = [f"{json.dumps(key)}: {laid_out(item, depth + 1)}" for key, item in value.items()]
    else:
        items = [laid_out(item, depth + 1) for item in value]
    pad = "\n" + " " * (depth + 1)
    left, right = "{}" if is_table else "[]"
    return left + pad + ("," + pad).join(items) + "\n" + " " * depth + right


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the file")
    write = parser.parse_args().write
    found = {
        "torch": torch.__version__,
        "names": list(TENSORS),
        "learning_rate": RATE,
        "weights": initial(),
        "gradients": [gradients(step) for step in range(STEPS)],
        "cases": [{"settings": settings, "weights": trajectory(*rest)} for settings, *rest in CASES],
    }
    if write:
        FILE.write_text(laid_out(found) + "\n")
        return 0
    stored = json.loads(FILE.read_text())
    worst = 0.0
    for ours, theirs in zip(stored["cases"], found["cases"], strict=True):
        if ours["settings"] != theirs["settings"]:
            sys.exit(f"{FILE}: cases differ; write it with --write")
        a, b = ([x for step in case["weights"] for w in step for x in w] for case in (ours, theirs))
        worst = max([worst, *(abs(x - y) for x, y in zip(a, b, strict=True))])
    print(f"torch {torch.__version__}: largest difference {worst:.1e} in {len(CASES)} cases")
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
