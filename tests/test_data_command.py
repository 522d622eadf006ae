"""`raymc data`: list, check and get, and the folder that they look at."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from raymc import data as command
from raymc.cli import execute
from raymc.datasets import NAMES, data_root
from raymc.datasets.catalogue import SOURCES
from raymc.datasets.fetch import fetch
from raymc.errors import InputError
from tests.fabricated_data import bytes_of, small, write_idx

IMAGES = "MNIST/raw/train-images-idx3-ubyte"


def test_check_compares_checksums_of_files_and_of_decoded_samples(mnist: Path, coil: Path) -> None:
    source = small("mnist", (12, 5))
    with pytest.raises(InputError, match="train-images-idx3-ubyte has sha256 .*; expected: sha256 ba891046"):
        source.check(mnist)
    right = {IMAGES: "md5:" + hashlib.md5((mnist / IMAGES).read_bytes()).hexdigest()}
    result = dataclasses.replace(source, digests=right).check(mnist)
    assert result["files_verified"] == [IMAGES] and result["per_class"] == [1, 3] and result["train"] == 17
    with pytest.raises(InputError, match="decoded samples have sha256"):
        small("coil20", (144,), classes=2).check(coil)


def say(*words: str) -> int:
    return execute(command.parser(), command.run, list(words))


def test_the_command_lists_checks_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "coil-20-proc").mkdir()
    place = ("--data", str(tmp_path))
    assert say("list", *place, "--json") == 0
    out, err = capsys.readouterr()
    rows = {row["name"]: row for row in json.loads(out.splitlines()[-1])["datasets"]}
    assert set(rows) == set(NAMES) and "files belong in" in err
    assert rows["digits"]["present"] and rows["coil20"]["present"] and not rows["coil100"]["present"]
    assert rows["cifar100"]["folders"] == ["cifar-100-python", "cifar100"]
    assert say("check", "digits", *place) == 0
    assert "1437 samples and 360 held out; 10 classes of 141 to 146" in capsys.readouterr().out
    for words in (("check", "coil20"), ("check",), ("get", "coil100"), ("list", "mnist"), ("check", "mnits")):
        assert say(*words, *place) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("raymc: ") and err.count("\n") == 1


def test_get_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    class Torn:
        def __init__(self, place: str, download: bool) -> None:
            write_idx(Path(place) / "MNIST/raw/train-images-idx3-ubyte", bytes_of(1, 2))
            raise RuntimeError("Error downloading train-labels-idx1-ubyte.gz:\nno network")

    monkeypatch.setattr(datasets, "MNIST", Torn)
    with pytest.raises(InputError, match="mnist: the download failed: .*no network"):
        fetch(SOURCES["mnist"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_get_puts_a_download_in_place_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    calls: list[str] = []

    def whole(place: str, download: bool) -> None:
        calls.append(place)
        for name in ("train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"):
            write_idx(Path(place) / "MNIST/raw" / name, bytes_of(1, 2))

    monkeypatch.setattr(datasets, "MNIST", whole)
    for _ in range(2):
        assert fetch(SOURCES["mnist"], tmp_path) == tmp_path / "MNIST/raw"
    assert len(calls) == 1
    assert [p.name for p in (tmp_path / "MNIST/raw").iterdir()] == ["train-images-idx3-ubyte"]
    assert fetch(SOURCES["digits"], tmp_path) is None
    assert [p.name for p in tmp_path.iterdir()] == ["MNIST"]


def test_get_fetches_both_parts_of_libsvm_s_usps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    def part(place: str, train: bool, download: bool) -> None:
        Path(place).mkdir(exist_ok=True)
        (Path(place) / ("usps.bz2" if train else "usps.t.bz2")).write_bytes(b"")

    monkeypatch.setattr(datasets, "USPS", part)
    assert fetch(SOURCES["usps_libsvm"], tmp_path) == tmp_path / "usps_libsvm"
    assert {p.name for p in (tmp_path / "usps_libsvm").iterdir()} == {"usps.bz2", "usps.t.bz2"}
    assert [p.name for p in tmp_path.iterdir()] == ["usps_libsvm"]


def test_the_data_folder_is_the_option_else_the_variable_else_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYMC_DATA", str(tmp_path / "variable"))
    assert data_root(str(tmp_path / "option")) == tmp_path / "option"
    assert data_root(None) == tmp_path / "variable"
    monkeypatch.delenv("RAYMC_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_root(None).name == "raymc"
