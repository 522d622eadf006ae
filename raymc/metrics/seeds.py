"""Statistics over a group of seeds, and over the seeds of two: what configurations do, not what one lucky run did."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy  # its parts are loaded where they are first used
from numpy.typing import NDArray

RESAMPLES = 10_000
SEED = 0
"""Of the resamples: the same values have the same interval."""


def summary(values: Sequence[float], within: tuple[float, float] | None = None) -> dict[str, Any]:
    """`n`, `mean`, `std` (ddof=1), `min`, `max`, `median`, `iqm`, `ci95` and `ci95_bootstrap` of one figure over seeds.

    `iqm` is the interquartile mean, the mean of the middle half. Where n is not divisible by 4 the two values at its
    ends count by the part of them that lies inside, so that n/2 values are averaged for every n. (rliable cuts whole
    values, `int(n / 4)` a side, which keeps more than half; for n divisible by 4 both are the same.)

    `ci95` is the 95 % interval `[low, high]` of the mean by Student's t; where that leaves `within`, the interval in
    which a figure can be (`raymc.metrics.names.bounds`), it is `logit_interval`. `ci95_bootstrap` is that by
    `bootstrap_interval`. Both are `[v, v]` where all values equal v; so they are, with `std` 0, for a single value: one
    seed says nothing about the spread, and `n` tells.

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
    half = _half(std, n)
    return {
        "n": n,
        "mean": mean,
        "std": std,
        "min": low,
        "max": high,
        "median": float(np.median(values)),
        # Four of each value: the quarters are whole values then.
        "iqm": low if equal else float(scipy.stats.trim_mean(np.repeat(values, 4), 0.25)),
        "ci95": _interval(values, mean, half, within),
        "ci95_bootstrap": bootstrap_interval(values),
    }


def logit_interval(mean: float, half: float, within: tuple[float, float]) -> list[float]:
    """The interval mean ± half, taken on the logit scale of the bounds `within`, and so inside them.

    With p = (mean - low) / (high - low), the place of the mean, and h = half / (high - low), it is what the logistic
    function makes of logit(p) ± h / (p (1 - p)): the delta method, which survey statistics use for proportions (Korn &
    Graubard 1998). No logarithm of a single value is taken, so that values may lie at a bound.

    It is wider towards the middle than t's, as it should be: of 3 or 5 Beta or cut normal values near 1, t's interval
    holds the true mean 88 to 94 % of the time, also cut off at 1, and 91 to 97 % with this one where t's passes 1. A
    bootstrap never leaves the values either, but below 5 of them it is their range, and holds the mean less often.
    """
    low, width = within[0], within[1] - within[0]
    place = (mean - low) / width
    middle, reach = scipy.special.logit(place), half / width / (place * (1 - place))
    return [low + width * float(scipy.special.expit(middle + end)) for end in (-reach, reach)]


def by_t_alone(found: Mapping[str, Any]) -> bool:
    """Whether the `ci95` of a `summary` is t's own, and not on the logit scale."""
    half = _half(found["std"], found["n"])
    return all(abs(abs(end - found["mean"]) - half) <= 1e-9 * max(1.0, abs(end)) for end in found["ci95"])


def bootstrap_interval(values: Sequence[float]) -> list[float]:
    """The 95 % interval `[low, high]` of the mean by the bootstrap: 10,000 resamples, seeded, expanded percentiles.

    The plain percentile interval is too narrow for few values: it misses the factor √(n / (n - 1)) of the standard
    error and takes the normal's quantile for Student's. Hesterberg (2015, "What teachers should know about the
    bootstrap", arXiv:1411.5279) takes its percentiles further out, at Φ(-√(n / (n - 1)) t) for Student's 2.5 %
    quantile -t; so does this. BCa corrects for skewness, which needs more values than a group of seeds has: it
    "tends to severely under-cover the mean" (Owen 2025, arXiv:2508.10083). `benchmarks/seed_statistics.py` measures all
    of them: with 10 normal values the plain percentiles and BCa cover about 90 %, the expanded ones about 95 %.

    No resample's mean lies outside the values, so the interval does not either; below 5 values it is their range.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    n, found = len(values), _finite(values)
    if not n:
        raise ValueError("an interval needs a value")
    if found.min() == found.max():
        return [float(found[0])] * 2
    tail = float(scipy.special.ndtr(math.sqrt(n / (n - 1)) * scipy.stats.t.ppf(0.025, n - 1)))
    interval = scipy.stats.bootstrap(
        (found,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=1 + 1_000_000 // n,  # bounds the memory
        vectorized=True,
        confidence_level=1 - 2 * tail,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return [float(interval.low), float(interval.high)]


def detectable(std: float, n: int) -> float:
    """Difference of two means that a two-sided 5 % test finds with 80 % power, `n` seeds on each side.

    Normal approximation: (1.960 + 0.842) std sqrt(2 / n).
    """
    return (1.959964 + 0.841621) * std * math.sqrt(2 / n)


def collapsed_share(states: Sequence[str]) -> float:
    """The share of `states` (one a seed, as in the records) that are `collapsed`. Seeds that were lost for another
    reason count as not collapsed.

    Raises:
        ValueError: no states.
    """
    if not states:
        raise ValueError("a share of no seeds")
    return sum(state == "collapsed" for state in states) / len(states)


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
    """`n`, `mean`, `std` (ddof=1), `ci95`, `p_wilcoxon` and `p_t` of the differences a - b of values that belong
    together.

    `ci95` is the 95 % interval of the mean difference by Student's t; `p_wilcoxon` and `p_t` are the two-sided p of
    Wilcoxon's signed-rank test and of the paired t test (1.0 where all differences are zero). Where all are the same
    other number, `p_t` is 0.0: t divides by their spread. Fewer than two pairs have none of these, nor `std`: None.
    No pair has no `mean` either.

    Raises:
        ValueError: not as many values in `a` as in `b`, or one that is not finite.
    """
    if len(a) != len(b):
        raise ValueError(f"pairs need as many values on each side, got {len(a)} and {len(b)}")
    # Rounding errors must not tell equal differences apart; nor is there a -0.
    gaps = np.round(_finite(a) - _finite(b), 12) + 0.0
    if len(gaps) < 2:
        return {"n": len(gaps), "mean": float(gaps[0]) if len(gaps) else None} | dict.fromkeys(
            ("std", "ci95", "p_wilcoxon", "p_t")
        )
    found = summary(gaps.tolist())
    moved = gaps[gaps != 0]  # Wilcoxon leaves out pairs without a difference
    p = float(scipy.stats.wilcoxon(moved).pvalue) if moved.size else 1.0
    return {key: found[key] for key in ("n", "mean", "std", "ci95")} | {"p_wilcoxon": p, "p_t": _p_t(found)}


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values of several tests, adjusted so that one false alarm among all of them stays as rare (Holm 1979)."""
    adjusted, least = [1.0] * len(p_values), 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = least
    return adjusted


def _half(std: float, n: int) -> float:
    """Half the width of t's 95 % interval of the mean."""
    return float(scipy.stats.t.ppf(0.975, n - 1)) * std / math.sqrt(n) if std else 0.0


def _interval(values: Sequence[float], mean: float, half: float, within: tuple[float, float] | None) -> list[float]:
    """t's, or the logit's where t's leaves the bounds and the values do not."""
    found = [mean - half, mean + half]
    if not half or within is None or min(values) < within[0] or max(values) > within[1]:
        return found
    if within[0] <= found[0] and found[1] <= within[1]:
        return found
    if not within[0] < mean < within[1]:  # the mean of values that are a rounding error from the bound
        return [max(found[0], within[0]), min(found[1], within[1])]
    return logit_interval(mean, half, within)


def _p_t(gaps: dict[str, Any]) -> float:
    """Of the `summary` of two differences or more. (SciPy's test warns where they are equal.)"""
    if not gaps["std"]:
        return 0.0 if gaps["mean"] else 1.0
    t = abs(gaps["mean"]) / (gaps["std"] / math.sqrt(gaps["n"]))
    return 2 * float(scipy.stats.t.sf(t, gaps["n"] - 1))


def _finite(values: Sequence[float]) -> NDArray[np.float64]:
    found = np.asarray(values, dtype=np.float64)
    if not np.isfinite(found).all():
        raise ValueError(f"comparisons need finite values, got {list(values)}")
    return found
