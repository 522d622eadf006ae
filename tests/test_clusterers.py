"""Clusters of a model without a head that assigns: found on known subspaces, handed on to other points, in a run."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from raymc import clusterers
from raymc.clusterers.kmeans import CentreAssigner, kmeans
from raymc.clusterers.membership import MembershipAssigner
from raymc.clusterers.mixture import MixtureAssigner, gaussian_mixture
from raymc.clusterers.spectral import point_graph, spectral_clustering, unit_rows
from raymc.clusterers.tsne import tsne
from raymc.clusterers.voting import NEIGHBOURS, NeighbourAssigner, PointAssigner
from raymc.config import Config, Value, resolve
from raymc.datasets import Dataset, load
from raymc.errors import CollapsedError, DivergedError, InputError
from raymc.estimators.model import load_model
from raymc.methods import METHODS
from raymc.metrics import clustering_scores
from raymc.metrics.downstream import downstream_accuracies
from raymc.metrics.spectra import group_spectra
from raymc.metrics.subspace import rank_scores
from raymc.ops import affinity_rows
from raymc.ops.sinkhorn import symmetric_scaling
from raymc.rng import seed32
from raymc.training.run import run
from raymc.training.smoke import limit, limited, one_step
from raymc.training.stages import check_sizes

MLC = METHODS["mlc"]
FINDERS = ("membership", "ensc", "ssc_omp", "kmeans", "gmm", "spectral", "agglomerative", "hdbscan")
BY_DISTANCE = ("kmeans", "gmm", "agglomerative", "hdbscan")
VOTED = dict.fromkeys(("agglomerative", "hdbscan"), PointAssigner)
ASSIGNERS = {"membership": MembershipAssigner, "kmeans": CentreAssigner, "gmm": MixtureAssigner, **VOTED}
OF_POINTS = {"kmeans": CentreAssigner, "gmm": MixtureAssigner, "spectral": PointAssigner, **VOTED}


def mlc_config(**over: Value) -> Config:
    """MLC on the digits, small, with a stage 1 that spreads them in few steps."""
    small: dict[str, Value] = {"pre_feature_dim": 32, "feature_dim": 16, "heads.epochs": 2}
    small |= {f"{stage}.batch_size": 64 for stage in MLC.stage_settings}
    small |= {"pretrain.epochs": 6, "pretrain.optimizer": "adam", "pretrain.learning_rate": 1e-3}
    dotted = {key.replace("__", "."): value for key, value in over.items()}
    return resolve("mlc", "digits", "shared", MLC.stage_settings, MLC.presets["digits"]["shared"], small, dotted)


def points(counts: Sequence[int], rank: int = 5, one_sided: bool = False) -> tuple[Tensor, Tensor]:
    """Unit rows of as many random subspaces of R^20 in a drawn order, and which they are from; or bundles of rays."""
    rng = np.random.default_rng(0)
    parts = []
    for count in counts:
        basis = np.linalg.qr(rng.normal(size=(20, rank)))[0]
        weights = rng.normal(size=(count, rank))
        parts.append((weights * 0.2 + [1, *[0] * (rank - 1)] if one_sided else weights) @ basis.T)
    z = unit_rows(np.concatenate(parts) + 0.01 * rng.normal(size=(sum(counts), 20)))
    order = rng.permutation(len(z))
    return torch.as_tensor(z[order]).float(), torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))[order]


def accuracy(y: Tensor, found: Tensor) -> float:
    return clustering_scores(y, found)["acc"]


@pytest.mark.parametrize("name", FINDERS)
def test_subspaces_are_found_and_other_points_follow(name: str) -> None:
    """Half of the points are clustered, and the rest go with those of the same subspace, whoever else is asked."""
    z, y = points([80, 80, 80], one_sided=name in BY_DISTANCE)
    known, new = slice(0, 120), slice(120, 240)
    found = clusterers.find(mlc_config(clustering=name), z[known], z[known], 3, 0)
    assert found.labels.dtype == torch.int64 and accuracy(y[known], found.labels) == 1.0
    assert isinstance(found.assigner, ASSIGNERS.get(name, NeighbourAssigner))
    own = found.assigner(z[known], z[known])
    assert float((own == found.labels).float().mean()) >= 0.99
    named = {int(k): int(found.labels[y[known] == k][0]) for k in range(3)}
    labels = found.assigner(z[new], z[new])
    assert labels.tolist() == [named[int(k)] for k in y[new]]
    assert [int(found.assigner(row[None], row[None])) for row in z[new]] == labels.tolist()
    again = clusterers.find(mlc_config(clustering=name), z[known], z[known], 3, 0)
    assert torch.equal(again.labels, found.labels)


@pytest.mark.parametrize("name", ["membership", "ensc", "ssc_omp", "spectral"])
def test_a_point_has_no_sign(name: str) -> None:
    z, _ = points([40, 40], one_sided=True)
    flipped = z * torch.where(torch.arange(80) % 3 == 0, -1.0, 1.0).unsqueeze(1)
    one, other = (clusterers.find(mlc_config(clustering=name), x, x, 2, 0) for x in (z, flipped))
    assert torch.equal(one.labels, other.labels)
    assert torch.equal(one.assigner(z, z), one.assigner(-z, -z))


@pytest.mark.parametrize("eta", [0.05, 0.175])
def test_memberships_of_new_points_bear_clusters_of_unequal_size(eta: float) -> None:
    z, y = points([180, 60, 180, 60], rank=3)
    known, new = slice(0, 240), slice(240, 480)
    found = clusterers.find(mlc_config(heads__eta=eta), z[known], z[known], 4, 0)
    assert accuracy(y[known], found.labels) == 1.0
    both = torch.cat([found.labels, found.assigner(z[new], z[new])])
    assert accuracy(y, both) == 1.0


def test_a_new_points_membership_has_the_scaling_of_the_points_that_were_clustered() -> None:
    """30 points in one place weigh 1/sqrt(30) each against one that is alone; 9 of them are among the 10 that vote."""
    anchors = torch.eye(2)[[0] * 30 + [1]]
    potential, _ = symmetric_scaling(affinity_rows(anchors), 0.02)
    assigner = MembershipAssigner(
        anchors=anchors, potential=potential, labels=torch.tensor([0] * 30 + [1]), eta=torch.tensor(0.02)
    )
    # Against 9 / sqrt(30) = 1.64 the one that is nearer by 0.02 counts e^(0.02 / eta) = 2.7, by 0.008 only 1.5.
    c = torch.tensor([[0.68, 0.70], [0.68, 0.688], [0.70, 0.68], [-0.68, 0.70]])
    assert assigner(c, c).tolist() == [1, 0, 0, 1]


def test_new_points_follow_where_the_membership_shows_too_few_directions() -> None:
    """All in a narrow cone: the affinities hardly differ, and its smaller eigenvalues are below 0."""
    z, y = points([60, 60, 60])
    cone = torch.nn.functional.normalize(torch.cat([torch.full((180, 1), 6.0), z], 1), dim=1)
    found = clusterers.find(mlc_config(), cone[:120], cone[:120], 3, 0)
    labels = found.assigner(cone[120:], cone[120:])
    assert len(labels.unique()) == 3
    known = torch.as_tensor([int(found.labels[(cone[:120] @ row).argmax()]) for row in cone[120:]])
    assert float((labels == known).float().mean()) > 0.6
    assert len(y) == 180


def test_the_membership_is_of_the_cluster_features_and_the_rest_of_z() -> None:
    z, y = points([40, 40])
    other = points([40, 40], rank=4)[0][torch.randperm(80, generator=torch.Generator().manual_seed(1))]
    assert accuracy(y, clusterers.find(mlc_config(), other, z, 2, 0).labels) == 1.0
    assert accuracy(y, clusterers.find(mlc_config(clustering="spectral"), z, other, 2, 0).labels) == 1.0


def blobs(place: float = 0.0, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Three clusters of 80 points in R^4, all in one direction from the origin, and which they are from."""
    rng = np.random.default_rng(0)
    y = torch.as_tensor(rng.permutation(np.repeat(np.arange(3), 80)))
    noise = torch.as_tensor(rng.normal(size=(240, 4))).float()
    return scale * (place + 8 * (1 + y[:, None]) + noise), y


@pytest.mark.parametrize(("place", "scale"), [(0.0, 1.0), (1000.0, 1.0), (0.0, 1e-3), (0.0, 1e3)])
@pytest.mark.parametrize("name", OF_POINTS)
def test_clusters_of_points_are_found_wherever_they_lie(name: str, place: float, scale: float) -> None:
    """Directions say nothing here, and the rest of the points follow also from a model that was stored."""
    z, y = blobs(place, scale)
    known, new = slice(0, 120), slice(120, 240)
    found = clusterers.find(mlc_config(clustering=name), z[known], None, 3, 0, unit_rows=False)
    assert found.labels.dtype == torch.int64 and accuracy(y[known], found.labels) == 1.0
    assert isinstance(found.assigner, OF_POINTS[name])
    stored = type(found.assigner)(**found.assigner.state_dict())
    named = {int(k): int(found.labels[y[known] == k][0]) for k in range(3)}
    assert stored(z[new], None).tolist() == [named[int(k)] for k in y[new]]
    assert [int(stored(row[None], None)) for row in z[new]] == stored(z[new], None).tolist()
    again = clusterers.find(mlc_config(clustering=name), z[known], None, 3, 0, unit_rows=False)
    assert torch.equal(again.labels, found.labels)


@pytest.mark.parametrize("place", [0.0, 1e2, 1e4])
def test_new_points_go_to_their_nearest_centre_wherever_the_cloud_lies(place: float) -> None:
    """In single precision as samples are: the products of far points have no digits left for their distances."""
    rng = np.random.default_rng(0)
    z = torch.as_tensor(place + rng.normal(size=(3000, 10))).float()
    found = clusterers.find(mlc_config(clustering="kmeans"), z[:1000], None, 8, 0, unit_rows=False)
    assert isinstance(found.assigner, CentreAssigner)
    centres = found.assigner.centres.double()
    exact = (z.double()[:, None] - centres).square().sum(2).argmin(1)
    assert torch.equal(found.assigner(z, None), exact)
    assert float((exact[:1000] == found.labels).float().mean()) > 0.99


def test_hdbscan_finds_the_number_and_noise_follows_its_neighbours() -> None:
    """Two dense blobs and points between and beyond them, which are noise; the number asked for has no say."""
    rng = np.random.default_rng(0)
    dense = np.concatenate([rng.normal(0, 0.1, (60, 2)), rng.normal(0, 0.1, (60, 2)) + [10, 0]])
    far = np.array([[3.0, 1], [7, -1], [0, 4], [10, -5], [-4, 0], [15, 1]])
    z = torch.as_tensor(np.concatenate([dense, far])).float()
    found = clusterers.find(mlc_config(clustering="hdbscan", hdbscan_min_cluster_size=20), z, None, 9, 0, False)
    assert found.facts["clusters_found"] == 2 and 0 < found.facts["noise"] < 0.3
    assert torch.equal(found.labels, (z[:, 0] > 5).long() ^ int(found.labels[0]))


def test_hdbscan_that_finds_nothing_says_so() -> None:
    z = torch.as_tensor(np.random.default_rng(0).uniform(size=(30, 3))).float()
    with pytest.raises(CollapsedError, match="all 30 points are noise at hdbscan_min_cluster_size 20"):
        clusterers.find(mlc_config(clustering="hdbscan", hdbscan_min_cluster_size=20), z, None, 3, 0, False)
    with pytest.raises(InputError, match="hdbscan_min_cluster_size: 31 is above the 30 points"):
        clusterers.find(mlc_config(clustering="hdbscan", hdbscan_min_cluster_size=31), z, None, 3, 0, False)


CLUSTERERS = {
    "kmeans": lambda z, seed: kmeans(z, 3, seed, 2)[0],
    "spectral": lambda z, seed: spectral_clustering(np.abs(z @ z.T), 3, seed, 2),
    "mixture": lambda z, seed: gaussian_mixture(z, 3, seed).labels,
    "mixture_of_starts": lambda z, seed: gaussian_mixture(z, 3, seed, 2).labels,
    "tsne": lambda z, seed: tsne(z, seed),
    "downstream": lambda z, seed: list(downstream_accuracies(z, SIGNS, z, SIGNS, seed).values()),
}
SIGNS = np.arange(40) % 2


@pytest.mark.parametrize("name", CLUSTERERS)
def test_every_seed_serves_and_those_below_2_to_the_32_as_they_are(name: str) -> None:
    z = np.random.default_rng(0).normal(size=(40, 3))
    small, large = ([CLUSTERERS[name](z, seed) for seed in seeds] for seeds in ((0, 5), (2**32, 2**32 + 5)))
    if name != "tsne":  # whose start is drawn by the whole seed
        np.testing.assert_array_equal(small, large)
    assert len(CLUSTERERS[name](z, 2**63 - 1)) == len(small[0])
    assert [seed32(seed) for seed in (0, 7, 2**32 - 1)] == [0, 7, 2**32 - 1]


@pytest.mark.parametrize("name", ["membership", "ensc", "ssc_omp"])
def test_ways_that_are_of_directions_are_refused_for_points(name: str) -> None:
    z, _ = blobs()
    with pytest.raises(InputError, match=f"clustering {name} is of directions"):
        clusterers.find(mlc_config(clustering=name), z, z, 3, 0, unit_rows=False)


@pytest.mark.parametrize("width", [3, 100])
def test_a_mixture_tells_clusters_by_their_spread_and_labels_new_points_as_it_did_its_own(width: int) -> None:
    """One cluster inside the other: its centre says nothing; constant features and duplicates do no harm."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(2), 300)
    x = rng.normal(size=(600, width)) * np.where(y, 0.05, 1.0)[:, None] + 0.02 * y[:, None]
    x[:, 0], x[10] = 4.0, x[11]
    found = gaussian_mixture(x, 2, 0)
    if width < 64:
        assert clustering_scores(y, found.labels)["acc"] > 0.95
    assigner = MixtureAssigner(**{part: torch.as_tensor(getattr(found, part)) for part in ("means", "roots", "logs")})
    np.testing.assert_array_equal(assigner(torch.as_tensor(x), None).numpy(), found.labels)
    assert found.roots.shape == ((2, 3, 3) if width == 3 else (2, 100))
    np.testing.assert_array_equal(gaussian_mixture(40 * x + 7, 2, 0).labels, found.labels)


def test_of_several_starts_the_likeliest_mixture_counts() -> None:
    """Two long clusters beside two small round ones, which k-means joins, cutting the long ones."""
    rng = np.random.default_rng(0)
    sizes, spreads = [800, 800, 80, 80], [(5.0, 0.4), (5.0, 0.4), (0.3, 0.3), (0.3, 0.3)]
    places = [(0, 0), (0, 4), (0, 12), (1.5, 12)]
    x = np.concatenate([rng.normal(at, by, (n, 2)) for n, by, at in zip(sizes, spreads, places, strict=True)])
    y = np.repeat(np.arange(4), sizes)
    once, likeliest = gaussian_mixture(x, 4, 0), gaussian_mixture(x, 4, 0, starts=20)
    assert clustering_scores(y, once.labels)["acc"] < 0.6 and clustering_scores(y, likeliest.labels)["acc"] > 0.9
    np.testing.assert_array_equal(gaussian_mixture(x, 4, 0, starts=20).labels, likeliest.labels)


@pytest.mark.parametrize("starts", [None, 2])
def test_a_mixture_of_few_places_leaves_clusters_empty(starts: int | None) -> None:
    x = np.repeat(np.eye(2), 10, axis=0)
    found = gaussian_mixture(x, 4, 0, starts)
    assert len(set(found.labels.tolist())) == 2 and np.isfinite(found.logs).all()
    assert len(gaussian_mixture(np.ones((5, 2)), 2, 2**32 - 1, starts).labels) == 5
    with pytest.raises(InputError, match="5 points"):
        gaussian_mixture(np.ones((5, 2)), 6, 0, starts)


def test_the_graph_of_points_joins_mutual_neighbours_twice_as_strongly() -> None:
    """On a line of 12 points each end has one point that is not among its 10 nearest."""
    graph = point_graph(torch.arange(12.0)[:, None] ** 1.01).toarray()
    np.testing.assert_array_equal(graph, graph.T)
    assert graph[0, 11] == 0 and graph[5, 6] == 1 and set(np.unique(graph)) == {0, 0.5, 1}
    assert not graph.diagonal().any() and graph.sum() == 12 * 10


def test_among_points_the_most_frequent_cluster_wins_and_else_the_nearest() -> None:
    points = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    assigner = PointAssigner(points=points, labels=torch.tensor([1, 0, 0, 1]))
    assert assigner(torch.tensor([[-1.0], [1.4], [9.0]]), None).tolist() == [1, 0, 1]
    assert PointAssigner(points=points, labels=torch.tensor([1, 0, 0, 0]))(torch.tensor([[-1.0]]), None).tolist() == [0]


def test_what_is_said_of_points_is_of_distances() -> None:
    config = mlc_config(clustering="spectral", cluster_points=10)
    assert clusterers.described(config, 20, unit_rows=False) == (
        "spectral clustering of z's 10 nearest neighbours of 10 of 20 samples, "
        "the others by the vote of their 10 nearest"
    )
    mixture = clusterers.described(dataclasses.replace(config, clustering="gmm"), 20, unit_rows=False)
    assert mixture == "a Gaussian mixture on z of 10 of 20 samples, the others by their likeliest Gaussian"


def test_votes_of_neighbours_are_weighed_by_their_cosine() -> None:
    anchors = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [0.2, 1.0], [0.2, -1.0]]), dim=1)
    assigner = NeighbourAssigner(anchors=anchors, labels=torch.tensor([1, 0, 0]))
    assert len(anchors) < NEIGHBOURS
    assert assigner(torch.tensor([[-5.0, 0.0], [0.0, 5.0]]), None).tolist() == [1, 0]


def test_chosen_rows_are_the_same_for_every_seed_and_all_where_there_are_few() -> None:
    rows = clusterers.chosen_rows(mlc_config(cluster_points=100), 1000)
    assert torch.equal(rows, clusterers.chosen_rows(mlc_config(cluster_points=100, seed=7), 1000))
    assert len(rows) == 100 and bool((rows.diff() > 0).all()) and 0 <= int(rows[0]) and int(rows[-1]) < 1000
    assert int(rows[-1]) > 500, "drawn from the whole"
    assert torch.equal(clusterers.chosen_rows(mlc_config(cluster_points=100), 100), torch.arange(100))
    assert torch.equal(clusterers.chosen_rows(mlc_config(), 50), torch.arange(50))
    assert len(clusterers.chosen_rows(mlc_config(), 50, most=20)) == 20


def test_fewer_points_than_clusters_and_a_model_without_cluster_features_are_named() -> None:
    z, _ = points([4, 4])
    with pytest.raises(InputError, match="8 points cannot have 9 clusters: cluster_points is too small"):
        clusterers.find(mlc_config(), z, z, 9, 0)
    with pytest.raises(InputError, match="clustering membership is MLC's"):
        clusterers.find(mlc_config(), z, None, 2, 0)


def test_an_eta_that_leaves_every_point_alone_is_named() -> None:
    z, _ = points([40, 40])
    with pytest.raises(CollapsedError, match=r"heads.eta 1e-07 is too small"):
        clusterers.find(mlc_config(heads__eta=1e-7), z, z, 2, 0)


def test_ranks_are_of_all_and_the_means_over_clusters_and_classes() -> None:
    eye = torch.eye(6)
    z = torch.cat([eye[:2].repeat(6, 1), eye[2:5].repeat(4, 1)])
    labels = torch.arange(2).repeat_interleave(12)
    classes = torch.arange(4).repeat_interleave(6)
    assert rank_scores(*group_spectra(z, labels, classes)) == {
        "rank_all": 5.0,
        "rank_clusters": 2.5,
        "rank_classes": 2.5,
    }
    assert rank_scores(*group_spectra(z, torch.zeros(24))) == {"rank_all": 5.0, "rank_clusters": 5.0}
    assert rank_scores(*group_spectra(z, classes + 3, labels))["rank_clusters"] == 2.5


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """300 digits, in place of what a run would load."""
    few = limit(load("digits"), 300)
    monkeypatch.setattr("raymc.datasets.load_once", lambda name, root: few)
    return few


def train(config: Config, folder: Path, **more: Any) -> dict[str, Any]:
    seeds = dict.fromkeys(MLC.stage_settings, config.seed)
    result = run(config, storage=str(folder / "store"), out=folder / "out", stage_seeds=seeds, **more)
    assert json.loads((folder / "out" / "metrics.json").read_text()) == result
    return result


def curve(folder: Path, stage: str) -> list[dict[str, Any]]:
    rows = map(json.loads, (folder / "out" / "curve.jsonl").read_text().splitlines())
    return [row for row in rows if row["stage"] == stage]


def test_a_run_clusters_some_points_and_labels_all(tmp_path: Path, few_digits: Dataset) -> None:
    config = mlc_config(cluster_points=100, evaluate_every=1)
    result = train(config, tmp_path, keep_model=True)
    scores = {"acc", "nmi", "ari"}
    assert {f"{kind}{name}" for kind in ("", "clustered_", "test_") for name in scores} <= set(result["metrics"])
    assert result["clusters_by"] == (
        "spectral clustering of the doubly stochastic membership of 100 of 300 samples, the others by "
        "their 10 largest memberships"
    )
    arrays = np.load(tmp_path / "out" / "labels.npz")
    rows = clusterers.chosen_rows(config, 300)
    np.testing.assert_array_equal(arrays["clustered"], rows.numpy())
    assert arrays["labels"].shape == arrays["y"].shape == arrays["test_labels"].shape == (300,)
    mine = clustering_scores(arrays["y"][rows], arrays["labels"][rows])["acc"]
    assert result["metrics"]["clustered_acc"] == mine
    similar = np.load(tmp_path / "out" / "similarity.npz")
    assert similar["map"].dtype == np.uint8 and len(similar["bounds"]) == len(similar["clusters"]) + 1
    assert [row["epoch"] for row in curve(tmp_path, "heads")] == [1, 2]
    wanted = {"rank_all", "rank_clusters", "rank_classes", "rate", "cluster_rate", "regulariser", "acc"}
    assert all(wanted <= set(row) for row in curve(tmp_path, "heads"))
    assert all(not {"acc", "rank_all"} & set(row) for row in curve(tmp_path, "pretrain"))

    model = load_model(tmp_path / "out", device="cpu")
    labels = model.predict(few_digits.train.x)
    assert float((labels[rows] == arrays["labels"][rows]).mean()) > 0.9
    assert model.ruled == float((labels == arrays["labels"]).mean())
    others = np.setdiff1d(np.arange(300), rows.numpy())
    np.testing.assert_array_equal(labels[others], arrays["labels"][others])
    assert few_digits.test is not None
    np.testing.assert_array_equal(model.predict(few_digits.test.x), arrays["test_labels"])

    again = train(config, tmp_path)
    assert [stage["cached"] for stage in again["stages"]] == [True, True] and again["metrics"] == result["metrics"]
    follow = train(dataclasses.replace(config, cluster_points=500), tmp_path)
    assert follow["clusters_by"] == "spectral clustering of the doubly stochastic membership"
    assert not any(name.startswith("clustered") for name in follow["metrics"])


@pytest.mark.parametrize("name", FINDERS[:-1])  # to HDBSCAN so short a training is noise
def test_stage_1_alone_is_clustered_by_every_method(name: str, tmp_path: Path, few_digits: Dataset) -> None:
    """With a seed that scikit-learn itself would not take."""
    config = mlc_config(clustering=name, heads__epochs=0, cluster_points=80, precision="float64", seed=2**40)
    result = train(config, tmp_path)
    assert [stage["name"] for stage in result["stages"]] == ["pretrain"]
    assert result["clusters_by"].startswith(clusterers.WORDS[name] + " of 80 of 300 samples, the others by ")
    assert result["metrics"]["clusters_used"] > 2 and "clustered_acc" in result["metrics"]


def test_a_training_with_too_small_an_eta_ends_in_a_named_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_digits: Dataset
) -> None:
    with pytest.raises(CollapsedError, match=r"heads.eta 1e-07 is too small") as alone:
        train(mlc_config(heads__eta=1e-7), tmp_path)
    monkeypatch.setattr(sys.modules["raymc.ops.sinkhorn"], "MOST_ITERATIONS", 0)  # ops.sinkhorn is the function
    with pytest.raises(DivergedError, match="eta 0.1 is too small") as unsettled:
        train(mlc_config(heads__eta=0.1), tmp_path)
    assert (alone.value.state, unsettled.value.state) == ("collapsed", "diverged")
    assert not (tmp_path / "out").exists()
    assert len(list((tmp_path / "store" / "stages").glob("*/result.json"))) == 1, "that of stage 1"


def test_sizes_that_do_not_fit_are_the_users_error(tmp_path: Path, few_digits: Dataset) -> None:
    with pytest.raises(InputError, match="300 points cannot have 301 clusters: n_clusters is too large"):
        train(mlc_config(n_clusters=301), tmp_path)
    with pytest.raises(InputError, match=r"heads.batch_size: 9 points cannot show 10 clusters"):
        train(mlc_config(heads__batch_size=9), tmp_path)
    with pytest.raises(InputError, match=r"cluster_points: 9 points cannot have 10 clusters"):
        train(mlc_config(cluster_points=9), tmp_path)
    assert not (tmp_path / "store" / "stages").exists(), "told before anything is trained"
    check_sizes(MLC, mlc_config(heads__batch_size=9, heads__epochs=0), few_digits, 10)
    with pytest.raises(InputError, match="9 points cannot have 10 clusters: n_clusters is too large"):
        one_step(mlc_config(n_samples=9), few_digits)


def test_without_labels_n_clusters_is_needed_and_scores_are_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_digits: Dataset
) -> None:
    train_split = dataclasses.replace(few_digits.train, y=None)
    bare = dataclasses.replace(few_digits, n_classes=None, train=train_split, test=None)
    monkeypatch.setattr("raymc.datasets.load_once", lambda name, root: bare)
    with pytest.raises(InputError, match="digits has no labels: give n_clusters"):
        train(mlc_config(), tmp_path)
    result = train(mlc_config(n_clusters=4, cluster_points=100, evaluate_every=1), tmp_path)
    words = ("acc", "nmi", "ari", "classes")
    assert not any(name.endswith(words) for row in (result["metrics"], *curve(tmp_path, "heads")) for name in row)
    assert {"rank_all", "rank_clusters", "rate_reduction"} <= set(curve(tmp_path, "heads")[-1])
    assert set(np.load(tmp_path / "out" / "labels.npz")) == {"labels", "confidence", "clustered"}
    names = {"config.json", "curve.jsonl", "gallery.npz", "labels.npz", "metrics.json", "similarity.npz"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


def test_n_samples_cuts_the_training_split_alone_and_alike_for_every_seed(tmp_path: Path, few_digits: Dataset) -> None:
    cut = limited(few_digits, mlc_config(n_samples=120))
    assert len(cut.train) == cut.epoch_size == 120 and cut.split.endswith(", cut to 120")
    assert cut.test is few_digits.test and cut.fingerprint != few_digits.fingerprint
    assert limited(few_digits, mlc_config(n_samples=300)) is few_digits
    drawn = []
    for seed in (0, 5):
        result = train(mlc_config(n_samples=120, seed=seed), tmp_path)
        drawn.append(np.load(tmp_path / "out" / "labels.npz"))
        assert (result["n"], result["test_n"], result["split"]) == (120, 300, cut.split)
        assert result["stages"][0]["cached"] is False
    np.testing.assert_array_equal(drawn[0]["y"], drawn[1]["y"])
    np.testing.assert_array_equal(drawn[0]["y"], cut.train.y.numpy())


def test_a_stored_curve_keeps_no_scores_of_other_clusters(tmp_path: Path) -> None:
    """MLC's heads do not depend on what is made of them: one result serves all, its scores only who made them."""

    def rows(**over: Value) -> list[dict[str, Any]]:
        train(mlc_config(evaluate_every=1, **over), tmp_path)
        return curve(tmp_path, "heads")

    first, again, other = rows(), rows(), rows(n_clusters=7)
    assert "acc" in first[-1] and "rank_all" in first[-1]
    assert [row | {"cached": False} for row in again] == first
    assert "acc" not in other[-1] and "rank_all" not in other[-1] and other[-1]["loss"] == first[-1]["loss"]
