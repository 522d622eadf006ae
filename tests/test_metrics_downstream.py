"""Classifiers on frozen embeddings, and which scores of an embedding of points a training records."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raymc.config import Value, resolve
from raymc.datasets import Dataset
from raymc.datasets.base import Split, stored
from raymc.distributed import Workers
from raymc.errors import InputError
from raymc.methods import METHODS
from raymc.metrics.downstream import downstream_accuracies, held_out
from raymc.metrics.geometry import geometry_scores
from raymc.metrics.spectra import group_spectra
from raymc.metrics.subspace import rate_reduction
from raymc.ops import cluster_coding_rate, coding_rate
from raymc.training import evaluate
from raymc.training.feed import Feed
from raymc.training.stages import check_sizes

METHOD = METHODS["gcml"]
CLASSIFIERS = ("mlp", "rfc", "svm", "lr")
GEOMETRY = ("rre", "trustworthiness", "continuity", "d_rmse", "lgd", "cra")


def split(n: int, seed: int) -> Split:
    """Two classes in R^6 apart by the sign of one feature, of three that matter to nobody."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator)
    y = torch.arange(n) % 2
    x[:, 0] = (x[:, 0].abs() + 0.5) * (2 * y - 1)
    return Split(x, y)


def data_of(test: bool) -> Dataset:
    return stored("two", split(100, 0), split(50, 1) if test else None, n_classes=2, split="all", source="drawn")


def measured(data: Dataset, **over: Value) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The final metrics of an untrained GCML model."""
    given: dict[str, Value] = {"feature_dim": 4, "backbone": "dense_256", **over}
    config = resolve("gcml", "digits", "tuned", METHOD.stage_settings, METHOD.presets["digits"]["tuned"], given)
    torch.manual_seed(0)
    names = ("encoder", "centers") if config.clustering == "head" else ("encoder",)
    model = nn.ModuleDict({name: METHOD.build(name, config, (6,), 2) for name in names})
    feed = Feed.build(data, "none", torch.device("cpu"), torch.float32, False, Workers())
    found = evaluate.evaluate_model(METHOD, model, config, data, feed, 2, 0)
    assert found is not None
    return evaluate.final_metrics(found, config, data, feed, 0), found.arrays


def test_classifiers_tell_apart_what_can_be_told_apart_and_only_that() -> None:
    train, test = split(200, 0), split(100, 1)
    found = downstream_accuracies(train.x, train.y + 3, test.x, test.y + 3, 0)
    assert tuple(found) == CLASSIFIERS and min(found.values()) > 0.95
    assert found == downstream_accuracies(train.x, train.y + 3, test.x, test.y + 3, 0)
    noise = downstream_accuracies(train.x[:, 1:], train.y, test.x[:, 1:], test.y, 0)
    assert max(noise.values()) < 0.75
    with pytest.raises(InputError, match="two classes"):
        downstream_accuracies(train.x, torch.ones(200), test.x, test.y, 0)
    with pytest.raises(InputError, match="held-out samples"):
        downstream_accuracies(train.x, train.y, test.x[:0], test.y[:0], 0)


def test_a_fifth_of_each_class_is_held_out_the_same_each_time() -> None:
    y = torch.tensor([7] * 50 + [2] * 23 + [5] * 4)[torch.randperm(77, generator=torch.Generator().manual_seed(0))]
    fitted, asked = held_out(y)
    assert torch.equal(torch.cat([fitted, asked]).sort().values, torch.arange(77))
    assert [int((y[asked] == one).sum()) for one in (7, 2, 5)] == [10, 4, 0]
    assert torch.equal(asked, asked.sort().values) and torch.equal(asked, held_out(y)[1])
    assert not torch.equal(asked, held_out(y, 1)[1])


def test_labels_that_leave_nothing_to_test_on_are_named_before_training() -> None:
    few, many = data_of(False), data_of(True)
    labels = torch.arange(100) // 4  # 25 classes of 4
    fours = dataclasses.replace(few, train=Split(few.train.x, labels))
    tested = dataclasses.replace(many, train=Split(few.train.x, labels))
    five = dataclasses.replace(few, train=Split(few.train.x, torch.cat([labels[:99], labels[:1]])))
    alike = dataclasses.replace(many, train=Split(few.train.x, labels * 0))
    bare = dataclasses.replace(few, train=Split(few.train.x, None))
    preset = METHOD.presets["digits"]["tuned"]
    asked = resolve("gcml", "digits", "tuned", METHOD.stage_settings, preset, {"downstream": True})
    with pytest.raises(InputError, match=r"no class has 5 samples.*the largest has 4.*downstream=false"):
        check_sizes(METHOD, asked, fours, 2)
    with pytest.raises(InputError, match=r"all 100 labels are the same.*downstream=false"):
        check_sizes(METHOD, asked, alike, 2)
    for data in (few, many, tested, five, bare):
        check_sizes(METHOD, asked, data, 2)
    check_sizes(METHOD, dataclasses.replace(asked, downstream=False), fours, 2)


def test_nothing_is_measured_unless_asked_for() -> None:
    metrics, _ = measured(data_of(True), geometry=False, downstream=False)
    assert not set(GEOMETRY) & set(metrics) and not any(name.startswith("downstream") for name in metrics)


@pytest.mark.parametrize("test", [True, False])
def test_scores_of_the_embedding_are_among_the_metrics(test: bool) -> None:
    data = data_of(test)
    metrics, arrays = measured(data, geometry=True, downstream=True)
    z = arrays["embedding"]
    scores = geometry_scores(data.train.x, z, arrays["labels"])
    assert {name: metrics[name] for name in GEOMETRY} == pytest.approx(scores)
    assert {f"downstream_{name}" for name in CLASSIFIERS} <= set(metrics)
    if not test:
        fitted, asked = held_out(data.train.y)
        mine = downstream_accuracies(z[fitted], data.train.y[fitted], z[asked], data.train.y[asked], 0)
        assert {name: metrics[f"downstream_{name}"] for name in CLASSIFIERS} == mine


def test_without_labels_the_geometry_is_measured_and_classifiers_are_not() -> None:
    data = data_of(False)
    bare = dataclasses.replace(data, train=dataclasses.replace(data.train, y=None), n_classes=None)
    metrics, _ = measured(bare, geometry=True, downstream=True)
    assert set(GEOMETRY) <= set(metrics) and not any(name.startswith("downstream") for name in metrics)


@pytest.mark.parametrize("clustering", ["head", "kmeans", "gmm", "spectral"])
def test_rate_reduction_of_points_is_that_of_their_directions(clustering: str) -> None:
    metrics, arrays = measured(data_of(False), clustering=clustering, geometry=False)
    unit = functional.normalize(arrays["embedding"], dim=1)
    assert metrics["rate_reduction"] == rate_reduction(*group_spectra(unit, arrays["labels"]))
    assert abs(float(arrays["embedding"].norm(dim=1).mean()) - 1) > 0.01


def test_rate_reduction_by_clusters_is_that_of_hard_memberships() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.nn.functional.normalize(torch.randn(90, 7, generator=generator).double(), dim=1)
    labels = torch.randint(4, (90,), generator=generator) * 2  # clusters without points between them
    member = torch.nn.functional.one_hot(labels, 9).double()
    expected = float(coding_rate(z, 0.2) - cluster_coding_rate(z, member, 0.2))
    assert rate_reduction(*group_spectra(z, labels)) == pytest.approx(expected, rel=1e-12)
