"""Data that a user may well bring: each is one line and exit code 2, or the right answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raymc.commands import check
from raymc.datasets import load_for
from raymc.space.space import load_space
from tests.own_data import TEXTS, N, X, Y, bad, frame, npz, run, space, write_images

Write = Callable[[Path], object]


def csv(name: str = "rows", x: np.ndarray = X, **columns: object) -> Write:
    return lambda folder: frame(x, **columns).to_csv(folder / f"{name}.csv", index=False)


def photos(**kinds: tuple[str, tuple[int, int]]) -> Write:
    return lambda folder: write_images(folder / "all", **kinds)


def deep_grey(folder: Path) -> None:
    for place, shade in (("a/b", 257), ("c/d/e", 65_535)):
        (folder / "all" / place).mkdir(parents=True)
        Image.fromarray(np.full((9, 9), shade, np.uint16)).save(folder / "all" / place / "x.tif")


def torn(folder: Path) -> None:
    path = write_images(folder / "all", x=("RGB", (99, 99)), y=("RGB", (9, 9))) / "x.png"
    path.write_bytes(path.read_bytes()[:200])


WRONG: list[tuple[str, Write, str, str]] = [
    ("one row", csv(x=X[:1]), "path: rows.csv", "rows.csv holds 1 samples; at least 2 are needed"),
    ("no images", lambda folder: (folder / "all").mkdir(), "path: all", "all holds no images; expected: .bmp"),
    (
        "names that repeat",
        csv(site=TEXTS),
        "path: rows.csv, id: site",
        "27 rows repeat a name in site: row 3 is 'iris'",
    ),
    (
        "other columns",
        lambda folder: (csv()(folder), csv("test", X[:, :3])(folder)),
        "path: rows.csv, test: test.csv",
        "has 3 columns; expected: 4, not fewer, the first of them c3",
    ),
    (
        "a column of text",
        csv(title=TEXTS),
        "path: rows.csv",
        "no numbers in title; a column of text is named by label: (its classes), id: (the samples' names), "
        "text: (embedded by encoder: sentence_transformers:ID), or left out",
    ),
    ("no number", csv(x=bad(X, 7, 2, np.nan)), "path: rows.csv", "the first is in row 7, column c2 (counted from 0)"),
    (
        "texts as numbers",
        csv(c2=[*X[:-1, 2], "n. d."]),
        "path: rows.csv",
        "row 29 (counted from 0), column c2 holds 'n. d.' (a missing value?",
    ),
    ("a torn photo", torn, "path: all", "all/x.png is torn or no image"),
    (
        "no folder is a class",
        photos(x=("L", (9, 9)), y=("L", (9, 9))),
        "path: all, label: folder",
        "in no folder below it",
    ),
    ("id of an array", lambda folder: npz(folder / "rows.npz"), "path: rows.npz, id: x", "id names a column of a .csv"),
    ("two roles", csv(), "path: rows.csv, id: c1, label: c1", "dataset: c1 is named as id and as label; expected: two"),
]


@pytest.mark.parametrize(("write", "dataset", "told"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_what_cannot_be_meant_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], write: Write, dataset: str, told: str
) -> None:
    write(tmp_path)
    path = space(tmp_path, f"{{{dataset}}}", "fixed: {n_clusters: 2}\n")
    code, out, err = run(capsys, check, str(path))
    assert code == 2 and told in out and err.count("\n") == 1
    assert sum(told in line for line in out.splitlines()) == 1


RIGHT: list[tuple[str, Write, str, tuple[int, ...]]] = [
    ("constant columns", csv(x=X * [1, 0, 1, 0]), "path: rows.csv", (N, 4)),
    ("duplicates", csv(x=np.repeat(X[:3], 200, 0)), "path: rows.csv", (600, 4)),
    ("several sizes", photos(x=("L", (9, 9)), y=("RGB", (30, 20))), "path: all", (2, 3, 64, 64)),
    ("greys of 16 bits in folders", deep_grey, "path: all, label: folder", (2, 1, 9, 9)),
    ("labels", lambda folder: npz(folder / "rows.npz", y=Y), "path: rows.npz", (N, 4)),
]


@pytest.mark.parametrize(("write", "dataset", "shape"), [row[1:] for row in RIGHT], ids=[row[0] for row in RIGHT])
def test_what_is_unusual_is_read(tmp_path: Path, write: Write, dataset: str, shape: tuple[int, ...]) -> None:
    write(tmp_path)
    data = load_for(load_space(space(tmp_path, f"{{{dataset}}}")).config())
    assert data.train.x.shape == shape
    if len(shape) == 2:
        assert bool(data.train.x.isfinite().all())
        assert not data.train.x[:, [bool(np.ptp(column) == 0) for column in data.train.x.numpy().T]].any()
    elif "label" in dataset:
        assert data.classes == ("a", "c") and data.train.x.amax((1, 2, 3)).tolist() == [1, 255]
