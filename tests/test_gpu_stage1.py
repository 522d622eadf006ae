"""The script for a GPU that is lent by the minute, rehearsed: it is cut, goes on, and brings its weights back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_stage1
from raymc import datasets
from raymc.cli import execute
from raymc.config import Config
from raymc.datasets import load
from raymc.datasets.catalogue import SOURCES
from raymc.training import loop
from raymc.training.smoke import limit
from tests.fabricated_data import small, write_compact

TINY = "pretrain.epochs=4 pretrain.warmup_epochs=1 pretrain.batch_size=64 pre_feature_dim=32 feature_dim=16".split()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "SAVE_SHARE", 0)


def go(out: str, *words: str, minutes: float = 60) -> dict[str, Any]:
    asked = [
        *words,
        "--minutes",
        str(minutes),
        "--out",
        out,
        "--name",
        "tiny",
        "--storage",
        "storage",
        "--data",
        "data",
    ]
    assert execute(gpu_stage1.parser(), gpu_stage1.run, asked) == 0
    found = json.loads(Path(out, "stage1.json").read_text())
    assert isinstance(found, dict)
    return found


def curve(out: str) -> list[int]:
    return [json.loads(line)["epoch"] for line in Path(out, "curve.jsonl").read_text().splitlines()]


def test_what_is_cut_goes_on_to_the_unbroken_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = limit(load("digits"), 200)
    monkeypatch.setattr(datasets, "load_once", lambda config, root: few)
    words = ["nmce_digits", *TINY]
    for epoch in (1, 2):
        result = go(f"cut-{epoch}", *words, minutes=0)
        assert result["done"] == epoch and not result["finished"] and curve(f"cut-{epoch}") == list(range(1, epoch + 1))
        assert f"{epoch} of 4 epochs; NOT FINISHED" in capsys.readouterr().out
    result = go("last", *words, "--probe-every", "1")
    assert result["finished"] and result["done"] == 4 and curve("last") == [1, 2, 3, 4]
    assert set(result["probe"]) == {"knn_digits", "svm_digits"} and 0 < result["probe"]["svm_digits"] <= 1
    assert result["probes"] and result["probes"][-1]["epoch"] == 3 and "knn_digits" in result["probes"][-1]
    assert {path.name for path in Path("last/tiny").iterdir()} == {"card.json", "README.md", "weights-00.safetensors"}
    shutil.copytree("last/tiny", "kept")
    again = go("again", *words)
    assert again["finished"] and curve("again") == [1, 2, 3, 4] and again["probe"] == result["probe"], "from the store"
    shutil.rmtree("storage")
    go("whole", *words)
    files = [Path(folder, "weights-00.safetensors").read_bytes() for folder in ("kept", "whole/tiny")]
    assert files[0] == files[1]


def test_both_sets_of_labels_are_probed_on_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_compact(tmp_path / "data")
    for name in ("cifar20", "cifar100"):
        monkeypatch.setitem(SOURCES, name, small(name, (7, 2)))
    words = ["nmce_cifar20", *TINY, "backbone=conv_colour", "n_clusters=2", "pretrain.batch_size=7"]
    result = go("out", *words, "--probe", "cifar20", "cifar100")
    assert set(result["probe"]) == {f"{kind}_{name}" for kind in ("knn", "svm") for name in ("cifar20", "cifar100")}
    assert sum(path.is_file() for path in Path("out").rglob("*")) <= 8, "more would not come back"


def test_labels_of_other_images_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = limit(load("digits"), 200)

    def found(config: Config, root: str | None) -> Any:
        return few

    monkeypatch.setattr(datasets, "load_once", found)
    words = ["nmce_digits", *TINY, "--minutes", "60", "--out", "out", "--name", "x", "--storage", "storage"]
    assert execute(gpu_stage1.parser(), gpu_stage1.run, [*words, "--probe", "sphere"]) == 2
    assert "--probe: sphere has not the images of digits" in capsys.readouterr().err
