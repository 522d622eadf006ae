"""An encoder's features as a dataset: space files, the command `embed`, scaling to length one, memory, bad input."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import raymc
from raymc import encoders
from raymc.cli import execute
from raymc.commands import embed
from raymc.config import OwnData
from raymc.datasets import Dataset, Split
from raymc.datasets.base import stored
from raymc.datasets.own import read_own
from raymc.datasets.scaling import fit, scaled
from raymc.encoders import Encoder
from raymc.errors import InputError
from raymc.space.space import load_space
from raymc.training.features.data import Setting, load_data
from tests.small_encoder import small


@pytest.fixture(autouse=True)
def only_small(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`efficientnet_lite2` is a net of twelve means; the names of encoders that were loaded."""
    asked: list[str] = []

    def load(name: str, weights: str | None = None, side: int | None = None, download: bool = False) -> Any:
        asked.append(name)
        return small(side or 12)

    monkeypatch.setattr(encoders, "load", load)
    return asked


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six photos of two classes, red and blue, of several sizes."""
    for label, colour in (("blue", (10, 20, 250)), ("red", (240, 30, 20))):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(3):
            tone = tuple(max(0, c - 9 * i) for c in colour)
            Image.new("RGB", (30 + 5 * i, 20), tone).save(tmp_path / "photos" / label / f"{i}.png")
    return tmp_path / "photos"


def space_of(place: Path, dataset: str, more: str = "") -> Path:
    path = place / "mine.yaml"
    path.write_text(f"method: gcml\ndataset: {dataset}\n{more}")
    return path


def loaded(place: Path, dataset: str, more: str = "", root: str | None = None, smoke: bool = False) -> Dataset:
    config = load_space(space_of(place, dataset, more)).config()
    return load_data(config, root, Setting(str(place / "storage")), smoke)


def test_features_of_a_folder(folder: Path, tmp_path: Path) -> None:
    """Named by files and classes, centred, of length one; held-out photos by the training's mean."""
    data = loaded(tmp_path, "{path: photos, test: photos, encoder: efficientnet_lite2}")
    assert data.name == "photos" and data.n_classes == 2 and data.train.x.shape == (6, 12)
    assert data.classes == ("blue", "red") and data.train.y is not None and data.train.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.samples is not None and data.samples[4] == "red/1.png"
    assert "rows centred by their mean, then scaled to length 1; 12 features of small (images of 12x12)" in data.split
    raw = np.asarray([[10, 20, 250], [1, 11, 241], [0, 2, 232], [240, 30, 20], [231, 21, 11], [222, 12, 2]]) / 255
    rows = np.repeat(raw, 4, 1)
    rows = rows - rows.mean(0)
    expected = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(data.train.x.numpy(), expected, atol=1e-5)
    assert data.test is not None and torch.equal(data.test.x, data.train.x)


def test_features_are_computed_once(folder: Path, tmp_path: Path) -> None:
    before = loaded(tmp_path, "{path: photos, encoder: efficientnet_lite2}")
    assert loaded(tmp_path, "{path: photos, encoder: efficientnet_lite2}") is before
    side = loaded(tmp_path, "{path: photos, encoder: efficientnet_lite2, side: 8}")
    assert "images of 8x8" in side.split
    Image.new("RGB", (20, 20), "green").save(folder / "red" / "0.png")
    assert not torch.equal(loaded(tmp_path, "{path: photos, encoder: efficientnet_lite2}").train.x, before.train.x)
    assert len(list((tmp_path / "storage" / "stages").iterdir())) == 3


def test_features_of_a_known_dataset(tmp_path: Path) -> None:
    """Under the labels of the dataset, and a name of their own."""
    data = loaded(tmp_path, "{path: digits, encoder: efficientnet_lite2}", "fixed: {n_samples: 100}\n", str(tmp_path))
    assert data.name == "digits_efficientnet_lite2" and data.train.x.shape == (1437, 12) and data.n_classes == 10
    assert data.test is not None and data.test.x.shape == (360, 12)
    assert "; 12 features of small (images of 12x12); rows centred" in data.split
    few = loaded(tmp_path, "{path: digits, encoder: efficientnet_lite2}", root=str(tmp_path), smoke=True)
    assert len(few.train) == 64
    np.savez(tmp_path / "x.npz", x=np.arange(200 * 64, dtype=np.uint8).reshape(200, 8, 8), y=np.arange(200) % 50)
    few = loaded(tmp_path, "{path: x.npz, encoder: efficientnet_lite2}", smoke=True)
    assert len(few.train) == 100  # two for each class


def test_other_scalings_of_features(folder: Path, tmp_path: Path) -> None:
    data = loaded(tmp_path, "{path: photos, encoder: efficientnet_lite2}", "fixed: {scaling: standardise}\n")
    torch.testing.assert_close(data.train.x.mean(0), torch.zeros(12), atol=1e-6, rtol=0)
    torch.testing.assert_close(data.train.x.std(0, correction=0), torch.ones(12))


def test_rows_that_an_encoder_made(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(3, 1, (20, 5)).astype(np.float32)
    np.save(tmp_path / "rows.npy", x)
    data = loaded(tmp_path, "{path: rows.npy, features: true}")
    assert data.scaling is not None and data.scaling.how == "unit"
    torch.testing.assert_close(data.train.x.norm(dim=1), torch.ones(20))
    np.save(tmp_path / "images.npy", np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(InputError, match="features: true is for rows of numbers, and these are images"):
        loaded(tmp_path, "{path: images.npy, features: true}")


# Scaling to length one.


def test_unit_scaling(tmp_path: Path) -> None:
    """Shifts and a common factor do not matter; new rows are centred by the training's mean; the mean stays zero."""
    x = np.random.default_rng(1).normal(2, 3, (50, 4))
    scaling = fit(x, "unit")
    mean = x.astype(np.float32).astype(np.float64).mean(0)
    expected = (x - mean) / np.linalg.norm(x - mean, axis=1, keepdims=True)
    np.testing.assert_allclose(scaling(x).numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(fit(5 * x + 7, "unit")(5 * x + 7).numpy(), expected, atol=1e-5)
    new = np.asarray([[1e-30, 0, 0, 0], [1e30, 0, 0, 0]]) + [mean, np.zeros(4)]
    assert np.isfinite(scaling(new).numpy()).all()
    np.testing.assert_allclose(scaling(x[:3]).numpy(), expected[:3], atol=1e-6)
    copies = np.repeat(x[:1], 6, 0)
    assert not fit(copies, "unit")(copies).any()
    place = np.array(x, np.float32)
    scaling(place, place)
    np.testing.assert_allclose(place, expected, atol=1e-6)
    known = stored("rows", Split(torch.from_numpy(x).float(), None), None, n_classes=2, split="all", source="here")
    assert scaled(known, "unit").split.endswith("rows centred by their mean, then scaled to length 1")


# The command.


def ran(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any, str]:
    code = execute(embed.parser(), embed.run, [*words, "--json"])
    out, told = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]) if out else None, told


def test_embed_writes_what_own_data_read(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("photos", "--encoder", "efficientnet_lite2")
    code, told, _ = ran(capsys, *words)
    assert code == 0 and {key: told[key] for key in ("n", "m", "cached")} == {"n": 6, "m": 12, "cached": False}
    with np.load(told["out"]) as file:
        x, names, labels = file["x"], file["sample"].tolist(), file["y"].tolist()
    assert x.dtype == np.float32 and names[0] == "blue/0.png" and labels == ["blue"] * 3 + ["red"] * 3
    again = read_own(OwnData(name="again", path=told["out"], features=True))
    direct = loaded(tmp_path, "{path: photos, encoder: efficientnet_lite2}")
    assert torch.equal(again.train.x, direct.train.x) and again.samples == direct.samples
    code, told, _ = ran(capsys, *words, "--out", "half.npy", "--precision", "float16")
    assert code == 0 and not told["cached"]
    half = np.load(tmp_path / "half.npy")
    assert half.dtype == np.float16 and np.abs(half - x).max() < 1e-3
    with np.load(tmp_path / "half.samples.npz") as file:
        assert file["sample"].tolist() == names and file["y"].tolist() == labels
    assert ran(capsys, *words)[1]["cached"]


def test_encode_gives_what_embed_writes_and_what_the_encoder_computes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, storage = tmp_path / "x.npz", str(tmp_path / "store")
    ran(capsys, str(folder), "--encoder", "efficientnet_lite2", "--out", str(out), "--storage", storage)
    of_folder = raymc.encode(folder, "efficientnet_lite2")
    with np.load(out) as file:
        assert np.array_equal(of_folder, file["x"])
    assert (
        np.array_equal(of_folder, raymc.encode(folder, "efficientnet_lite2", storage=storage))
        and of_folder.dtype == np.float32
    )
    files = sorted(folder.rglob("*.png"))
    assert np.array_equal(raymc.encode([str(path) for path in files[::-1]], "efficientnet_lite2"), of_folder[::-1])
    # The encoder is the mean of each colour in each quarter: 12 x 12 pixels need no resizing.
    images = np.random.default_rng(0).integers(0, 256, (5, 12, 12, 3), np.uint8)
    wanted = images.reshape(5, 2, 6, 2, 6, 3).mean((2, 4)).transpose(0, 3, 1, 2).reshape(5, 12) / 255
    for given in (images, torch.from_numpy(images), images.transpose(0, 3, 1, 2)):
        assert raymc.encode(given, "efficientnet_lite2") == pytest.approx(wanted, abs=1e-6)
    grey = raymc.encode(images[..., 0], "efficientnet_lite2")
    assert grey[:, :4] == pytest.approx(wanted[:, :4], abs=1e-6) and np.array_equal(grey[:, :4], grey[:, 4:8])
    lengths = Encoder("l", torch.nn.Identity(), lambda texts: torch.tensor([[float(len(t))] for t in texts]), None, "")
    monkeypatch.setattr(encoders, "load", lambda *_: lengths)
    assert raymc.encode(np.array(["a", "bcd"]), "sentence_transformers:l").tolist() == [[1.0], [3.0]]


def test_encode_says_in_one_line_what_it_was_not_given(folder: Path, tmp_path: Path) -> None:
    table: list[tuple[Any, str]] = [
        (np.zeros((3, 4, 4)), "X holds 3x4x4 values (float64); expected: a folder of images"),
        (np.zeros((3, 4, 4, 2), np.uint8), "X holds images of 3x4x4x2; expected: 1 or 3 colours"),
        ([], "X holds nothing; expected: a folder of images"),
        ([folder, 3], "X holds int; expected: a folder of images"),
        (tmp_path / "none", "none is missing; expected:"),
        ([tmp_path / "none.png"], "none.png"),
    ]
    for given, said in table:
        with pytest.raises(InputError) as caught:
            raymc.encode(given, "efficientnet_lite2")
        assert said in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(AttributeError, match="nothing"):
        _ = raymc.nothing


def test_embed_a_known_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.npz"
    place = ("--storage", str(tmp_path / "store"), "--out", str(out))
    code, told, _ = ran(capsys, "digits", "--encoder", "efficientnet_lite2", "--smoke", *place)
    assert code == 0 and told["n"] == 64
    with np.load(out) as file:
        assert file["y"].dtype == np.int64 and file["sample"].tolist() == [str(i) for i in range(64)]


def test_bad_input_is_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(9, 3)))
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "torn" / "a.png")
    (tmp_path / "torn" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "texts.csv").write_text("text,n\nyes,1\nno,2\n")
    lite = ("--encoder", "efficientnet_lite2", "--storage", str(tmp_path / "store"))
    photos, texts = str(folder), str(tmp_path / "texts.csv")
    table: dict[tuple[str, ...], str] = {
        (photos,): "--encoder",
        ("", *lite): "DATA is empty",
        ("nowhere", *lite): "nowhere is missing, and no known dataset is called so",
        ("cifar21", *lite): "did you mean cifar20?",
        ("usps_", *lite): "did you mean usps?",
        ("double_spiral", *lite): "takes images, and the samples of double_spiral are vectors",
        (str(tmp_path / "rows.npy"), *lite): "small takes images, and the samples are vectors",
        (str(tmp_path / "empty"), *lite): "holds no images",
        (str(tmp_path / "torn"), *lite): "b.png is torn or no image",
        (photos, *lite, "--out", "x.csv"): "expected: a name that ends in .npz or .npy",
        (photos, *lite, "--out", str(folder / "red" / "0.png" / "x.npz")): "cannot be written",
        (photos, *lite, "--side", "0"): "--side 0: at least 1 is needed",
        (photos, *lite, "--text", "text"): "text names a column of a .csv or .parquet, not of a folder",
        (photos, *lite, "--label", "kind"): "label",
        (texts, *lite): "no numbers in text",
        (texts, *lite, "--text", "txt"): "has no column txt; did you mean text?",
        (texts, *lite, "--text", "text"): "small takes images, and the samples are texts",
        ("digits", *lite, "--label", "kind"): "label: kind is for files of your own",
    }
    for words, expected in table.items():
        code, _, told = ran(capsys, *words)
        lines = [line for line in told.splitlines() if line.startswith("raymc: ")]
        assert code == 2 and len(lines) == 1 and expected in lines[0], (words, told)


def test_embed_looks_at_its_out_first(
    folder: Path, tmp_path: Path, only_small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.npz").mkdir()
    for out in (tmp_path / "x.npz", folder / "red" / "0.png" / "x.npz"):
        code, _, told = ran(capsys, str(folder), "--encoder", "efficientnet_lite2", "--out", str(out))
        assert code == 2 and "cannot be written" in told and not only_small


@pytest.mark.parametrize(
    ("dataset", "expected"),
    (
        ("{path: photos, encoder: efficientnet_lite3}", "unknown encoder efficientnet_lite3; did you mean"),
        ("{path: photos, encoder: 'timm:'}", "unknown encoder timm:"),
        ("{path: photos, weights: x.pth}", "weights: x.pth is for an encoder, and none is named"),
        ("{path: texts.csv, text: words}", "text: words is for an encoder, and none is named"),
        ("{path: photos, encoder: efficientnet_lite2, features: true}", "leave it out beside encoder"),
        ("{path: digits, encoder: efficientnet_lite2, name: digits}", "the name digits is that of a known dataset"),
    ),
)
def test_bad_spaces(dataset: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        load_space(space_of(tmp_path, dataset))
    assert expected in str(error.value)


def test_a_column_of_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From .csv and .parquet alike; blank ones are refused."""
    import pandas as pd

    def load(*_: Any, **__: Any) -> Any:
        return encoders.Encoder("lengths", torch.nn.Linear(1, 1), lengths, None, "nowhere")

    def lengths(texts: list[str]) -> torch.Tensor:
        return torch.tensor([[len(text), text.count("e")] for text in texts], dtype=torch.float32)

    monkeypatch.setattr(encoders, "load", load)
    rows = [("a", "one", "x"), ("b", "three, four", "y"), ("c", "eleven", "x")]
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "words", "kind"), *rows])
    pd.DataFrame(rows, columns=["id", "words", "kind"]).to_parquet(tmp_path / "t.parquet")
    found = [
        loaded(tmp_path, f"{{path: {name}, text: words, label: kind, id: id, encoder: 'sentence_transformers:m'}}",
               "fixed: {scaling: none}\n")
        for name in ("t.csv", "t.parquet")
    ]  # fmt: skip
    for data in found:
        assert data.train.x.tolist() == [[3, 1], [11, 2], [6, 3]] and data.samples == ("a", "b", "c")
        assert data.classes == ("x", "y")
    (tmp_path / "t.csv").write_text("words,n\nyes,1\n ,2\n")
    with pytest.raises(InputError, match="1 rows have no words; the first is row 1"):
        loaded(tmp_path, "{path: t.csv, text: words, encoder: 'sentence_transformers:m'}")


def test_a_study_has_one_copy_of_features(folder: Path, tmp_path: Path) -> None:
    """A training reads them from the store, and the scaling for new rows is beside its model."""
    from raymc.training import model_files
    from raymc.training.run import run

    space = load_space(space_of(tmp_path, "{path: photos, encoder: efficientnet_lite2}"))
    config = space.config({"geometry": False})
    seeds = dict.fromkeys(config.stages, 0)
    result = run(config, storage=str(tmp_path / "store"), out=tmp_path / "out", stage_seeds=seeds, smoke=True,
                 keep_model=True)  # fmt: skip
    assert "12 features of small" in result["split"] and result["n"] == 6
    model = model_files.load(tmp_path / "out" / "model")
    assert model.scaling is not None and model.scaling.how == "unit" and model.scaling.shift.shape == (12,)


def test_memory_of_many_features(tmp_path: Path) -> None:
    """60,000 x 768: 88 MiB in bfloat16 in the store, 176 as an .npy, of which a few are in memory."""
    path = os.pathsep.join([str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "peak_of_features.py"), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 40
