"""Every method, stage and way to evaluate runs on a GPU to its end, and finds there what it finds on the CPU."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

import raymc
from raymc.cli import execute
from raymc.distributed import Workers
from raymc.estimators.model import load_model
from raymc.storage.stage_store import Store
from raymc.training.features.stage import Features
from tests.device.pretend import GPU, Log, installed
from tests.device.trainings import CASES, case_config, dataset_of, train, vectors
from tests.small_encoder import small

CPU = torch.device("cpu")
TOLERANCE = 1e-6
"""Of figures, relative: on a GPU some sums go another way, all in float64."""

TINY = 1
"""Bytes of free memory for which the samples stay on the CPU."""


@pytest.fixture(autouse=True)
def few_starts_of_centres(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KMEANS_STARTS", "MIXTURE_STARTS"):
        monkeypatch.setattr(f"raymc.methods.gcml_state.{name}", 2)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store for each device: what trainings share, each device trains once."""
    return tmp_path_factory.mktemp("stores")


def on(device: torch.device, name: str, stores: Path, out: Path, memory: int = 10**11, **over: Any) -> dict[str, Any]:
    config, store = case_config(name, **over), stores / f"{device.type}_{memory}"
    if device == CPU:
        return train(config, store, out, CPU)
    with installed(memory):
        return train(config, store, out, device)


def assert_same(there: dict[str, Any], here: dict[str, Any], outs: tuple[Path, Path]) -> None:
    """The same figures, labels and embedding in what two trainings left."""
    assert there["metrics"].keys() == here["metrics"].keys()
    for name, value in here["metrics"].items():
        assert math.isclose(there["metrics"][name], value, rel_tol=TOLERANCE, abs_tol=TOLERANCE), name
    assert there["geometry"]["numerical_rank"] == here["geometry"]["numerical_rank"]
    files = [np.load(out / "labels.npz") for out in outs]
    assert files[0].files == files[1].files
    for name in files[0].files:
        np.testing.assert_allclose(files[0][name], files[1][name], rtol=1e-4, atol=1e-5, err_msg=name)
    assert (outs[0] / "labels.csv").read_text().splitlines()[0] == "sample,cluster,confidence"


@pytest.mark.parametrize("name", CASES)
def test_a_gpu_finds_what_the_cpu_finds(name: str, stores: Path, tmp_path: Path) -> None:
    outs = tmp_path / "gpu", tmp_path / "cpu"
    assert_same(on(GPU, name, stores, outs[0]), on(CPU, name, stores, outs[1]), outs)


@pytest.mark.parametrize("name", ["nmce behind a bank", "nmce on neighbours", "mlc, 5 half-steps", "gcml", "turtle"])
def test_samples_that_do_not_fit_stay_on_the_cpu(name: str, stores: Path, tmp_path: Path) -> None:
    outs = tmp_path / "gpu", tmp_path / "cpu"
    assert_same(on(GPU, name, stores, outs[0], TINY), on(CPU, name, stores, outs[1]), outs)


AUTOCAST = (
    *("nmce behind a bank", "nmce on a stream", "nmce on neighbours", "mlc, 5 half-steps", "mlc behind a bank"),
    *("gcml", "gcml, one update"),
)


@pytest.mark.parametrize("name", AUTOCAST)
def test_no_types_clash_in_bfloat16(name: str, tmp_path: Path) -> None:
    losses = []
    for precision, out in (("bfloat16", tmp_path / "half"), ("float32", tmp_path / "single")):
        with installed(bfloat16=True):
            train(case_config(name, precision=precision), tmp_path / "store", out, GPU)
        losses.append(json.loads((out / "curve.jsonl").read_text().splitlines()[0])["loss"])
    assert losses[0] != losses[1] and math.isclose(*losses, rel_tol=0.05, abs_tol=0.05)


def test_a_command_and_an_estimator_take_the_gpu_that_there_is(gpu: Log, tmp_path: Path) -> None:
    door, out = importlib.import_module("raymc.commands.train"), tmp_path / "out"
    words = ["mlc_digits", "pre_feature_dim=16", "--smoke", "--out", str(out), "--storage", str(tmp_path / "store")]
    assert execute(door.parser(), door.run, words) == 0
    assert gpu.kernels["convolution"] and (out / "labels.csv").is_file()
    gpu.clear()
    params = {"backbone": "dense_256", "pretrain.epochs": 1, "finetune.epochs": 2, "finetune.centers_by": "kmeans"}
    x = vectors().train.x.numpy()
    fitted = raymc.GCML(n_clusters=3, params=params, random_state=0).fit(x)
    assert gpu.kernels["addmm"] and fitted.predict(x).tolist() == fitted.labels_.tolist()


@pytest.mark.parametrize(
    ("name", "stage"),
    [("nmce", "finetune"), ("mlc, 5 half-steps", "heads"), ("gcml", "finetune"), ("turtle", "task")],
)
def test_a_killed_training_goes_on_to_the_same_result(name: str, stage: str, stores: Path, tmp_path: Path) -> None:
    """Its weights and the averages of its optimisers come back from the store to the GPU."""

    def kill(row: dict[str, Any]) -> None:
        if row["event"] == "epoch" and row["stage"] == stage and row["epoch"] == 2:
            raise KeyboardInterrupt

    events: list[dict[str, Any]] = []
    config, outs = case_config(name), (tmp_path / "again", tmp_path / "whole")
    with installed():
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "store", outs[0], GPU, report=kill)
        again = train(config, tmp_path / "store", outs[0], GPU, report=events.append)
    assert [row["epoch"] for row in events if row["event"] == "resumed"] == [1]
    whole = on(GPU, name, stores, outs[1])
    assert_same(again, whole, outs)
    assert again["metrics"] == whole["metrics"]


@pytest.mark.parametrize("name", ["nmce", "nmce in channels_last", "mlc by gmm", "mlc", "mlc by hdbscan", "gcml"])
def test_a_model_labels_new_samples_on_a_gpu(name: str, stores: Path, tmp_path: Path) -> None:
    on(CPU, name, stores, tmp_path)
    x = dataset_of(CASES[name][1]).test.x
    here = load_model(tmp_path / "model", device=CPU)
    with installed() as log:
        there = load_model(tmp_path / "model")
        assert there.predict(x).tolist() == here.predict(x).tolist() and log.kernels
        np.testing.assert_allclose(there.transform(x), here.transform(x), atol=1e-5)
        assert pickle.loads(pickle.dumps(there)).predict(x).tolist() == here.predict(x).tolist()


def test_features_of_an_encoder(tmp_path: Path) -> None:
    """Images are read in a thread of their own while the device works, and come back as rows."""
    x = torch.randint(0, 256, (40, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rows = []
    for device, where in ((CPU, contextlib.nullcontext()), (GPU, installed())):
        with where:
            features = Features(small(), x, Store(str(tmp_path / device.type)), "float32", device)
            features.obtain(Workers(), lambda row: None)
        rows.append(features.array())
    np.testing.assert_allclose(*rows, rtol=1e-6)


@pytest.fixture
def alone() -> Iterator[Workers]:
    """A worker with a group, which has no other: collectives run, and on what the device gives them."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield Workers(0, 1, dist.group.WORLD)
    dist.destroy_process_group()


@pytest.mark.parametrize("name", ["nmce behind a bank", "mlc", "gcml", "gcml, one update", "turtle"])
def test_what_workers_exchange_lies_on_the_device(name: str, alone: Workers, stores: Path, tmp_path: Path) -> None:
    outs = tmp_path / "gpu", tmp_path / "cpu"
    with installed():
        there = train(case_config(name), tmp_path / "store", outs[0], GPU, workers=alone)
    assert_same(there, on(CPU, name, stores, outs[1]), outs)
