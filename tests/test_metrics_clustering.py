"""Scores against hand-counted cases and scikit-learn, and statistics over seeds."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from raymc.metrics import adjusted_rand, cluster_shares, clustering_scores, confusion, hungarian_match
from raymc.metrics.labellings import pairwise_ari
from raymc.metrics.seeds import summary


def test_a_hand_counted_case() -> None:
    """Six points; matching class 0 to cluster 7 and class 1 to cluster 5 covers four of them."""
    scores = clustering_scores([0, 0, 0, 1, 1, 1], [7, 7, 5, 5, 5, 9])
    assert scores["acc"] == pytest.approx(4 / 6)
    entropy = -(3 / 6 * math.log(3 / 6) + 2 / 6 * math.log(2 / 6) + 1 / 6 * math.log(1 / 6))
    information = 2 / 6 * math.log(2) + 1 / 6 * math.log(2 / 3) + 2 / 6 * math.log(4 / 3) + 1 / 6 * math.log(2)
    assert scores["nmi"] == pytest.approx(2 * information / (math.log(2) + entropy))
    # Pairs together in both: 1 + 1; in the classes: 3 + 3; in the clusters: 1 + 3; of 15.
    assert scores["ari"] == pytest.approx((2 - 6 * 4 / 15) / ((6 + 4) / 2 - 6 * 4 / 15))


def test_hungarian_beats_greedy_matching() -> None:
    """Greedy takes the largest count first and is left with nothing: 0.357 against 0.643."""
    true = [0] * 9 + [1] * 5
    pred = [0] * 5 + [1] * 4 + [0] * 5
    counts = confusion(true, pred)
    assert counts.tolist() == [[5, 4], [5, 0]]
    rows, columns = hungarian_match(counts)
    assert dict(zip(rows.tolist(), columns.tolist(), strict=True)) == {0: 1, 1: 0}
    assert clustering_scores(true, pred)["acc"] == pytest.approx(9 / 14)


def test_accuracy_is_the_best_over_all_matchings() -> None:
    rng = np.random.default_rng(0)
    for classes, clusters in ((3, 3), (2, 4), (4, 2)):
        counts = confusion(rng.integers(0, classes, 40), rng.integers(0, clusters, 40))
        wide = counts if counts.shape[0] <= counts.shape[1] else counts.T
        best = max(
            sum(wide[i, j] for i, j in enumerate(order))
            for order in itertools.permutations(range(wide.shape[1]), wide.shape[0])
        )
        assert counts[hungarian_match(counts)].sum() == best


@pytest.mark.parametrize("seed", range(5))
def test_nmi_and_ari_equal_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true, pred = rng.integers(0, 4, 200), rng.integers(0, 7, 200)
    pred[:80] = true[:80]
    scores = clustering_scores(true, pred)
    assert scores["nmi"] == pytest.approx(normalized_mutual_info_score(true, pred), abs=1e-12)
    assert scores["ari"] == pytest.approx(adjusted_rand_score(true, pred), abs=1e-12)


@pytest.mark.parametrize(
    ("true", "pred"),
    [([0, 0, 0], [5, 5, 5]), ([0, 1, 2], [2, 0, 1]), ([0, 0, 1], [1, 1, 1]), ([0], [0]), ([0, 0, 0], [0, 1, 2])],
)
def test_degenerate_partitions_equal_scikit_learn(true: list[int], pred: list[int]) -> None:
    scores = clustering_scores(true, pred)
    assert scores["nmi"] == pytest.approx(normalized_mutual_info_score(true, pred), abs=1e-12)
    assert scores["ari"] == pytest.approx(adjusted_rand_score(true, pred), abs=1e-12)


def test_names_and_order_of_labels_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    true, pred = rng.integers(0, 5, 90), rng.integers(0, 5, 90)
    scores = clustering_scores(true, pred)
    names = np.array([-3, 100, 7, 2**40, -1])
    order = rng.permutation(90)
    assert clustering_scores(true[order], names[pred][order]) == pytest.approx(scores)
    assert clustering_scores(torch.as_tensor(true), torch.as_tensor(names[pred])) == pytest.approx(scores)
    assert clustering_scores(true.astype(np.uint8), pred.astype(np.int8)) == pytest.approx(scores)
    assert clustering_scores(true, true) == {"acc": 1.0, "nmi": pytest.approx(1.0), "ari": 1.0}


def test_labels_that_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="3 true labels, but 2 predicted"):
        clustering_scores([0, 1, 2], [0, 1])
    with pytest.raises(ValueError, match="no labels"):
        clustering_scores([], [])
    with pytest.raises(ValueError, match="vector"):
        clustering_scores(np.zeros((2, 2)), [0, 1])


def test_cluster_shares() -> None:
    labels = torch.tensor([0, 0, 0, 2])
    assert cluster_shares(labels, 2) == {"clusters_used": 2, "largest_share": 0.75, "smallest_share": 0.25}
    assert cluster_shares(labels, 3) == {"clusters_used": 2, "largest_share": 0.75, "smallest_share": 0.0}


def test_summary_of_three_values() -> None:
    """Standard deviation of the sample (ddof=1), Student interval of the mean."""
    found = summary([1.0, 2.0, 4.0])
    assert found["n"] == 3 and found["mean"] == pytest.approx(7 / 3) and found["median"] == 2.0
    assert found["std"] == pytest.approx(math.sqrt(7 / 3))
    half = 4.302652729911275 * math.sqrt(7 / 3) / math.sqrt(3)  # t quantile 0.975 of 2 degrees of freedom
    assert found["ci95"] == pytest.approx([7 / 3 - half, 7 / 3 + half])
    assert (found["min"], found["max"]) == (1.0, 4.0)


@pytest.mark.parametrize("values", [[0.1] * 3, [0.7], [1 / 3] * 10])
def test_equal_values_and_one_value_have_an_interval_of_no_width(values: list[float]) -> None:
    found = summary(values)
    assert found["ci95"] == found["ci95_bootstrap"] == [values[0], values[0]]
    assert found["std"] == 0.0 and found["mean"] == found["iqm"] == values[0]


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_statistics_of_nothing_or_of_nan_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite values"):
        summary(values)


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(3, 2, size=(2000, 5))
    inside = [lo <= 3 <= hi for lo, hi in (summary(row.tolist())["ci95"] for row in draws)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)


def test_pairwise_agreement() -> None:
    a, b = np.array([0, 0, 1, 1, 2, 2]), np.array([5, 5, 3, 3, 4, 4])
    c = np.array([0, 1, 0, 1, 0, 1])
    assert pairwise_ari([a, b]) == {"mean": 1.0, "min": 1.0}
    low = adjusted_rand(a, c)
    assert pairwise_ari([a, b, c]) == pytest.approx({"mean": (1 + 2 * low) / 3, "min": low})
    with pytest.raises(ValueError, match="two labellings"):
        pairwise_ari([a])
