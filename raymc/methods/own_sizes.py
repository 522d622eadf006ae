"""What presets for any data have in common: net and augmentation by the samples' shape, epochs by their number.

Trainings are counted in steps, so that 150 rows and 50,000 are both trained for long enough and for no longer.
"""

from __future__ import annotations

from raymc.config import Value
from raymc.methods.base import Facts

SMALL_SIDE, MIDDLE_SIDE = 16, 40
"""Pixels: up to the first the digits' augmentation, up to the second a net without pooling at its entry."""


A_CLUSTER = 10
"""Samples of each cluster that a batch has on average, at least."""


def batch_of(facts: Facts, most: int) -> int:
    """Samples of a step: so many, more where there are many clusters, and all of fewer."""
    return min(max(most, A_CLUSTER * (facts.clusters or 0)), facts.n)


def epochs_of(facts: Facts, steps: int, batch: int, least: int = 2) -> int:
    """Epochs of about so many steps, and at least so many that every sample is seen a few times."""
    return max(least, round(steps / max(1, facts.n // batch)))


def neighbours_of(facts: Facts, count: int) -> dict[str, Value]:
    """So many nearest neighbours of which one gives a vector's second view; fewer where there are not so many."""
    return {"augment.neighbours": min(count, facts.n - 1)}


def net_of(facts: Facts) -> dict[str, Value]:
    """Backbone and augmentation: dense for vectors, convolutional for images, larger ones pooled at the entry."""
    if len(facts.shape) == 1:
        dense: dict[str, Value] = {"backbone": "mlp", "mlp_width": 256, "mlp_depth": 2}
        return dense | {"augment.noise": 0.1} | neighbours_of(facts, 10)
    channels, side = facts.shape[0], max(facts.shape[1:])
    if channels == 1:
        net = "conv_digits" if side <= MIDDLE_SIDE else "resnet10_grey"
        return {"backbone": net, "augmentation": "digits" if side <= SMALL_SIDE else "mnist"}
    return {"backbone": "conv_colour" if side <= MIDDLE_SIDE else "resnet10_colour", "augmentation": "cifar"}
