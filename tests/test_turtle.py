"""TURTLE against an independent computation, and plain methods on data of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raymc.cli import execute
from raymc.clusterers.spectral import fit_points
from raymc.commands import train as door
from raymc.config import resolve
from raymc.datasets import NAMES
from raymc.errors import InputError
from raymc.methods import METHODS, plain, turtle
from raymc.methods.base import preset_values
from raymc.ops import turtle as ops
from raymc.space.space import make_space
from raymc.training.run import run
from raymc.training.stages import seeds_of


def batch() -> tuple[Tensor, Tensor]:
    """z `[30, 4]` and logits `[30, 3]` in double precision."""
    drawn = torch.Generator().manual_seed(0)
    return torch.randn(30, 4, generator=drawn).double(), torch.randn(30, 3, generator=drawn).double()


def published(logits: Tensor, z: Tensor, gamma: float, steps: int, rate: float) -> Tensor:
    """Eq. 12 with torch's own linear layer, cross entropy and Adam, the layer started from zero."""
    labels = logits.softmax(1)
    layer = nn.Linear(z.shape[1], labels.shape[1]).double()
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    optimiser = torch.optim.Adam(layer.parameters(), lr=rate, betas=(0.9, 0.999))
    for _ in range(steps):
        optimiser.zero_grad()
        functional.cross_entropy(layer(z), labels.detach()).backward()
        optimiser.step()
    mean = labels.mean(0)
    return functional.cross_entropy(layer(z).detach(), labels) + gamma * (mean * mean.log()).sum()


@pytest.mark.parametrize(("gamma", "steps", "rate"), [(10.0, 10, 1e-3), (0.0, 1, 0.1), (3.0, 7, 0.3)])
def test_the_objective_is_that_of_torchs_own_classifier(gamma: float, steps: int, rate: float) -> None:
    z, logits = batch()
    found, expected = (logits.clone().requires_grad_() for _ in range(2))
    loss, terms = ops.turtle_objective(found, z, gamma, steps, rate)
    whole = published(expected, z, gamma, steps, rate)
    torch.testing.assert_close(loss, whole, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(sum(terms.values()), loss)
    (mine,), (theirs,) = torch.autograd.grad(loss, found), torch.autograd.grad(whole, expected)
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_the_gradient_is_of_the_labels_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of finite differences with the classifier held still."""
    z, logits = batch()
    fixed = ops.fitted_classifier(z, logits.softmax(1), 5, 0.1)
    monkeypatch.setattr(ops, "fitted_classifier", lambda *_: fixed)
    assert torch.autograd.gradcheck(
        lambda x: ops.turtle_objective(x, z, 2.0, 5, 0.1)[0], logits.clone().requires_grad_()
    )


def test_names_of_clusters_and_order_of_samples_have_no_say() -> None:
    z, logits = batch()
    loss, _ = ops.turtle_objective(logits, z, 10.0, 10, 0.01)
    other, _ = ops.turtle_objective(logits.flip(0, 1), z.flip(0), 10.0, 10, 0.01)
    torch.testing.assert_close(other, loss, rtol=1e-12, atol=1e-12)


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    """An .npz of three blobs of 50 rows in 6 columns."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat(np.arange(3), 50))
    x = 15 * np.eye(6)[2 * y] + rng.normal(size=(150, 6))
    np.savez(tmp_path / "blobs.npz", x=x.astype(np.float32), y=y)
    return tmp_path / "blobs.npz"


def trained(data: Path, method: str, preset: str, **fixed: Any) -> dict[str, Any]:
    content = {"method": method, "dataset": {"path": str(data)}, "preset": preset}
    content |= {"fixed": {key.replace("__", "."): value for key, value in fixed.items()}}
    space = make_space(data.parent / "mine.yaml", content)
    seeds = seeds_of(tuple(space.stage_settings), 3, 0, None)
    return run(space.config({"seed": 3}), storage=str(data.parent / "store"), out=data.parent, stage_seeds=seeds)


@pytest.mark.parametrize("preset", METHODS["plain"].presets["own"])
def test_plain_methods_find_blobs_of_data_of_ones_own(blobs: Path, preset: str) -> None:
    result = trained(blobs, "plain", preset, cluster_points=90, hdbscan_min_cluster_size=10)
    assert result["metrics"]["acc"] == pytest.approx(1.0, abs=0.03) and result["n_clusters"] == 3
    assert "of 90 of 150 samples" in result["clusters_by"]
    assert ("noise" in result["metrics"]) == (preset == "hdbscan") == ("clusters_found" in result["metrics"])


def test_clustered_samples_keep_their_labels_where_their_neighbours_would_outvote_them(blobs: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)  # of one cloud, so that 6 clusters touch
    np.savez(blobs, x=x)
    trained(blobs, "plain", "spectral", n_clusters=6, scaling="none")
    own = fit_points(torch.as_tensor(x), 6, 3)
    assert (own.assigner(torch.as_tensor(x), None) != own.labels).any(), "else the vote would do"
    np.testing.assert_array_equal(np.load(blobs.parent / "labels.npz")["labels"], own.labels.numpy())


def test_turtle_recovers_blobs_and_its_pictures_are_not_repeated(blobs: Path) -> None:
    result = trained(blobs, "turtle", "own", task__epochs=300, task__batch_size=100)
    assert result["metrics"]["acc"] >= 0.98
    assert not (blobs.parent / "snapshots.npz").exists(), "the samples do not move"


BAD = {
    "backbone: plain works on the samples as they are": ("plain", {"backbone": "mlp"}),
    "clustering: plain has kmeans": ("plain", {"clustering": "head"}),
    "unknown key samples.epochs of plain": ("plain", {"samples.epochs": 3}),
    "backbone: turtle works on the samples": ("turtle", {"backbone": "mlp"}),
    "clustering: turtle assigns by its head": ("turtle", {"clustering": "kmeans"}),
    "task.augmentations: turtle reads one view": ("turtle", {"task.augmentations": 2}),
    "task.inner_steps: 0 is below 1": ("turtle", {"task.inner_steps": 0}),
}


@pytest.mark.parametrize("words", BAD)
def test_what_they_cannot_have_is_one_line(words: str) -> None:
    name, over = BAD[words]
    method = METHODS[name]
    preset = preset_values(method.presets["own"][method.default_preset])
    with pytest.raises(InputError, match=words):
        method.stages(resolve(name, "own", method.default_preset, method.stage_settings, preset, over))


def test_hdbscan_needs_no_number_of_clusters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor labels; the other methods ask for one."""
    x = np.random.default_rng(0).normal(size=(80, 3)) + 20 * np.repeat(np.eye(3)[:2], 40, axis=0)
    np.save(tmp_path / "rows.npy", x)
    for name, code in (("hdbscan", 0), ("kmeans", 2)):
        text = f"method: plain\ndataset: {{path: rows.npy}}\npreset: {name}\nfixed: {{hdbscan_min_cluster_size: 15}}\n"
        (tmp_path / f"{name}.yaml").write_text(text)
        words = [str(tmp_path / f"{name}.yaml"), "--storage", str(tmp_path / "store"), "--out", str(tmp_path / name)]
        assert execute(door.parser(), door.run, words) == code
    assert "give n_clusters" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["plain", "turtle"])
def test_they_are_for_every_dataset(name: str) -> None:
    for dataset in NAMES:
        for preset in METHODS[name].presets["own"]:
            assert make_space(Path("x.yaml"), {"method": name, "dataset": dataset, "preset": preset}).preset == preset


def test_a_preset_makes_about_so_many_updates() -> None:
    for n in (150, 2_000, 9_000, 100_000):
        epochs = turtle.preset(n, 1_500, 2_000)["task.epochs"]
        assert isinstance(epochs, int) and 0.9 <= epochs * max(1, n // 2_000) / 1_500 <= 1.1
    assert plain.of_samples("gmm")["clustering"] == "gmm"
