"""Statistics over a group of seeds: what a configuration does, rather than what one lucky run did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from raymc.metrics.clustering import Labels, adjusted_rand


def summary(values: Sequence[float]) -> dict[str, Any]:
    """`n`, `mean`, `std` (ddof=1), `min`, `max`, `median` and `ci95` of one figure over seeds.

    `ci95` is the 95 % interval `[low, high]` of the mean by Student's t. It is `[v, v]` where all values equal v; so it
    is, with `std` 0, for a single value: one seed says nothing about the spread, and `n` tells.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    n = len(values)
    if not n or not all(map(math.isfinite, values)):
        raise ValueError(f"statistics need finite values, got {list(values)}")
    low, high = float(min(values)), float(max(values))
    equal = low == high  # rounding must not give equal values a spread
    mean = low if equal else float(np.mean(values))
    std = 0.0 if equal else float(np.std(values, ddof=1))
    half = 0.0 if equal else float(student_t.ppf(0.975, n - 1)) * std / math.sqrt(n)
    return {
        "n": n,
        "mean": mean,
        "std": std,
        "min": low,
        "max": high,
        "median": float(np.median(values)),
        "ci95": [mean - half, mean + half],
    }


def pairwise_ari(labels: Sequence[Labels]) -> dict[str, float]:
    """`mean` and `min` adjusted Rand index over all pairs of seeds' labels of the same points.

    1 means that every seed found the same partition, right or wrong.

    Raises:
        ValueError: fewer than two labellings, or labellings of different length.
    """
    if len(labels) < 2:
        raise ValueError(f"agreement needs two labellings or more, got {len(labels)}")
    values = [adjusted_rand(a, b) for a, b in combinations(labels, 2)]
    return {"mean": float(np.mean(values)), "min": min(values)}
