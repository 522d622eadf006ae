"""The script for a GPU that is lent by the minute, rehearsed: it is cut, goes on, and brings its weights back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_stage1
from raymc import datasets
from raymc.cli import execute
from raymc.datasets import Dataset, Split, load
from raymc.datasets.catalogue import SOURCES
from raymc.training import inference, loop
from raymc.training.smoke import limit
from tests.fabricated_data import small, write_compact

TINY = "pretrain.epochs=4 pretrain.warmup_epochs=1 pretrain.batch_size=64 pre_feature_dim=32 feature_dim=16".split()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "SAVE_SHARE", 0)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """What every training here has for the digits."""
    found = limit(load("digits"), 200)
    monkeypatch.setattr(datasets, "load_once", lambda config, root: found)
    return found


def code(out: str, words: Sequence[str], minutes: float = 60) -> int:
    options = {"--minutes": str(minutes), "--out": out, "--name": "tiny", "--storage": "storage", "--data": "data"}
    asked = [*words, *(word for option in options.items() for word in option)]
    return execute(gpu_stage1.parser(), gpu_stage1.run, asked)


def go(out: str, *words: str, minutes: float = 60) -> dict[str, Any]:
    assert code(out, words, minutes) == 0
    found = json.loads(Path(out, "stage1.json").read_text())
    assert isinstance(found, dict)
    return found


def curve(out: str) -> list[int]:
    return [json.loads(line)["epoch"] for line in Path(out, "curve.jsonl").read_text().splitlines()]


def test_what_is_cut_goes_on_to_the_unbroken_result(few: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["nmce_digits", *TINY]
    for epoch in (1, 2):
        result = go(f"cut-{epoch}", *words, minutes=0)
        assert result["done"] == epoch and not result["finished"] and curve(f"cut-{epoch}") == list(range(1, epoch + 1))
        assert f"{epoch} of 4 epochs; NOT FINISHED" in capsys.readouterr().out
    result = go("last", *words, "--probe-every", "1")
    assert result["finished"] and result["done"] == 4 and curve("last") == [1, 2, 3, 4]
    assert set(result["probe"]) == {"knn_digits", "linear_digits"} and 0 < result["probe"]["linear_digits"] <= 1
    assert result["probes"] and result["probes"][-1]["epoch"] == 3 and "knn_digits" in result["probes"][-1]
    assert {path.name for path in Path("last/tiny").iterdir()} == {"card.json", "README.md", "model.safetensors"}
    shutil.copytree("last/tiny", "kept")
    again = go("again", *words)
    assert again["finished"] and curve("again") == [1, 2, 3, 4] and again["probe"] == result["probe"], "from the store"
    shutil.rmtree("storage")
    go("whole", *words)
    files = [Path(folder, "model.safetensors").read_bytes() for folder in ("kept", "whole/tiny")]
    assert files[0] == files[1]


def test_both_sets_of_labels_are_probed_on_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_compact(tmp_path / "data")
    for name in ("cifar20", "cifar100"):
        monkeypatch.setitem(SOURCES, name, small(name, (7, 2)))
    words = ["nmce_cifar20", *TINY, "backbone=conv_colour", "n_clusters=2", "pretrain.batch_size=7"]
    result = go("out", *words, "--probe", "cifar20", "cifar100")
    assert set(result["probe"]) == {f"{kind}_{name}" for kind in ("knn", "linear") for name in ("cifar20", "cifar100")}
    assert sum(path.is_file() for path in Path("out").rglob("*")) <= 8, "more would not come back"


@pytest.mark.parametrize(
    "other, told",
    [
        ("of other images", "has not the images of digits"),
        ("without a held-out split", "has no labels with a held-out split"),
        ("without labels", "has no labels with a held-out split"),
    ],
)
def test_labels_that_cannot_be_probed_are_refused_before_anything_is_trained(
    other: str, told: str, few: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert few.test is not None
    known = {
        "of other images": limit(load("digits"), 100),
        "without a held-out split": replace(few, test=None),
        "without labels": replace(few, train=Split(few.train.x, None)),
    }
    monkeypatch.setattr(gpu_stage1, "load", lambda name, root: known[other])
    assert code("out", ["nmce_digits", *TINY, "--probe", "digits", "pendigits"]) == 2
    error = capsys.readouterr().err
    assert f"--probe: pendigits {told}" in error and error.count("\n") == 1
    assert not Path("out").exists() and not Path("storage").exists()


def test_the_same_command_after_a_success_is_refused_and_leaves_its_files(
    few: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["nmce_digits", *TINY]
    go("out", *words)
    files = [path for path in Path("out").rglob("*") if path.is_file()]
    before = [path.read_bytes() for path in files]
    assert code("out", words) == 2
    assert "out/tiny is there already" in capsys.readouterr().err
    assert [path.read_bytes() for path in files] == before


def test_it_ends_in_time_though_saves_are_far_apart(few: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop saves the first epoch; the next save would come after a billion times the cost of that one."""
    words = ["nmce_digits", *TINY]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "SAVE_SHARE", 1e9)
        patch.setattr(gpu_stage1.Watch, "is_over", lambda watch: len(watch.rows) >= 3)
        assert go("cut", *words)["done"] == 3
        assert loop.SAVE_SHARE == 1e9
    assert go("last", *words)["finished"] and curve("last") == [1, 2, 3, 4]


def test_both_probes_at_the_end_are_of_one_pass(few: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    features = inference.features

    def counted(*args: Any) -> Any:
        passes.append(len(args[-1]))
        return features(*args)

    monkeypatch.setattr(inference, "features", counted)
    go("out", "nmce_digits", *TINY, "--probe-every", "0")
    assert few.test is not None and passes == [len(few.train), len(few.test)]
