"""The scores of an embedding's geometry: their definitions written out, scikit-learn's, and what must not matter."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.manifold import trustworthiness
from torch import Tensor

from raymc.errors import InputError
from raymc.metrics import geometry
from raymc.metrics.geometry import geometry_scores, learnt_centre_agreement

RANKED = ("rre", "trustworthiness", "continuity", "cra")


def cloud(n: int = 60, copies: int = 0, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs `[n, 12]`, a distorted embedding `[n, 3]` and labels; the last `copies` rows repeat the first ones."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 12)) * np.linspace(3, 0.3, 12)
    z = np.tanh(x[:, :3]) + 0.3 * rng.normal(size=(n, 3))
    labels = rng.integers(4, size=n)
    for rows in (x, z):
        rows[n - copies :] = rows[:copies]
    return torch.as_tensor(x), torch.as_tensor(z), torch.as_tensor(labels)


def written_out(x: Tensor, z: Tensor, labels: Tensor, k1: int, k2: int) -> dict[str, float]:
    """The definitions, point by point; ties go to the lower index."""
    n, spaces = len(x), (x.numpy(), z.numpy())
    d_x, d_z = (np.sqrt(((s[:, None] - s[None]) ** 2).sum(2)) for s in spaces)
    near_x, near_z = (
        [sorted((j for j in range(n) if j != i), key=lambda j: (round(d[i, j], 9), j)) for i in range(n)]
        for d in (d_x, d_z)
    )
    rank_x, rank_z = ([{j: at + 1 for at, j in enumerate(row)} for row in near] for near in (near_x, near_z))
    rows: dict[str, list[float]] = {name: [] for name in ("rre", "trustworthiness", "continuity", "lgd")}
    for k in range(k1, k2 + 1):
        pairs_x = [(i, j) for i in range(n) for j in near_x[i][:k]]
        pairs_z = [(i, j) for i in range(n) for j in near_z[i][:k]]
        norm = n * sum(abs(n - 2 * rank) / rank for rank in range(1, k + 1))
        one = sum(abs(rank_x[i][j] - rank_z[i][j]) / rank_z[i][j] for i, j in pairs_z) / norm
        other = sum(abs(rank_x[i][j] - rank_z[i][j]) / rank_x[i][j] for i, j in pairs_x) / norm
        rows["rre"].append((one + other) / 2)
        scale = 2 / (n * k * (2 * n - 3 * k - 1))
        intruders, lost = set(pairs_z) - set(pairs_x), set(pairs_x) - set(pairs_z)
        rows["trustworthiness"].append(1 - scale * sum(rank_x[i][j] - k for i, j in intruders))
        rows["continuity"].append(1 - scale * sum(rank_z[i][j] - k for i, j in lost))
        gaps = [(d_x[i, j] / x.shape[1] ** 0.5 - d_z[i, j] / z.shape[1] ** 0.5) ** 2 for i, j in pairs_x]
        rows["lgd"].append((sum(gaps) / (k * n)) ** 0.5)
    clusters = sorted(set(labels.tolist()))
    orders = []
    for space in spaces:
        centres = [space[labels.numpy() == c].mean(0) for c in clusters]
        apart = np.linalg.norm(np.stack(centres)[:, None] - np.stack(centres)[None], axis=2).round(9)
        np.fill_diagonal(apart, -1)
        orders.append(np.argsort(apart, axis=1, kind="stable"))
    return {name: float(np.mean(values)) for name, values in rows.items()} | {
        "d_rmse": float(np.sqrt(((d_x - d_z) ** 2).sum() / n**2)),
        "cra": float(np.mean(orders[0] == orders[1])),
    }


@pytest.mark.parametrize(("n", "copies", "k1", "k2"), [(60, 0, 3, 7), (60, 20, 3, 7), (60, 30, 1, 5), (15, 0, 7, 7)])
def test_the_scores_are_those_of_their_definitions(n: int, copies: int, k1: int, k2: int) -> None:
    data = cloud(n, copies)
    assert geometry_scores(*data, k1, k2) == pytest.approx(written_out(*data, k1, k2), abs=1e-8)


def test_the_scores_are_means_over_three_to_seven_neighbours() -> None:
    """As in the published evaluation; the paper gives no numbers."""
    assert (geometry.FEWEST, geometry.MOST) == (3, 7)
    data = cloud()
    assert geometry_scores(*data) == pytest.approx(written_out(*data, 3, 7), abs=1e-8)


def test_all_points_in_few_places_and_a_constant_embedding_have_finite_scores() -> None:
    places = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]]).double()[torch.arange(30) % 3]
    for z in (torch.zeros(30, 2).double(), places, cloud(30)[1]):
        for x in (places, cloud(30)[0], places[:, :1] * 0):
            labels = torch.arange(30) % 3
            assert geometry_scores(x, z, labels, 2, 4) == pytest.approx(written_out(x, z, labels, 2, 4), abs=1e-8)


@pytest.mark.parametrize("k", [1, 5, 12])
def test_trustworthiness_and_continuity_are_scikit_learns(k: int) -> None:
    x, z, labels = cloud(150)
    mine = geometry_scores(x, z, labels, k, k)
    assert mine["trustworthiness"] == pytest.approx(trustworthiness(x.numpy(), z.numpy(), n_neighbors=k), abs=1e-12)
    assert mine["continuity"] == pytest.approx(trustworthiness(z.numpy(), x.numpy(), n_neighbors=k), abs=1e-12)


@pytest.mark.parametrize("copies", [0, 25])
def test_the_identity_keeps_everything(copies: int) -> None:
    x, _, labels = cloud(copies=copies)
    best = {"rre": 0, "trustworthiness": 1, "continuity": 1, "d_rmse": 0, "lgd": 0, "cra": 1}
    assert geometry_scores(x, x, labels) == best
    far = geometry_scores(x.float(), (x + 1e4).float(), labels)
    assert far == pytest.approx(best, abs=2e-3)


def test_motions_of_the_embedding_change_nothing_and_its_scale_no_rank() -> None:
    x, z, labels = cloud()
    scores = geometry_scores(x, z, labels)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double())[0]
    assert geometry_scores(x, z @ turn + 100, labels) == pytest.approx(scores, abs=1e-8)
    assert geometry_scores(x - 50, z, labels) == pytest.approx(scores, abs=1e-8)
    scaled = geometry_scores(x, 7 * z, labels)
    assert {name: scaled[name] for name in RANKED} == pytest.approx({name: scores[name] for name in RANKED})
    assert scaled["d_rmse"] > scores["d_rmse"] and scaled["lgd"] > scores["lgd"]


def test_the_order_of_the_points_their_shape_and_the_labels_names_do_not_matter() -> None:
    x, z, labels = cloud()
    scores = geometry_scores(x, z, labels)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    assert geometry_scores(x[order], z[order], labels[order]) == pytest.approx(scores)
    assert geometry_scores(x.view(60, 1, 3, 4), z, (9 - 2 * labels).tolist()) == pytest.approx(scores)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    data = cloud(copies=20)
    whole = geometry_scores(*data)

    def one_by_one(x: geometry._Space, z: geometry._Space) -> object:
        for i in range(60):
            rows = slice(i, i + 1)
            yield rows, x.keys(rows), z.keys(rows)

    monkeypatch.setattr(geometry, "_blocks", one_by_one)
    assert geometry_scores(*data) == pytest.approx(whole, abs=1e-12)


def test_large_clouds_come_in_parts_that_cover_every_point_once() -> None:
    n = 5000  # two products of many rows, 25 parts
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    space = geometry._Space.of(x, "x")
    parts = list(geometry._blocks(space, space))
    assert [i for rows, *_ in parts for i in range(n)[rows]] == list(range(n))
    assert all(len(keys) == rows.stop - rows.start for rows, *both in parts for keys in both)
    rows, keys, _ = parts[-1]
    at = int(keys[-1].argmin())
    assert (rows.stop, at, int(keys[-1, at])) == (n, n - 1, 0)
    exact = (x[-1].double() - x.double()).norm(dim=1)
    assert torch.allclose(geometry._distances(keys[-1]), exact, atol=1e-6)


def test_unused_clusters_have_no_centre_and_one_cluster_agrees_with_itself() -> None:
    x, z, _ = cloud()
    assert geometry_scores(x, z, torch.zeros(60))["cra"] == 1.0
    line = torch.tensor([0.0, 1.0, 3.0]).repeat_interleave(20)[:, None]
    swapped = torch.tensor([0.0, 3.0, 4.0]).repeat_interleave(20)[:, None]
    labels = torch.tensor([0, 5, 9]).repeat_interleave(20)
    # From the middle centre the other two have changed places: 2 of 9 ranks.
    assert geometry_scores(line, swapped, labels)["cra"] == pytest.approx(7 / 9)


def test_what_does_not_fit_is_named() -> None:
    x, z, labels = cloud()
    for k1, k2 in ((0, 3), (5, 3), (3, 30)):
        with pytest.raises(InputError, match=f"{k1} to {k2} neighbours of 60 points"):
            geometry_scores(x, z, labels, k1, k2)
    with pytest.raises(InputError, match="60 samples, 59 embeddings and 60 labels"):
        geometry_scores(x, z[:59], labels)
    for bad, (space, name) in itertools.product((float("nan"), float("inf")), ((x, "x"), (z, "z"))):
        broken = space.clone()
        broken[3, 1] = bad
        with pytest.raises(InputError, match=f"{name} has a value that is not finite"):
            geometry_scores(*((broken, z) if name == "x" else (x, broken)), labels)


def test_learnt_centres_are_ranked_in_the_place_of_the_means() -> None:
    x, _, labels = cloud()
    means = torch.stack([x[labels == c].mean(0) for c in range(4)])
    assert learnt_centre_agreement(x, labels, 3 * means + 1) == 1.0
    nearest = torch.cdist(means, means).fill_diagonal_(torch.inf).argmin(1)
    moved = means.clone()
    moved[0] = means[0] + 100 * (means[0] - means[nearest[0]])
    agree = np.mean(
        [
            np.argsort(np.where(np.arange(4) == i, -1, np.linalg.norm(means - means[i], axis=1)))
            == np.argsort(np.where(np.arange(4) == i, -1, np.linalg.norm(moved - moved[i], axis=1)))
            for i in range(4)
        ]
    )
    assert agree < 1
    assert learnt_centre_agreement(x, labels, moved) == pytest.approx(agree)


def test_a_learnt_centre_without_samples_is_left_out() -> None:
    x, _, labels = cloud()
    means = torch.stack([x[labels == c].mean(0) for c in range(4)])
    some = labels != 2
    assert learnt_centre_agreement(x[some], labels[some], torch.cat([means[:2], 0 * means[:1], means[3:]])) == 1.0
