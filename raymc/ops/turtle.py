"""The objective of TURTLE (Gadetsky, Jiang and Brbić, ICML 2024): labels that a linear classifier learns in few steps.

Shapes: n samples, d features, k clusters. With `group` the rows are sharded over workers, and all sums are over all of
them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn import functional

from raymc.distributed import row_counts, sum_over_workers

BETAS, TINY = (0.9, 0.999), 1e-8  # Adam's, as published


def turtle_objective(
    logits: Tensor,
    z: Tensor,
    entropy_weight: float,
    inner_steps: int,
    inner_learning_rate: float,
    group: ProcessGroup | None = None,
    counts: Sequence[int] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. 12: the cross entropy of a fresh linear classifier against the labels, minus gamma times their entropy.

    The labels are softmax(logits). The classifier is fitted to them first and then stands still, so that the gradient
    is of the labels alone (first order, as published). The entropy is that of the labels' mean.

    Args:
        logits: of the task head `[n, k]`.
        z: the representation `[n, d]`, from which the classifier sees the samples.
        entropy_weight: gamma.
        inner_steps: Adam's steps of the classifier.
        inner_learning_rate: of those.
        group: workers over which the rows are sharded.
        counts: how many each has, by rank, where it is known.
    """
    n = sum(row_counts(z, group, counts))
    labels = logits.softmax(1)
    weights = fitted_classifier(z, labels.detach(), inner_steps, inner_learning_rate, group, counts)
    guess = functional.log_softmax(classified(z, weights), dim=1)
    error = -sum_over_workers((labels * guess).sum(), group) / n
    entropy = torch.special.entr(sum_over_workers(labels.sum(0), group) / n).sum()
    terms = {"cross_entropy": error, "entropy": -entropy_weight * entropy}
    return terms["cross_entropy"] + terms["entropy"], terms


@torch.no_grad()
def fitted_classifier(
    z: Tensor,
    labels: Tensor,
    steps: int,
    learning_rate: float,
    group: ProcessGroup | None = None,
    counts: Sequence[int] | None = None,
) -> Tensor:
    """Weights `[k, d + 1]`, the last of each the bias, of a softmax regression from z `[n, d]` to soft labels.

    The labels are `[n, k]`. From zero, by `steps` of Adam along the closed gradient (softmax(zW) - labels)^T z / n.
    (The published code starts each classifier from small random weights. Without them nothing is drawn, and on the
    digits labels were better, however scaled: ACC 0.50 and 0.43 against 0.42 and 0.32 after 500 steps.)
    """
    rows = functional.pad(z, (0, 1), value=1.0)
    n = sum(row_counts(z, group, counts))
    weights = rows.new_zeros(labels.shape[1], rows.shape[1])
    mean, square = torch.zeros_like(weights), torch.zeros_like(weights)
    for step in range(1, steps + 1):
        apart = (rows @ weights.mT).softmax(1) - labels
        gradient = sum_over_workers(apart.mT @ rows, group) / n
        mean.lerp_(gradient, 1 - BETAS[0])
        square.lerp_(gradient.square(), 1 - BETAS[1])
        root = (square / (1 - BETAS[1] ** step)).sqrt_().add_(TINY)
        weights -= learning_rate / (1 - BETAS[0] ** step) * mean / root
    return weights


def classified(z: Tensor, weights: Tensor) -> Tensor:
    """Logits `[n, k]` of z `[n, d]` by `fitted_classifier`'s weights."""
    return functional.linear(z, weights[:, :-1], weights[:, -1])
