"""Two groups of seeds against each other: closed forms, and the ten seeds of MLC's Table 6."""

from __future__ import annotations

import math
import time
import warnings

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap, mannwhitneyu, sem, trim_mean, ttest_rel
from scipy.stats import t as student

from raymc.clusterers import hdbscan
from raymc.metrics.clustering import adjusted_rand, cluster_shares, clustering_scores
from raymc.metrics.downstream import downstream_accuracies
from raymc.metrics.geometry import geometry_scores
from raymc.metrics.label_free import label_free_scores
from raymc.metrics.labellings import agreement, ari_matrix, certificate, matched_disagreement, pairwise_ari
from raymc.metrics.names import BOUNDED, LABEL_METRICS, OBJECTIVES, bounds
from raymc.metrics.seeds import (
    bootstrap_interval,
    by_t_alone,
    collapsed_share,
    holm,
    logit_interval,
    p_better,
    paired,
    summary,
)
from raymc.metrics.spectra import group_spectra
from raymc.metrics.subspace import rank_scores

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
    test = ttest_rel(MLC, NMCE)
    interval = test.confidence_interval(0.95)
    assert found["ci95"] == pytest.approx([interval.low, interval.high])
    assert found["p_t"] == pytest.approx(test.pvalue) == pytest.approx(0.0024, abs=5e-5)
    assert holm([found["p_wilcoxon"], found["p_t"]]) == pytest.approx([2 * 2 / 1024, 2 * 2 / 1024])
    assert (mlc["iqm"], nmce["iqm"]) == pytest.approx((84.48, 80.82))
    assert trim_mean(NMCE, 0.25) == pytest.approx(80.65), "rliable's keeps six of ten values"


def test_intervals_of_table_6() -> None:
    """Plain percentiles give 84.3 to 84.6 and 77.3 to 81.6; the expanded ones are as much wider as t asks for."""
    for values, plain, expanded in ((MLC, (84.3, 84.6), (84.3, 84.6)), (NMCE, (77.3, 81.6), (76.8, 81.9))):
        found, rng = summary(values), np.random.default_rng(3)
        usual = bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=rng).confidence_interval
        assert (usual.low, usual.high) == pytest.approx(plain, abs=0.06)
        low, high = found["ci95_bootstrap"]
        assert (low, high) == pytest.approx(expanded, abs=0.06)
        assert low < usual.low and usual.high < high
        assert high - low == pytest.approx(found["ci95"][1] - found["ci95"][0], rel=0.05)
    # Two bad seeds among ten: the bootstrap's interval reaches further down from the mean than up, t's cannot.
    assert 79.61 - low > 1.2 * (high - 79.61)


def test_the_interquartile_mean_is_that_of_the_middle_half_for_every_number_of_values() -> None:
    assert summary([4.0, 1.0, 3.0, 2.0])["iqm"] == 2.5
    assert summary([0.0, 1.0, 5.0])["iqm"] == pytest.approx((0.25 * 0 + 1 + 0.25 * 5) / 1.5)
    assert summary([0.0, 1.0])["iqm"] == 0.5 and summary([0.0, 0.0, 6.0, 6.0, 9.0])["iqm"] == pytest.approx(4.2)
    values = np.random.default_rng(0).normal(size=24)
    assert summary(values.tolist())["iqm"] == pytest.approx(trim_mean(values, 0.25))


def test_an_interval_stays_in_what_its_metric_can_be() -> None:
    """Random values at and near the bounds: t where it stays inside, else logit(p) ± t s / (sqrt(n) p (1 - p))."""
    rng = np.random.default_rng(0)
    left = 0
    for _ in range(400):
        name = rng.choice(["acc", "test_nmi", "ari", "silhouette", "svm_pool_averaged", "smallest_share"])
        low, high = bounds(str(name)) or (math.nan, math.nan)
        shares = rng.beta(*rng.choice([0.3, 1, 4, 40], 2), rng.integers(2, 11)).round(rng.integers(1, 5))
        values = low + (high - low) * shares
        if np.ptp(values) == 0:
            continue
        found = summary(values.tolist(), (low, high))
        ends = found["ci95"]
        assert low <= ends[0] <= found["mean"] <= ends[1] <= high
        usual = student.interval(0.95, len(values) - 1, values.mean(), sem(values))
        inside = low <= usual[0] and usual[1] <= high
        assert by_t_alone(found) == inside
        if inside:
            assert ends == pytest.approx(usual)
            continue
        left += 1
        p = shares.mean()
        reach = student.ppf(0.975, len(values) - 1) * sem(shares) / (p * (1 - p))
        odds = math.log(p / (1 - p))
        wanted = [low + (high - low) / (1 + math.exp(-(odds + end))) for end in (-reach, reach)]
        assert ends == pytest.approx(wanted, abs=1e-12)
    assert 50 < left < 350, "a test of one branch alone would be none"
    # By hand: mean 0.976667, s / sqrt(3) 0.0145297, t 4.302653; t's own interval ends at 1.0392.
    assert summary([0.95, 0.98, 1.0], (0, 1))["ci95"] == pytest.approx([0.72928, 0.998465], abs=1e-5)
    assert summary([0.9] * 3, (0, 1))["ci95"] == [0.9, 0.9] and summary([1.0], (0, 1))["ci95"] == [1.0, 1.0]
    almost = summary([1.0, math.nextafter(1.0, 0.0), 1.0], (0, 1))["ci95"]
    assert almost[1] <= 1.0 <= almost[0] + 1e-12
    # Values in percent are not what the name says: they have t's interval.
    assert summary(NMCE, (0, 1))["ci95"] == summary(NMCE)["ci95"] and bounds("rate_reduction") is None


WITHOUT_BOUNDS = {
    "rate_reduction", "clusters_used", "clusters_found", "embedding_rank", "rank_all", "rank_clusters", "rank_classes",
    "rre", "d_rmse", "lgd",
}  # fmt: skip
"""Counts, nats, distances, and the change of rank, which passes 1 where near points become the farthest."""


def test_every_metric_that_is_a_share_has_its_bounds() -> None:
    """Of all that trainings record, by the functions that give it: it is without bounds, or its interval keeps them."""
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(4).repeat_interleave(20)
    x = torch.randn(4, 5, generator=rng)[y] + 0.3 * torch.randn(80, 5, generator=rng)
    scored = [
        *clustering_scores(y, y),
        *label_free_scores(x.numpy(), y),
        *cluster_shares(y, 4),
        *geometry_scores(x, x, y),
    ]
    names = [
        *scored,
        *hdbscan.fit(x, 5).facts,
        *(f"downstream_{name}" for name in downstream_accuracies(x, y, x, y, 0)),
    ]
    names += [
        "rate_reduction",
        *rank_scores(*group_spectra(x, y, y)),
        *BOUNDED,
        *OBJECTIVES,
        "error_rate",
        "cra_centers",
    ]
    names += [f"{probe}_pool{end}" for probe in ("svm", "knn", "nearest_subspace") for end in ("", "_averaged")]
    names += [f"{part}_{name}" for part in ("test", "clustered") for name in LABEL_METRICS]
    assert {name for name in names if bounds(name) is None} == WITHOUT_BOUNDS
    for name in set(names) - WITHOUT_BOUNDS:
        low, high = bounds(name) or (math.nan, math.nan)
        for shares in ([0, 0.01, 0.05], [1, 0.99, 0.95]):
            ends = summary([low + (high - low) * share for share in shares], (low, high))["ci95"]
            assert low <= ends[0] < ends[1] <= high, name


def test_the_logit_interval_holds_the_mean_more_often_than_one_that_is_cut_off() -> None:
    for n in (3, 5):
        draws = np.random.default_rng(n).beta(60, 1, (4000, n))
        mean, half = draws.mean(1), student.ppf(0.975, n - 1) * draws.std(1, ddof=1) / math.sqrt(n)
        t = np.stack([mean - half, mean + half], 1)
        pairs = np.stack([mean, half], 1)
        logit = [logit_interval(m, h, (0, 1)) if m + h > 1 else [m - h, m + h] for m, h in pairs]
        covers = [np.mean((ends[:, 0] <= 60 / 61) & (60 / 61 <= ends[:, 1])) for ends in (t, np.array(logit))]
        assert covers[0] < 0.90 < 0.905 < covers[1] <= 0.96


def test_the_bootstrap_interval_is_seeded_and_never_leaves_the_values() -> None:
    values = np.random.default_rng(0).normal(size=10).tolist()
    assert bootstrap_interval(values) == bootstrap_interval(values)
    shifted = bootstrap_interval([value + 3 for value in values])
    assert shifted == pytest.approx([end + 3 for end in bootstrap_interval(values)])
    for few in ([1.0, 2.0], [1.0, 1.0, 2.0], [1.0, 2.0, 2.0, 2.0]):
        assert bootstrap_interval(few) == [1.0, 2.0]
    for odd in ([0.5] * 9 + [0.6], [0.0, 1e-17, 0.0, 0.0, 0.0], [0.5] * 5 + [0.5 + 1e-16], [0.0, 1.0] * 5, [1e-9] * 3):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            low, high = bootstrap_interval(odd)
        assert min(odd) <= low <= high <= max(odd)
    with pytest.raises(ValueError, match="needs a value"):
        bootstrap_interval([])


def test_both_intervals_of_ten_normal_values_cover_their_mean_as_often_as_they_say() -> None:
    draws = np.random.default_rng(0).normal(3, 2, size=(500, 10))
    found = [summary(row.tolist()) for row in draws]
    for interval in ("ci95", "ci95_bootstrap"):
        covered = np.mean([one[interval][0] <= 3 <= one[interval][1] for one in found])
        assert 0.92 <= covered <= 0.98, f"{interval} covers {covered:.3f}"


def test_a_summary_of_ten_seeds_takes_milliseconds() -> None:
    values = np.random.default_rng(0).normal(size=10).tolist()
    took = []
    for _ in range(20):
        begun = time.perf_counter()
        summary(values)
        took.append(time.perf_counter() - begun)
    assert min(took) < 0.01


def test_ties_count_half() -> None:
    assert p_better([1.0, 2.0], [1.0, 3.0]) == (0.5 + 1) / 4
    assert p_better([0.3] * 4, [0.3] * 7) == 0.5
    a, b = np.random.default_rng(0).integers(0, 6, (2, 9)).astype(float)
    assert p_better(a.tolist(), b[:5].tolist()) == pytest.approx(mannwhitneyu(a, b[:5]).statistic / 45)
    assert p_better(a.tolist(), b.tolist()) + p_better(b.tolist(), a.tolist()) == pytest.approx(1)


def test_equal_pairs_and_too_few() -> None:
    assert paired([0.1, 0.2, 0.7], [0.1, 0.2, 0.7]) == {
        "n": 3, "mean": 0.0, "std": 0.0, "ci95": [0.0, 0.0], "p_wilcoxon": 1.0, "p_t": 1.0
    }  # fmt: skip
    unknown = dict.fromkeys(("std", "ci95", "p_wilcoxon", "p_t"))
    assert paired([0.5], [0.25]) == {"n": 1, "mean": 0.25} | unknown
    assert paired([], [])["mean"] is None


def test_equal_differences_stay_equal_although_they_are_rounded() -> None:
    """Three wins by the same 0.1 and a loss by 0.1: every rank is 2.5, so that 10 of 16 signs are as extreme."""
    found = paired([0.3, 0.8, 1.1, 0.2], [0.2, 0.7, 1.0, 0.3])
    assert found["p_wilcoxon"] == pytest.approx(10 / 16)
    always = paired([0.3, 0.8, 1.1], [0.2, 0.7, 1.0])
    assert always["std"] == 0.0 and always["p_t"] == 0.0 and always["p_wilcoxon"] == pytest.approx(2 / 8)
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


def test_matrices_of_agreement() -> None:
    a, b = np.array([0, 0, 1, 1, 2, 2]), np.array([5, 5, 3, 3, 4, 4])
    c = np.array([0, 1, 0, 1, 0, 1])
    low = adjusted_rand(a, c)
    assert ari_matrix([a, b, c]) == [[1.0, 1.0, low], [1.0, 1.0, low], [low, low, 1.0]]
    assert pairwise_ari([a, b, c]) == pytest.approx({"mean": (1 + 2 * low) / 3, "min": low})
    # Two of c's clusters are matched with two of a's, one point each; the third of a's stays alone.
    far = 1 - 2 / 6
    assert matched_disagreement([a, b, c]) == [[0.0, 0.0, far], [0.0, 0.0, far], [far, far, 0.0]]
    assert matched_disagreement([a, c])[0][1] == 1 - clustering_scores(a, c)["acc"]
    assert certificate([a, b, c]) == pytest.approx({"mean_disagreement": 2 * far / 3, "acc_at_most": 1 - far / 3})
    for of in (ari_matrix, matched_disagreement, certificate):
        with pytest.raises(ValueError, match="two labellings"):
            of([a])
        with pytest.raises(ValueError, match="labels"):
            of([a, b[:3]])
    assert agreement([a, b, c]) == pairwise_ari([a, b, c])
    assert agreement([a]) is agreement([]) is agreement([a, b[:3]]) is None


def test_disagreement_bounds_the_mean_accuracy_for_any_labels_and_numbers_of_clusters() -> None:
    rng = np.random.default_rng(0)
    gaps = []
    for _ in range(400):
        n, classes, seeds = rng.integers(2, 60), rng.integers(1, 7), rng.integers(2, 6)
        truth = rng.integers(0, classes, n)
        labels = []
        for _ in range(seeds):  # the truth with some points moved, in another number of clusters
            clusters = rng.integers(1, 9)
            moved = rng.random(n) < rng.random()
            labels.append(np.where(moved, rng.integers(0, clusters, n), truth % clusters))
        accuracy = np.mean([clustering_scores(truth, one)["acc"] for one in labels])
        gaps.append(certificate(labels)["acc_at_most"] - accuracy)
    assert min(gaps) > -1e-12
    assert np.mean(np.array(gaps) < 0.1) > 0.05, "a bound that is never near would be no test"


def test_the_bound_is_reached_and_confirms_nothing() -> None:
    truth = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    left, right = truth.copy(), truth.copy()
    left[0], right[7] = 1, 0  # each wrong at one point, and never at the same
    assert certificate([left, right]) == {"mean_disagreement": 2 / 8, "acc_at_most": 1 - 1 / 8}
    assert clustering_scores(truth, left)["acc"] == 1 - 1 / 8
    collapsed = np.zeros_like(truth)
    assert certificate([collapsed, collapsed])["acc_at_most"] == 1.0
    assert clustering_scores(truth, collapsed)["acc"] == 0.5


def test_collapsed_share() -> None:
    assert collapsed_share(["finished", "collapsed", "diverged", "finished"]) == 0.25
    assert collapsed_share(["finished"]) == 0.0 and collapsed_share(("collapsed",) * 2) == 1.0
    with pytest.raises(ValueError, match="no seeds"):
        collapsed_share([])
