"""Builds PyTorch's AdamW and gradient clipping from the table [optimizer] of a run file, for the scripts on the Trainer."""

import sys

import torch


def require(condition, key, requirement, found):
    if not condition:
        sys.exit(f"error: {key} requires {requirement} in this script, got {found!r}")


class AdamWithoutBiasCorrection(torch.optim.Optimizer):
    """AdamW as in google-research/bert `optimization.py`."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            gradients = [weight.grad for weight in weights]
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight] = {"m": torch.zeros_like(weight), "v": torch.zeros_like(weight)}
            m, v = ([self.state[weight][name] for weight in weights] for name in "mv")
            beta1, beta2 = group["betas"]
            torch._foreach_lerp_(m, gradients, 1 - beta1)
            torch._foreach_mul_(v, beta2)
            torch._foreach_addcmul_(v, gradients, gradients, 1 - beta2)
            divisor = torch._foreach_sqrt(v)
            torch._foreach_add_(divisor, group["eps"])
            update = torch._foreach_div(m, divisor)
            torch._foreach_add_(update, weights, alpha=group["weight_decay"])
            torch._foreach_add_(weights, update, alpha=-group["lr"])


def optimizer_of(settings, model, peak):
    """Builds AdamW with two groups: the weights that decay, and biases and LayerNorm."""
    require(settings.get("kind") == "adamw", "[optimizer] kind", '"adamw"', settings.get("kind"))
    require("exclude_from_weight_decay" not in settings, "[optimizer] exclude_from_weight_decay", "its default", "others")
    decays = lambda name: not name.endswith(".bias") and "LayerNorm" not in name
    named = list(model.named_parameters())
    factor = settings.get("weight_decay", 0.01)
    groups = [
        {"params": [weight for name, weight in named if decays(name)], "weight_decay": factor},
        {"params": [weight for name, weight in named if not decays(name)], "weight_decay": 0.0},
    ]
    betas, eps = (settings.get("beta1", 0.9), settings.get("beta2", 0.999)), settings.get("epsilon", 1e-6)
    correction = settings.get("bias_correction", "in_update")
    if correction == "none":
        return AdamWithoutBiasCorrection(groups, {"lr": peak, "betas": betas, "eps": eps})
    require(correction == "in_update", "[optimizer] bias_correction", '"in_update" or "none"', correction)
    return torch.optim.AdamW(groups, lr=peak, betas=betas, eps=eps)


def largest_norm(clip):
    """Returns the global norm to clip to; 0 if gradients are not clipped."""
    if clip == "none":
        return 0.0
    require(list(clip) == ["global_norm"], "[optimizer] gradient_clip", '"none" or global_norm', clip)
    return clip["global_norm"]["max"]
