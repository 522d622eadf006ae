"""Differentiable samples of cluster assignments."""

from __future__ import annotations

import torch
from torch import Tensor

from raymc.ops.rates import at_least_float32, check_positive


def gumbel_softmax(logits: Tensor, uniform: Tensor, temperature: float, straight_through: bool = False) -> Tensor:
    """`[n, k]`: softmax((log p + g) / temperature), p = softmax(logits), g = -ln(-ln(uniform)) (Jang et al. 2016).

    Args:
        logits: `[n, k]`; half precision is computed in float32.
        uniform: noise in [0, 1), `[n, k]`, given by the caller so that it depends on nothing but the seed and
            the step. Values are kept away from 0 and 1, where g is infinite.
        temperature: above 0; towards 0 the samples become one-hot, towards infinity uniform.
        straight_through: exactly one-hot samples that have the soft ones' gradient.

    Raises:
        ValueError: the temperature is not positive, or the shapes differ.
    """
    check_positive("temperature", temperature)
    if logits.shape != uniform.shape:
        raise ValueError(f"uniform must be {list(logits.shape)}, got {list(uniform.shape)}")
    log_p = logits.to(at_least_float32(logits.dtype)).log_softmax(1)
    limits = torch.finfo(log_p.dtype)
    noise = uniform.to(log_p.dtype).clamp(limits.tiny, 1 - limits.eps)
    soft = ((log_p - (-noise.log()).log()) / temperature).softmax(1)
    if not straight_through:
        return soft
    hard = torch.zeros_like(soft).scatter(1, soft.argmax(1, keepdim=True), 1.0)
    return hard + (soft - soft.detach())
