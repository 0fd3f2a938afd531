#!/usr/bin/env python3
"""Compares tests/fixtures/optimizer_trajectories.json with the trajectories of other implementations, or writes it.

    optimizer_trajectories.py                  exit code 1 if a weight differs by more than 1e-12 from the file
    optimizer_trajectories.py --peers torch    compare the cases of these implementations only
    optimizer_trajectories.py --write          write the file; needs all of them

The file holds a few small tensors, their gradients at each step, and for each case the settings in the syntax of a run file and the
weights after each step, in f64, computed by torch, timm, pytorch_optimizer or optax (requirements-optimizers.txt).
tests/it/optimizers.rs compares the update rules with it.
"""

import argparse
import importlib
import importlib.metadata
import json
import math
import pathlib
import sys

FILE = pathlib.Path(__file__).resolve().parents[2] / "tests/fixtures/optimizer_trajectories.json"
TENSORS = {"a.dense.weight": 6, "a.dense.bias": 3, "a.LayerNorm.weight": 2, "b.dense.bias": 2}
PEERS = ["torch", "timm", "pytorch_optimizer", "optax"]
STEPS = 6
RATE = 0.05
TOLERANCE = 1e-12


def decays(name):
    """Whether weight decay applies: lambert's default exclusions."""
    return not (name.endswith(".bias") or "LayerNorm" in name)


def initial():
    """The weights before the first step; the last tensor is zero."""
    value = lambda i, k: 0.0 if i == 3 else math.sin(1.3 * (7 * i + k) + 0.4) * (1 + i)
    return [[value(i, k) for k in range(size)] for i, size in enumerate(TENSORS.values())]


def gradients(step):
    """Gradients whose global norm is below 1 at some steps and above 1 at others."""
    size = [0.02, 3.0, 0.4, 0.1, 1.7, 0.6][step]
    value = lambda i, k: size * math.cos(0.9 * (11 * i + 5 * k + 3 * step) + 1.1)
    return [[value(i, k) for k in range(count)] for i, count in enumerate(TENSORS.values())]


class Torch:
    """A class of torch optimizers. `decay` applies to the tensors that decay, or to all."""

    def __init__(self, module, name, decay=0.0, all_decay=False, clip=None, decoupled=None, **options):
        self.module, self.name, self.decay, self.all_decay = module, name, decay, all_decay
        self.clip, self.decoupled, self.options = clip, decoupled, options

    def trajectory(self):
        """The weights after each step. `decoupled` is a λ with which weights are multiplied by 1 − η·λ before the step, as
        torch.optim.AdamW does: torch.optim.SGD has no such mode."""
        import torch

        # NAdam keeps a product of momenta in the default type.
        torch.set_default_dtype(torch.float64)
        # Implementations tell matrices from vectors by their number of dimensions.
        shape = lambda name: (2, -1) if name == "a.dense.weight" else (-1,)
        leaf = lambda name, w: torch.tensor(w, dtype=torch.float64).reshape(shape(name)).requires_grad_()
        named = [(name, leaf(name, w)) for name, w in zip(TENSORS, initial())]
        group = lambda wanted: [w for name, w in named if (self.all_decay or decays(name)) == wanted]
        groups = [{"params": group(True), "weight_decay": self.decay}, {"params": group(False), "weight_decay": 0.0}]
        groups = [group for group in groups if group["params"]]
        optimizer = getattr(importlib.import_module(self.module), self.name)(groups, lr=RATE, **self.options)
        after = []
        for step in range(STEPS):
            for (name, w), g in zip(named, gradients(step)):
                w.grad = torch.tensor(g, dtype=torch.float64).reshape(shape(name))
            if self.clip is not None:
                torch.nn.utils.clip_grad_norm_([w for _, w in named], self.clip)
            if self.decoupled is not None:
                with torch.no_grad():
                    for name, w in named:
                        if decays(name):
                            w.mul_(1.0 - RATE * self.decoupled)
            optimizer.step()
            after.append([w.detach().reshape(-1).tolist() for _, w in named])
        return after


class Optax:
    """An optimizer of optax. `masks` are the names of options that take the tensors that decay."""

    def __init__(self, name, masks=(), **options):
        self.name, self.masks, self.options = name, masks, options

    def trajectory(self):
        """The weights after each step."""
        import jax

        jax.config.update("jax_enable_x64", True)
        import jax.numpy as jnp
        import optax

        tensors = lambda values: {name: jnp.array(value, dtype=jnp.float64) for name, value in zip(TENSORS, values)}
        mask = {name: decays(name) for name in TENSORS}
        optimizer = getattr(optax, self.name)(RATE, **self.options, **{option: mask for option in self.masks})
        weights = tensors(initial())
        state = optimizer.init(weights)
        after = []
        for step in range(STEPS):
            updates, state = optimizer.update(tensors(gradients(step)), state, weights)
            weights = optax.apply_updates(weights, updates)
            after.append([weights[name].tolist() for name in TENSORS])
        return after


def torch(name, decay=0.0, **options):
    return "torch", Torch("torch.optim", name, decay, **options)


def timm(name, decay=0.0, **options):
    return "timm", Torch("timm.optim", name, decay, **options)


def pytorch_optimizer(name, decay=0.0, **options):
    return "pytorch_optimizer", Torch("pytorch_optimizer", name, decay, all_decay=True, **options)


def optax(name, **options):
    return "optax", Optax(name, **options)


EXCLUDE = "exclude_from_weight_decay = ['*.bias', '*LayerNorm*']"
TORCH_CLIP = "gradient_clip = { global_norm = { max = 1.0, formula = 'distributed_fused_lamb' } }"

# Settings, and the optimizer that takes the same steps.
CASES = [
    ("kind = 'sgd'\nmomentum = 0\nweight_decay = 0", *torch("SGD")),
    ("kind = 'sgd'\nmomentum = 0\nweight_decay = 0.1", *torch("SGD", 0.1)),
    ("kind = 'sgd'\nweight_decay = 0.1", *torch("SGD", 0.1, momentum=0.9)),
    ("kind = 'sgd'\ndampening = 0.3\nweight_decay = 0.1", *torch("SGD", 0.1, momentum=0.9, dampening=0.3)),
    ("kind = 'sgd'\nnesterov = true\nweight_decay = 0.1", *torch("SGD", 0.1, momentum=0.9, nesterov=True)),
    (
        "kind = 'sgd'\nnesterov = true\nweight_decay = 0.1\nweight_decay_mode = 'decoupled'",
        *torch("SGD", momentum=0.9, nesterov=True, decoupled=0.1),
    ),
    (
        "kind = 'sgd'\nweight_decay = 0.1\nweight_decay_mode = 'before_update'",
        *torch("SGD", momentum=0.9, decoupled=0.1),
    ),
    (f"kind = 'sgd'\nmomentum = 0.8\nweight_decay = 0.1\n{TORCH_CLIP}", *torch("SGD", 0.1, momentum=0.8, clip=1.0)),
    ("kind = 'sgd'\npreset = 'torch'", *torch("SGD")),
    ("kind = 'sgd'\npreset = 'timm'", *torch("SGD", 2e-5, momentum=0.9, nesterov=True)),
    ("kind = 'adamw'\nweight_decay = 0.1\nepsilon = 1e-8", *torch("AdamW", 0.1, betas=(0.9, 0.999), eps=1e-8)),
    ("kind = 'adamw'\nweight_decay = 0.1\nepsilon = 1e-8\nweight_decay_mode = 'l2'", *torch("Adam", 0.1)),
    ("kind = 'adamw'\npreset = 'torch'", *torch("AdamW", 0.01, all_decay=True)),
    # momentum_decay is so large that the momentum of Nadam is β1 at every step.
    (
        "kind = 'adamw'\npreset = 'torch'\nnesterov = 'first_moment'",
        *torch("NAdam", 0.01, all_decay=True, momentum_decay=1e6, decoupled_weight_decay=True),
    ),
    # The Trainer of transformers.
    ("kind = 'adamw'\npreset = 'hugging_face'", *torch("AdamW", clip=1.0)),
    ("kind = 'adamw'\npreset = 'hugging_face'\nweight_decay = 0.1", *torch("AdamW", 0.1, clip=1.0)),
    ("kind = 'adamw'\npreset = 'optax'", *optax("adamw")),
    (
        f"kind = 'adamw'\npreset = 'optax'\nweight_decay = 0.1\n{EXCLUDE}",
        *optax("adamw", masks=["mask"], weight_decay=0.1),
    ),
    ("kind = 'adamw'\npreset = 'optax'\nnesterov = 'first_moment'", *optax("adamw", nesterov=True)),
    ("preset = 'optax'", *optax("lamb")),
    (f"preset = 'optax'\nweight_decay = 0.1\n{EXCLUDE}", *optax("lamb", masks=["mask"], weight_decay=0.1)),
    ("preset = 'apex'", *timm("Lamb", 0.01)),
    ("preset = 'apex'\nweight_decay = 0", *timm("Lamb")),
    (
        "preset = 'apex'\nbias_correction = 'none'\ngrad_averaging = false",
        *timm("Lamb", 0.01, bias_correction=False, grad_averaging=False),
    ),
    ("preset = 'nvlamb'", *timm("Lamb", 0.01, always_adapt=True)),
    ("preset = 'timm_lambc'", *timm("Lamb", 0.01, trust_clip=True)),
    ("preset = 'timm_lambw'", *timm("Lamb", 0.01, decoupled_decay=True)),
    ("preset = 'timm_lambw'\nweight_decay = 0.5", *timm("Lamb", 0.5, decoupled_decay=True)),
    ("preset = 'pytorch_optimizer'", *pytorch_optimizer("Lamb")),
    ("preset = 'pytorch_optimizer'\nweight_decay = 0.5", *pytorch_optimizer("Lamb", 0.5)),
    ("kind = 'lars'\npreset = 'optax'", *optax("lars")),
    (
        f"kind = 'lars'\npreset = 'optax'\nweight_decay = 0.1\nepsilon = 0.01\n{EXCLUDE}",
        *optax("lars", masks=["weight_decay_mask", "trust_ratio_mask"], weight_decay=0.1, eps=0.01),
    ),
    ("kind = 'lars'\npreset = 'optax'\nnesterov = true", *optax("lars", nesterov=True)),
    ("kind = 'lars'\npreset = 'timm'", *timm("Lars", 2e-5, momentum=0.9)),
    ("kind = 'lars'\npreset = 'timm'\nweight_decay = 0", *timm("Lars", momentum=0.9)),
    (
        "kind = 'lars'\npreset = 'timm'\nweight_decay = 0.5\ntrust_coefficient = 1.0",
        *timm("Lars", 0.5, momentum=0.9, trust_coeff=1.0),
    ),
    (
        "kind = 'lars'\npreset = 'timm'\nweight_decay = 0.5\nnesterov = true",
        *timm("Lars", 0.5, momentum=0.9, nesterov=True),
    ),
    (
        "kind = 'lars'\npreset = 'timm'\nweight_decay = 0.5\ndampening = 0.3",
        *timm("Lars", 0.5, momentum=0.9, dampening=0.3),
    ),
    ("kind = 'lars'\npreset = 'timm_larc'", *timm("Lars", 2e-5, momentum=0.9, trust_clip=True)),
    # At this coefficient the ratio is above the learning rate at some steps.
    (
        "kind = 'lars'\npreset = 'timm_larc'\ntrust_coefficient = 0.05",
        *timm("Lars", 2e-5, momentum=0.9, trust_clip=True, trust_coeff=0.05),
    ),
    # timm has the formulas of apex, which is not in a package registry.
    (
        "kind = 'lars'\npreset = 'apex_larc'",
        *timm("Lars", 1e-4, momentum=0.9, trust_clip=True, trust_coeff=0.02, always_adapt=True),
    ),
    ("kind = 'lars'\npreset = 'pytorch_optimizer'", *pytorch_optimizer("LARS")),
    (
        "kind = 'lars'\npreset = 'pytorch_optimizer'\nweight_decay = 0.5\nnesterov = true",
        *pytorch_optimizer("LARS", 0.5, nesterov=True),
    ),
]


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
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS, help="compare the cases of these only")
    arguments = parser.parse_args()
    if arguments.write and arguments.peers != PEERS:
        parser.error("--write needs all implementations")
    cases = [
        {"peer": peer, "settings": settings, "weights": optimizer.trajectory()}
        for settings, peer, optimizer in CASES
        if peer in arguments.peers
    ]
    versions = {peer: importlib.metadata.version(peer) for peer in arguments.peers}
    if arguments.write:
        found = {
            "versions": versions,
            "names": list(TENSORS),
            "learning_rate": RATE,
            "weights": initial(),
            "gradients": [gradients(step) for step in range(STEPS)],
            "cases": cases,
        }
        FILE.write_text(laid_out(found) + "\n")
        return 0
    stored = [case for case in json.loads(FILE.read_text())["cases"] if case["peer"] in arguments.peers]
    if [case["settings"] for case in stored] != [case["settings"] for case in cases]:
        sys.exit(f"{FILE}: cases differ; write it with --write")
    worst = 0.0
    for ours, theirs in zip(stored, cases, strict=True):
        a, b = ([x for step in case["weights"] for w in step for x in w] for case in (ours, theirs))
        worst = max([worst, *(abs(x - y) for x, y in zip(a, b, strict=True))])
    names = ", ".join(f"{peer} {version}" for peer, version in versions.items())
    print(f"{names}: largest difference {worst:.1e} in {len(cases)} cases")
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
