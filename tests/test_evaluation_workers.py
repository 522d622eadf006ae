"""Several workers share an evaluation's passes over the samples, and find to the bit what one finds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from raymc.config import Config
from raymc.datasets import Dataset, Split
from raymc.distributed import Workers, world
from raymc.methods import METHODS
from raymc.training import inference
from raymc.training.feed import Feed
from tests.device.trainings import make_config, train, vectors
from tests.worker_pool import on_workers

CPU = torch.device("cpu")

BATCH = {f"{stage}__batch_size": 2048 for stage in ("pretrain", "heads")}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "a cluster head": ("nmce", BATCH | {"finetune__epochs": 0, "probes": True, "probe_features": "subspace"}),
    "k-means": ("mlc", BATCH | {"clustering": "kmeans"}),
}


def repeated(times: int) -> Dataset:
    """Rows of the digits and, told apart from them by their length, their repetitions."""
    data = vectors()
    assert data.test is not None

    def longer(split: Split) -> Split:
        assert split.y is not None
        lengths = 1 + torch.arange(times).repeat_interleave(len(split.x))[:, None] / 100
        return Split(lengths * split.x.repeat(times, 1), split.y.repeat(times))

    return dataclasses.replace(data, train=longer(data.train), test=longer(data.test))


def config_of(name: str) -> Config:
    method, keys = CASES[name]
    return make_config(method, "vectors", **keys)


def passes(group: ProcessGroup | None, times: int) -> tuple[int, dict[str, np.ndarray]]:
    """Rows that this worker's net saw; what each kind of pass gives of 144 samples, so many times, untrained."""
    config, method, data = config_of("a cluster head"), METHODS["nmce"], repeated(times)
    torch.manual_seed(0)
    modules = ("backbone", "pre_feature", "subspace", "cluster")
    model = nn.ModuleDict({name: method.build(name, config, (64,), 10) for name in modules})
    rank, size = world(group)
    workers = Workers(rank, size, group)
    feed = Feed.build(data, config.augmentation, CPU, torch.float32, False, workers)
    seen: list[int] = []
    model["backbone"].register_forward_hook(lambda net, args, out: seen.append(len(out)))
    z, c = inference.heads(method, model, feed, feed.samples, workers)
    found: dict[str, Tensor] = {"heads": z, "logits": c}
    found |= vars(inference.assign(method, model, feed, feed.samples, workers))
    found |= inference.features(method, model, feed, feed.samples, 2, workers)
    assert all(module.training for module in model.modules()), "as before"
    return sum(seen), {name: value.numpy() for name, value in found.items()}


@pytest.mark.parametrize(("times", "workers"), [(40, 2), (40, 3), (1, 2)])
def test_passes_are_those_of_one_worker(times: int, workers: int) -> None:
    """Of 3 blocks (6 for features) shared by 2 or 3 workers, and of one, which each worker computes."""
    rows, alone = passes(None, times)
    assert rows == 4 * 144 * times, "heads, labels and two views for features"
    assert len(alone["labels"]) == 144 * times and len(np.unique(alone["labels"])) > 1
    shares = on_workers(passes, [times] * workers)
    assert sum(rows for rows, _ in shares) == (rows if times > 1 else workers * rows)
    for _, found in shares:
        assert found.keys() == alone.keys()
        for name, value in alone.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


def trained(group: ProcessGroup | None, folder: str, name: str) -> dict[str, Any]:
    rank, size = world(group)
    more = {"workers": Workers(rank, size, group), "dataset": repeated(40), "smoke": False}
    return train(config_of(name), Path(folder) / "store", Path(folder) / f"{size}_{rank}", CPU, **more)


@pytest.mark.parametrize("name", CASES)
def test_a_training_is_evaluated_as_by_one_worker(name: str, tmp_path: Path) -> None:
    """One worker that finds the stages of two in the store evaluates the same weights."""
    both = on_workers(trained, [str(tmp_path)] * 2, name=name)
    alone = trained(None, str(tmp_path), name)
    assert all(stage["cached"] for stage in alone["stages"] if stage["epochs"])
    for found in both:
        assert found["metrics"] == alone["metrics"] and found.get("probes") == alone.get("probes")
    files = [np.load(tmp_path / out / "labels.npz") for out in ("2_0", "1_0")]
    for array in files[0].files:
        np.testing.assert_array_equal(files[0][array], files[1][array], err_msg=array)
    assert not (tmp_path / "2_1").exists(), "the first worker writes"
    rows = [json.loads(line) for line in (tmp_path / "2_0" / "curve.jsonl").read_text().splitlines()]
    assert "probes" not in CASES[name][1] or all(row["acc"] > 0 for row in rows if row["stage"] == "heads")
