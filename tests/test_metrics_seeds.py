"""Two groups of seeds against each other: closed forms, and the ten seeds of MLC's Table 6."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, ttest_rel

from raymc.metrics.seeds import holm, p_better, paired, summary

# MLC, Table 6: ACC in percent of ten seeds from one stage 1.
MLC = [84.5, 84.8, 84.8, 84.6, 84.4, 84.4, 84.0, 84.3, 84.4, 84.6]
NMCE = [83.7, 82.1, 81.6, 73.7, 80.4, 77.9, 81.7, 81.4, 72.7, 80.9]


def test_table_6_of_mlc() -> None:
    mlc, nmce = summary(MLC), summary(NMCE)
    assert (mlc["mean"], nmce["mean"]) == pytest.approx((84.48, 79.61))
    assert (mlc["std"], nmce["std"]) == pytest.approx((0.24, 3.69), abs=0.005)  # the sample's: ddof=1
    found = paired(MLC, NMCE)
    assert p_better(MLC, NMCE) == 1.0 and p_better(NMCE, MLC) == 0.0
    assert found["p_wilcoxon"] == pytest.approx(2 / 1024)  # all ten differences are positive: exact
    assert found["n"] == 10 and found["mean"] == pytest.approx(84.48 - 79.61)
    interval = ttest_rel(MLC, NMCE).confidence_interval(0.95)
    assert found["ci95"] == pytest.approx([interval.low, interval.high])


def test_ties_count_half() -> None:
    assert p_better([1.0, 2.0], [1.0, 3.0]) == (0.5 + 1) / 4
    assert p_better([0.3] * 4, [0.3] * 7) == 0.5
    a, b = np.random.default_rng(0).integers(0, 6, (2, 9)).astype(float)
    assert p_better(a.tolist(), b[:5].tolist()) == pytest.approx(mannwhitneyu(a, b[:5]).statistic / 45)
    assert p_better(a.tolist(), b.tolist()) + p_better(b.tolist(), a.tolist()) == pytest.approx(1)


def test_equal_pairs_and_too_few() -> None:
    assert paired([0.1, 0.2, 0.7], [0.1, 0.2, 0.7]) == {
        "n": 3, "mean": 0.0, "std": 0.0, "ci95": [0.0, 0.0], "p_wilcoxon": 1.0
    }  # fmt: skip
    assert paired([0.5], [0.25]) == {"n": 1, "mean": 0.25, "std": None, "ci95": None, "p_wilcoxon": None}
    assert paired([], [])["mean"] is None


def test_equal_differences_stay_equal_although_they_are_rounded() -> None:
    """Three wins by the same 0.1 and a loss by 0.1: every rank is 2.5, so that 10 of 16 signs are as extreme."""
    found = paired([0.3, 0.8, 1.1, 0.2], [0.2, 0.7, 1.0, 0.3])
    assert found["p_wilcoxon"] == pytest.approx(10 / 16)
    assert paired([0.3, 0.8, 1.1], [0.2, 0.7, 1.0])["std"] == 0.0
    # Pairs without a difference are left out: three wins are left, and 2 of 8 signs are as extreme.
    assert paired([0.3, 0.9, 1.4, 0.5], [0.2, 0.7, 1.0, 0.5])["p_wilcoxon"] == pytest.approx(2 / 8)


@pytest.mark.parametrize(("a", "b"), [([1.0], [1.0, 2.0]), ([math.nan], [1.0]), ([1.0], [math.inf])])
def test_pairs_must_be_pairs_of_numbers(a: list[float], b: list[float]) -> None:
    with pytest.raises(ValueError, match=r"as many values|finite values"):
        paired(a, b)
    with pytest.raises(ValueError, match=r"a value on each side|finite values"):
        p_better(a if len(a) == len(b) else [], b)


def test_holm_adjusts_the_smallest_most() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9]) and holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02] and holm([]) == []
