"""LARS (You et al. 2017) with LARC's clipping, in operations over all parameters at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd


class Lars(torch.optim.Optimizer):
    """SGD with momentum whose step is scaled by |w| / |g|, weight by weight; the device is never read back.

    For a weight w with gradient g, learning rate lr and velocity v:

        trust = trust_coeff |w| / (|g| + weight_decay |w| + eps), and 1 where w or g is 0
        v     = momentum v + min(trust / lr, 1) (g + weight_decay w)
        w     = w - lr v

    In a group with `always_adapt=False` v takes the gradient as it is, without weight decay. The result is that of
    timm's `Lars` with `trust_clip`, and the names in `state_dict` are timm's. On a GPU a step takes a few launches over
    all parameters and one for each adapted weight.
    """

    def __init__(
        self, params: Iterable[dict[str, Any]], momentum: float, trust_coeff: float, eps: float = 1e-8
    ) -> None:
        defaults = {"lr": 1.0, "momentum": momentum, "trust_coeff": trust_coeff, "eps": eps}
        super().__init__(params, {**defaults, "weight_decay": 0.0, "always_adapt": True})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient; those gradients are used up."""
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            grads = [p.grad for p in weights]
            if group["always_adapt"]:
                _adapt(weights, grads, group)
            settings: dict[str, Any] = {"weight_decay": 0.0, "dampening": 0.0, "nesterov": False, "maximize": False}
            velocities = self._velocities(weights)
            sgd(weights, grads, velocities, fused=True, lr=group["lr"], momentum=group["momentum"], **settings)

    def _velocities(self, weights: list[Tensor]) -> list[Tensor | None]:
        """v of each weight, 0 before the first step."""
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        return [self.state[weight]["momentum_buffer"] for weight in weights]


def _adapt(weights: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
    """Make min(trust / lr, 1) (g + weight_decay w) of each g: in place, since fresh memory costs a CPU more."""
    sizes, slopes = (torch.stack(torch._foreach_norm(some)) for some in (weights, grads))
    trust = group["trust_coeff"] * sizes / (slopes + group["weight_decay"] * sizes + group["eps"])
    trust = torch.where((sizes > 0) & (slopes > 0), trust, 1.0)
    shares = (trust / group["lr"]).clamp(max=1.0).unbind()
    if group["weight_decay"]:
        torch._foreach_add_(grads, weights, alpha=group["weight_decay"])
    torch._foreach_mul_(grads, shares)
