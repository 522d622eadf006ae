"""Scores without labels: against scikit-learn and scipy, what they must not depend on, and where they are undefined."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import rankdata, spearmanr
from sklearn.datasets import load_digits, make_blobs
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import silhouette_score
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from torch import Tensor, nn

from raymc.config import resolve
from raymc.datasets import Dataset
from raymc.datasets.base import Split, stored
from raymc.distributed import Workers
from raymc.methods import METHODS
from raymc.metrics import label_free
from raymc.metrics.label_free import (
    label_free_scores,
    mean_rank,
    probe,
    rank_correlation,
    rank_correlation_interval,
    reduced,
    reference_rows,
    reference_space,
    selection_regret,
    silhouette,
)
from raymc.metrics.spectra import group_spectra
from raymc.training import evaluate, reference
from raymc.training.feed import Feed

METHOD = METHODS["gcml"]


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, np.ndarray]:
    """600 digits `[600, 64]` and their classes."""
    found = load_digits()
    return torch.tensor(found.data[:600] / 16, dtype=torch.float32), found.target[:600]


def test_the_space_is_the_leading_components_at_unit_mean_variance(digits: tuple[Tensor, np.ndarray]) -> None:
    x = torch.cat([digits[0], digits[0].flip(1)], 1)
    space = reference_space(x)
    assert space.shape == (600, 64) and np.square(space).mean() == pytest.approx(1)
    assert np.abs(space.mean(0)).max() < 1e-4
    full = PCA(64, svd_solver="full").fit_transform(x.double().numpy())
    gram = full @ full.T / np.square(full).mean()
    assert np.abs(space @ space.T - gram).max() < 0.02 * np.abs(gram).max()
    assert np.array_equal(space, reference_space(x))


def test_the_draw_of_rows_is_fixed_and_bounded() -> None:
    few, many = reference_rows(40), reference_rows(12_000)
    assert sorted(few.tolist()) == list(range(40)) and not torch.equal(few, torch.arange(40))
    assert len(many) == 5000 == len(many.unique()) and torch.equal(many, reference_rows(12_000))


def test_large_images_are_averaged_and_small_ones_kept() -> None:
    images = torch.rand(3, 3, 96, 64)
    means = images.reshape(3, 3, 32, 3, 32, 2).mean((3, 5)).flatten(1)
    assert torch.allclose(reduced(images), means, atol=1e-6)
    assert torch.equal(reduced(images[..., :8, :8]), images[..., :8, :8].flatten(1))
    assert torch.equal(reduced(images[:, 0, 0]), images[:, 0, 0])


def test_silhouette_is_scikit_learns_of_the_first_rows(
    digits: tuple[Tensor, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    space, y = reference_space(digits[0]), digits[1]
    assert silhouette(space, y) == pytest.approx(silhouette_score(space, y))
    monkeypatch.setattr(label_free, "SILHOUETTE_ROWS", 200)
    assert silhouette(space, y) == pytest.approx(silhouette_score(space[:200], y[:200]))


@pytest.mark.parametrize("k", [2, 10])
def test_the_probe_is_a_ridge_classifiers_accuracy_over_five_folds(digits: tuple[Tensor, np.ndarray], k: int) -> None:
    space, y = reference_space(digits[0]), digits[1] % k
    told = cross_val_predict(RidgeClassifier(alpha=1.0), space, y, cv=PredefinedSplit(np.arange(600) % 5))
    assert probe(space, y) == pytest.approx((told == y).mean(), abs=2 / 600)
    assert 0.8 < (probe(space, y) or 0) < 1


def test_neither_depends_on_the_scale_of_the_inputs_nor_on_the_names_of_clusters(
    digits: tuple[Tensor, np.ndarray],
) -> None:
    space, y = reference_space(digits[0]), digits[1]
    scores = label_free_scores(space, y)
    assert set(scores) == {"silhouette", "probe"}
    other = np.random.default_rng(0).permutation(10)[y] * 7 - 3
    assert label_free_scores(space, torch.as_tensor(other)) == pytest.approx(scores, abs=1e-12)
    assert label_free_scores(reference_space(1000 * digits[0]), y) == pytest.approx(scores, abs=0.004)


def test_true_clusters_score_above_wrong_ones() -> None:
    x, y = make_blobs(300, 5, centers=4, random_state=0)
    space = reference_space(torch.tensor(x, dtype=torch.float32))
    right, wrong = label_free_scores(space, y), label_free_scores(space, np.arange(300) % 4)
    assert right["probe"] > 0.95 > 0.5 > wrong["probe"] and right["silhouette"] > 0.4 > 0 > wrong["silhouette"]


def test_a_collapse_has_no_silhouette_and_a_perfect_probe() -> None:
    """Which is why gates on the clusters' shares belong to it."""
    space = reference_space(torch.rand(50, 4))
    assert label_free_scores(space, np.zeros(50, int)) == {"probe": 1.0}
    assert label_free_scores(space, np.arange(50)) == {"probe": 0.0}


def test_tiny_data_have_the_scores_that_are_defined() -> None:
    space = reference_space(torch.tensor([[0.0], [0.1], [5.0], [5.1]]))
    assert label_free_scores(space, [0, 0, 1, 1]) == {"probe": 1.0, "silhouette": pytest.approx(0.98, abs=0.01)}
    assert label_free_scores(space[:2], [0, 1]) == {"probe": 0.0}
    assert label_free_scores(reference_space(torch.ones(1, 3)), [0]) == {}
    assert label_free_scores(reference_space(torch.ones(6, 3)), [0, 0, 0, 1, 1, 1])["silhouette"] == 0.0


def test_a_cluster_of_a_single_member_is_missed_by_the_probe() -> None:
    x, y = make_blobs(100, 3, centers=[[0, 0, 0], [20, 0, 0]], random_state=0)
    y[7] = 5
    assert probe(reference_space(torch.tensor(x, dtype=torch.float32)), y) == 0.99


def test_mean_rank_is_the_mean_share_of_trials_below() -> None:
    assert mean_rank({"stability": [0.1, 0.9, 0.5]}) == [0.0, 1.0, 0.5]
    scores = {"a": [1.0, 2.0, 2.0, 5.0], "b": [3.0, 1.0, 0.0, 2.0]}
    ranks = [(rankdata(values) - 1) / 3 for values in scores.values()]
    assert mean_rank(scores) == pytest.approx(list((ranks[0] + ranks[1]) / 2))
    assert mean_rank({"a": [4.0], "b": [1.0]}) == [0.5] and mean_rank({"a": []}) == []
    assert mean_rank({"a": [2.0, 2.0, 2.0]}) == [0.5] * 3
    orders = np.random.default_rng(0).permuted(np.tile(np.arange(40.0), (4, 1)), axis=1)
    equal = mean_rank({str(i): list(order) for i, order in enumerate(orders)})
    assert len(set(equal)) == len(set(orders.sum(0))) < 40, "equal sums of ranks are equal, not apart by rounding"
    for wrong in ({}, {"a": [1.0], "b": [1.0, 2.0]}, {"a": [1.0, float("nan")]}):
        with pytest.raises(ValueError):
            mean_rank(wrong)


def test_rank_correlation_is_spearmans_and_absent_where_undefined() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=20), rng.integers(0, 5, 20).astype(float)
    assert rank_correlation(list(a), list(b)) == pytest.approx(float(spearmanr(a, b).statistic))
    assert rank_correlation([1, 2, 3], [1, 4, 9]) == pytest.approx(1)
    assert rank_correlation([1, 2], [1, 2]) is None and rank_correlation([1, 2, 3], [5, 5, 5]) is None
    with pytest.raises(ValueError, match="as many"):
        rank_correlation([1, 2, 3], [1, 2])


def test_the_interval_of_a_rank_correlation_covers_it_as_often_as_it_says() -> None:
    low, high = rank_correlation_interval(0.5, 28) or (0, 0)
    half = 1.959964 * (1.125 / 25) ** 0.5
    assert np.arctanh([low, high]) == pytest.approx([np.arctanh(0.5) - half, np.arctanh(0.5) + half])
    assert rank_correlation_interval(0.5, 9) is None and rank_correlation_interval(1.0, 40) is None
    rng, true = np.random.default_rng(0), 6 / np.pi * np.arcsin(0.35)  # of normal pairs of correlation 0.7
    covered = 0
    for x, e in rng.normal(size=(1000, 2, 24)):
        found = rank_correlation_interval(rank_correlation(list(x), list(0.7 * x + 0.51**0.5 * e)) or 0, 24)
        covered += found is not None and found[0] <= true <= found[1]
    assert 0.92 < covered / 1000 < 0.98


def test_regret_is_what_the_choice_costs() -> None:
    acc = [0.5, 0.9, 0.7]
    assert selection_regret(acc, [1, 3, 2]) == 0 and selection_regret(acc, [3, 1, 2]) == pytest.approx(0.4)
    assert selection_regret(acc, [2, 1, 2]) == pytest.approx(0.9 - 0.6), "the mean over those that tie"
    with pytest.raises(ValueError, match="trial"):
        selection_regret([], [])
    with pytest.raises(ValueError, match="as many"):
        selection_regret([0.5], [1, 2])


def blobs(labelled: bool = True) -> Dataset:
    x, y = make_blobs(120, 6, centers=3, random_state=1)
    train = Split(torch.tensor(x, dtype=torch.float32), torch.as_tensor(y))
    data = stored("three", train, None, n_classes=3, split="all", source="drawn")
    bare = dataclasses.replace(data, train=Split(train.x, None), n_classes=None)
    return data if labelled else bare


def measured(data: Dataset, seed: int = 0) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Final metrics of an untrained GCML whose clusters are those of k-means."""
    given = {"feature_dim": 4, "backbone": "dense_256", "clustering": "kmeans", "geometry": False}
    config = resolve("gcml", "digits", "tuned", METHOD.stage_settings, METHOD.presets["digits"]["tuned"], given)
    torch.manual_seed(seed)
    model = nn.ModuleDict({"encoder": METHOD.build("encoder", config, (6,), 3)})
    feed = Feed.build(data, "none", torch.device("cpu"), torch.float32, False, Workers())
    found = evaluate.evaluate_model(METHOD, model, config, data, feed, 3, 0)
    assert found is not None
    return evaluate.final_metrics(found, config, data, feed, 0), found.arrays


def test_a_training_records_them_the_same_with_labels_and_without() -> None:
    with_labels, arrays = measured(blobs())
    without, _ = measured(blobs(labelled=False))
    assert {"rate_reduction", "probe", "silhouette", "embedding_rank", "clusters_used"} <= set(without)
    assert {name: with_labels[name] for name in without} == without and "acc" not in without
    assert without["embedding_rank"] == group_spectra(arrays["embedding"])[0].ranks()[0]
    space = reference_space(blobs().train.x[reference_rows(120)])
    found = label_free_scores(space, arrays["labels"][reference_rows(120)])
    assert {name: without[name] for name in found} == found


def test_the_space_is_made_once_for_a_dataset_and_anew_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(x: Tensor) -> label_free.Array:
        made.append(len(x))
        return reference_space(x)

    monkeypatch.setattr(reference, "reference_space", counted)
    reference._spaces.clear()
    measured(blobs(), 0), measured(blobs(), 1)
    assert made == [120]
    x = blobs().train.x[:80]
    measured(stored("part", Split(x, None), None, n_classes=3, split="all", source="drawn"))
    assert made == [120, 80] and len(reference._spaces) == 1
