"""Statistics over a group of seeds, and over the seeds of two: what configurations do, not what one lucky run did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import t as student_t
from scipy.stats import wilcoxon

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


def p_better(a: Sequence[float], b: Sequence[float]) -> float:
    """P(A > B): the share of all pairs (a value of A, a value of B) in which A's is larger, a tie counting half.

    0.5 means that neither tends to be better. The values need not be paired, nor as many on each side: it is
    Mann-Whitney's U / (n_a n_b), the "probability of improvement" of Agarwal et al. 2021.

    Raises:
        ValueError: no values on a side, or one that is not finite.
    """
    left, right = _finite(a)[:, None], _finite(b)[None, :]
    if not left.size or not right.size:
        raise ValueError("P(A > B) needs a value on each side")
    return float(np.mean((left > right) + 0.5 * (left == right)))


def paired(a: Sequence[float], b: Sequence[float]) -> dict[str, Any]:
    """`n`, `mean`, `std` (ddof=1) and `ci95` of the differences a - b of values that belong together, and `p_wilcoxon`.

    `ci95` is the 95 % interval of the mean difference by Student's t; `p_wilcoxon` is the two-sided p of Wilcoxon's
    signed-rank test (1.0 where all differences are zero). Fewer than two pairs have neither, nor `std`: None. No
    pair has no `mean` either.

    Raises:
        ValueError: not as many values in `a` as in `b`, or one that is not finite.
    """
    if len(a) != len(b):
        raise ValueError(f"pairs need as many values on each side, got {len(a)} and {len(b)}")
    # Rounding errors must not tell equal differences apart; nor is there a -0.
    gaps = np.round(_finite(a) - _finite(b), 12) + 0.0
    if len(gaps) < 2:
        return {"n": len(gaps), "mean": float(gaps[0]) if len(gaps) else None} | dict.fromkeys(
            ("std", "ci95", "p_wilcoxon")
        )
    found = summary(gaps.tolist())
    moved = gaps[gaps != 0]  # Wilcoxon leaves out pairs without a difference
    p = float(wilcoxon(moved).pvalue) if moved.size else 1.0
    return {key: found[key] for key in ("n", "mean", "std", "ci95")} | {"p_wilcoxon": p}


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values of several tests, adjusted so that one false alarm among all of them stays as rare (Holm 1979)."""
    adjusted, least = [1.0] * len(p_values), 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = least
    return adjusted


def _finite(values: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    found = np.asarray(values, dtype=np.float64)
    if not np.isfinite(found).all():
        raise ValueError(f"comparisons need finite values, got {list(values)}")
    return found
