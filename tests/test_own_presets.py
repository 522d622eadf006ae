"""Presets for any data: each kind of samples trains, three blobs are found, and lengths follow the number of rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs

from raymc import datasets
from raymc.config import resolve
from raymc.datasets.base import Split, stored
from raymc.methods import METHODS
from raymc.methods.base import Facts, preset_values
from raymc.space.sized import sized
from raymc.space.space import load_space
from raymc.training.features.data import Setting
from raymc.training.run import run
from raymc.training.smoke import one_step
from raymc.training.stages import seeds_of

SHAPES = [(7,), (1, 8, 8), (1, 28, 28), (1, 100, 100), (3, 32, 32), (3, 224, 224)]
PRESETS = [(name, preset) for name in ("nmce", "mlc") for preset in METHODS[name].presets["own"]]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_samples_of_every_kind_take_a_step(name: str, preset: str, shape: tuple[int, ...]) -> None:
    if preset == "features" and len(shape) > 1:
        pytest.skip("features are vectors")
    x = torch.rand(24, *shape) if len(shape) == 1 else torch.randint(256, (24, *shape), dtype=torch.uint8)
    data = stored("mine", Split(x, torch.arange(24) % 3), None, n_classes=3, split="all", source="here")
    values = preset_values(METHODS[name].presets["own"][preset], Facts.of(data))
    one_step(resolve(name, "mine", preset, METHODS[name].stage_settings, values), data)


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_a_training_is_as_long_for_few_rows_as_for_many(name: str, preset: str) -> None:
    """In steps, of batches that the rows fill; no shorter than two epochs."""
    found = []
    for n in (150, 1000, 20_000):
        values = preset_values(METHODS[name].presets["own"][preset], Facts(n, (64,)))
        config = resolve(name, "mine", preset, METHODS[name].stage_settings, values)
        sizes = {stage: (one.epochs, one.batch_size) for stage, one in config.stages.items() if one.epochs}
        assert all(batch <= n for _, batch in sizes.values())
        found.append({stage: epochs * (n // batch) for stage, (epochs, batch) in sizes.items()})
    for stage, steps in found[0].items():
        assert all(0.7 * steps <= other[stage] <= 5 * steps for other in found), stage


def test_a_batch_shows_some_samples_of_every_cluster(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("method: mlc\ndataset: {path: rows.npz, features: true}\nfixed: {n_clusters: 100}\n")

    def batch(facts: Facts, path: Path = path) -> object:
        return load_space(path).sized(facts).config().stages["heads"].batch_size

    assert batch(Facts(5_000, (64,), 20)) == 1_000  # by the space's number, not by that of the labels
    assert batch(Facts(600, (64,))) == 600
    path.write_text("method: mlc\ndataset: {path: rows.npz, features: true}\n")
    assert batch(Facts(5_000, (64,), 20)) == 256 and batch(Facts(5_000, (64,), 50)) == 500


@pytest.mark.parametrize("name", ["nmce", "mlc"])
def test_three_blobs_are_found(name: str, tmp_path: Path) -> None:
    x, y = make_blobs(300, 6, centers=3, cluster_std=1.5, random_state=5)
    np.savez(tmp_path / "rows.npz", x=x, y=y)
    path = tmp_path / "mine.yaml"
    path.write_text(f"method: {name}\ndataset: {{path: rows.npz}}\n")
    space = sized(load_space(path), None, Setting(str(tmp_path)))
    config = space.config({"seed": 100})
    assert config.preset == "own" and datasets.load_once(config).n_classes == 3
    seeds = seeds_of(tuple(config.stages), 100, 100, None)
    result = run(config, storage=str(tmp_path / "store"), out=tmp_path / "out", stage_seeds=seeds, device="cpu")
    assert result["metrics"]["acc"] > 0.95
