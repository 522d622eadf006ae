"""The user's own data: the same rows in every format, how they are scaled, and one line for whatever is wrong."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import ExifTags, Image

from raymc.cli import execute
from raymc.commands import check, train
from raymc.config import Config, OwnData
from raymc.datasets import Dataset, Split, load, load_for, load_once, own_tables
from raymc.datasets.own import read_own
from raymc.datasets.own_images import files_below
from raymc.datasets.scaling import WORDS, fit, scaled
from raymc.errors import InputError
from raymc.methods import METHODS
from raymc.space.space import load_space

RNG = np.random.default_rng(0)
N, D = 30, 4
X = RNG.normal(size=(N, D)) * [1, 10, 0.1, 1] + [0, 50, -3, 1]
TEXTS = np.asarray(["iris", "lily", "rose"])[np.arange(N) % 3]
Y = np.arange(N) % 3
# Short ones of the preset's, so that a training takes a moment.
QUICK = "fixed: {backbone: dense_256, pretrain.epochs: 1, finetune.epochs: 1, finetune.centers_by: kmeans}\n"


def frame(x: np.ndarray = X, **columns: Any) -> pd.DataFrame:
    return pd.DataFrame(x, columns=[f"c{i}" for i in range(x.shape[1])]).assign(**columns)


def own(path: Path, **keys: Any) -> OwnData:
    return OwnData(**{"name": path.stem, "path": str(path)} | keys)


def read(path: Path, scaling: str | None = None, **keys: Any) -> Dataset:
    return read_own(own(path, **keys), scaling)


def npz(path: Path, x: np.ndarray = X, **arrays: Any) -> Path:
    np.savez(path, x=x, **arrays)
    return path


def complaint(path: Path, scaling: str | None = None, **keys: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(path, scaling, **keys)
    text = str(caught.value)
    assert "\n" not in text and str(path) in text
    return text


def space(folder: Path, dataset: str, rest: str = QUICK) -> Path:
    path = folder / "mine.yaml"
    path.write_text(f"method: gcml\ndataset: {dataset}\n{rest}")
    return path


def write_all(folder: Path, x: np.ndarray) -> dict[str, Dataset]:
    """The same rows in every format."""
    np.save(folder / "rows.npy", x)
    frame(x, kind=TEXTS).to_csv(folder / "rows.csv", index=False)
    frame(x, kind=TEXTS).to_parquet(folder / "rows.parquet")
    return {
        "npz": read(npz(folder / "rows.npz", x, y=TEXTS)),
        "npy": read(folder / "rows.npy"),
        "csv": read(folder / "rows.csv", label="kind"),
        "parquet": read(folder / "rows.parquet", label="kind"),
    }


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_same_rows_are_the_same_samples_in_every_format(tmp_path: Path, dtype: type) -> None:
    found = write_all(tmp_path, X.astype(dtype))
    assert len({data.fingerprint for data in found.values()}) == 1
    assert found["npy"].train.y is None and found["npy"].n_classes is None
    for kind in ("npz", "csv", "parquet"):
        assert found[kind].train.y is not None and found[kind].train.y.tolist() == Y.tolist()
        assert found[kind].n_classes == 3 and found[kind].name == "rows"


def test_whole_numbers_are_read_like_the_same_real_ones(tmp_path: Path) -> None:
    x = RNG.integers(0, 200, (N, D))
    wanted = read(npz(tmp_path / "a.npz", x.astype(float))).fingerprint
    for dtype in (np.int64, np.uint8, np.float32):
        assert read(npz(tmp_path / f"{dtype.__name__}.npz", x.astype(dtype))).fingerprint == wanted


@pytest.mark.parametrize("kind", ["npy", "npz", "csv", "parquet"])
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_reading_takes_no_more_than_two_and_a_half_times_the_file(kind: str, tmp_path: Path) -> None:
    files, label = [], ["kind"] if kind in ("csv", "parquet") else []
    for rows in (200, 80_000 if kind == "csv" else 200_000):
        x = np.random.default_rng(0).normal(size=(rows, 20))
        files.append(tmp_path / f"{rows}.{kind}")
        if label:
            table = frame(x, kind=TEXTS[np.arange(rows) % 3])
            table.to_csv(files[-1], index=False) if kind == "csv" else table.to_parquet(files[-1])
        else:
            np.save(files[-1], x) if kind == "npy" else np.savez(files[-1], x=x, y=np.arange(rows) % 3)
    script = Path(__file__).parent / "peak_of_own_data.py"
    done = subprocess.run([sys.executable, script, *files, *label], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 2.5 * files[1].stat().st_size / 2**20


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("columns", [1, 2, 50])
def test_figures_taken_by_blocks_are_numpy_s_to_the_last_bit(columns: int, order: Any) -> None:
    x = np.asarray(RNG.normal(size=(20_000, columns)) * 7 + 3, np.float32, order=order)
    found, whole = fit(x, "standardise"), x.astype(np.float64)
    assert np.array_equal(found.shift, whole.mean(0)) and np.array_equal(found.width, whole.std(0))
    assert found(x).numpy().tobytes() == ((whole - found.shift) / found.width).astype(np.float32).tobytes()


def test_a_csv_that_is_read_in_parts_is_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column's kind, and that of the labels, is that of all its parts."""
    monkeypatch.setattr(own_tables, "BLOCK", 6)  # two rows at a time
    path = tmp_path / "rows.csv"
    for labels, classes in (
        (["1", "2", "03", "1"], 3),
        (["1", "2", "03", "a"], 4),
        (["true", "false"] * 2, 2),
        (["x, 1", "y", "y", "y"], 2),
    ):
        rows = [f'{i},{i / 7!r},"{label}"' for i, label in enumerate(labels)]
        path.write_text("\n".join(["a,b,kind", *rows]) + "\n")
        found = read(path, "none", label="kind")
        assert found.n_classes == classes and found.train.x[:, 0].tolist() == [0, 1, 2, 3]
    for column in ("1 2 3 x", "true true 1 2"):
        path.write_text("\n".join(["a,b,kind", *(f"{word},0,{i % 2}" for i, word in enumerate(column.split()))]) + "\n")
        assert "no numbers in a" in complaint(path, label="kind")
    path.write_text("a,b,kind\n1,2,x\n1,2,y\n1,2,x\n,2,x\n")
    assert "row 3, column a" in complaint(path, label="kind")


def test_vectors_are_standardised_unless_told_otherwise(tmp_path: Path) -> None:
    path = npz(tmp_path / "rows.npz")
    data = read(path)
    assert data.train.x.dtype == torch.float32 and len(data.train) == data.epoch_size == N and data.test is None
    x = data.train.x.double()
    torch.testing.assert_close(x.mean(0), torch.zeros(D).double(), rtol=0, atol=1e-7)
    torch.testing.assert_close(x.std(0, unbiased=False), torch.ones(D).double(), rtol=0, atol=1e-6)
    assert data.split == f"all, {N}; {WORDS['standardise']}" and WORDS["standardise"] in data.source
    small = read(path, "minmax")
    assert torch.equal(small.train.x.amin(0), torch.zeros(D)) and torch.equal(small.train.x.amax(0), torch.ones(D))
    plain = read(path, "none")
    assert np.array_equal(plain.train.x.numpy(), X.astype(np.float32)) and plain.split.endswith("columns as they are")
    assert len({one.fingerprint for one in (data, small, plain)}) == 3
    assert read(path, "standardise").fingerprint == data.fingerprint


@pytest.mark.parametrize("how", ["standardise", "minmax"])
def test_constant_columns_become_0_and_coarse_ones_keep_their_digits(tmp_path: Path, how: str) -> None:
    seconds = 1.7e9 + np.arange(N) / 8  # float32 knows them to 128 only
    x = np.stack([np.full(N, 0.1), np.full(N, 1e-300), 1e-300 * Y, seconds, seconds - 1.7e9], 1)
    data = read(npz(tmp_path / "rows.npz", x), how)
    assert bool(data.train.x.isfinite().all())
    assert not data.train.x[:, :2].any()
    torch.testing.assert_close(data.train.x[:, 3], data.train.x[:, 4], rtol=0, atol=1e-5)


def test_new_rows_are_scaled_by_the_figures_of_the_training_rows(tmp_path: Path) -> None:
    data = read(npz(tmp_path / "rows.npz"))
    assert data.scaling is not None
    assert torch.equal(data.scaling(X[3:5]), data.train.x[3:5])
    assert torch.equal(data.scaling(X[:1] + 1), fit(X, "standardise")(X[:1] + 1))


def test_labels_do_not_touch_the_fingerprint_and_are_numbered_in_order(tmp_path: Path) -> None:
    plain = read(npz(tmp_path / "none.npz"))
    labels = [Y, Y[::-1], Y * 10 - 10, Y.astype(float), TEXTS, TEXTS.astype("S"), Y == 1, Y.astype(np.uint8)]
    for i, y in enumerate(labels):
        data = read(npz(tmp_path / f"{i}.npz", y=y))
        assert data.fingerprint == plain.fingerprint and data.train.y is not None
        assert np.array_equal(data.train.y.numpy(), np.unique(y, return_inverse=True)[1])
        assert data.n_classes == len(np.unique(y))


def test_labels_of_a_table_are_numbers_or_texts(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    for y, wanted in ((Y * 2 + 9, Y), (np.asarray(["NA", "None", "no"])[Y], Y), (Y.astype(float), Y)):
        frame(kind=y).to_csv(path, index=False)
        found = read(path, label="kind")
        assert found.train.y is not None and found.train.y.tolist() == wanted.tolist()
    table = frame(kind=pd.array(TEXTS, dtype="string"), number=pd.array(Y, dtype="Int64"))
    table.to_parquet(tmp_path / "rows.parquet")
    frame(kind=pd.Categorical(TEXTS), number=Y).to_parquet(tmp_path / "more.parquet")
    for dtype in ("boolean", "Int64", "int64[pyarrow]"):
        given = pd.Series([value > 0 for value in Y], dtype="boolean").astype(dtype)
        frame(kind=given).to_parquet(tmp_path / "b.parquet")
        assert read(tmp_path / "b.parquet", label="kind").n_classes == 2, dtype
    table.drop(columns="kind").to_parquet(tmp_path / "numbers.parquet")
    assert read(tmp_path / "numbers.parquet", label="number").n_classes == 3
    assert read(tmp_path / "numbers.parquet").train.x.shape == (N, D + 1), "without label: it is a column like others"
    assert "no numbers in kind" in complaint(tmp_path / "rows.parquet", label="number")
    assert "no numbers in kind" in complaint(tmp_path / "more.parquet", label="number")


@pytest.mark.parametrize("word", ["NA", "nan", "NULL", "None", "?", " n/a "])
def test_a_word_for_no_label_among_numbers_is_no_class(tmp_path: Path, word: str) -> None:
    labels = np.asarray(["0", "1", word, "0.5", "1", word])
    path = npz(tmp_path / "rows.npz", X[:6], y=labels)
    assert f"2 rows have no label; the first is row 2 ({word.strip()})" in complaint(path)
    frame(X[:6], kind=labels).to_csv(tmp_path / "rows.csv", index=False)
    frame(X[:6], kind=labels).to_parquet(tmp_path / "rows.parquet")
    for kind in ("csv", "parquet"):
        assert "2 rows have no kind; the first is row 2" in complaint(tmp_path / f"rows.{kind}", label="kind")
    named = read(npz(tmp_path / "named.npz", X[:3], y=np.asarray(["iris", word, "lily"])))
    assert named.n_classes == 3, "among texts it is a class"


@pytest.mark.parametrize("kind", ["U", "S"])
def test_spaces_around_a_label_make_no_class_and_blanks_are_none(tmp_path: Path, kind: str) -> None:
    labels = np.asarray(["iris", " lily", "iris ", "lily"]).astype(kind)
    assert read(npz(tmp_path / "rows.npz", X[:4], y=labels)).n_classes == 2
    frame(X[:4], kind=labels.astype(str)).to_csv(tmp_path / "rows.csv", index=False)
    data = read(tmp_path / "rows.csv", label="kind")
    assert data.train.y is not None and data.train.y.tolist() == [0, 1, 0, 1]
    labels[1] = "  "
    assert "1 rows have no label; the first is row 1" in complaint(npz(tmp_path / "rows.npz", X[:4], y=labels))


def test_an_npz_with_labels_of_another_name_is_not_read_without_them(tmp_path: Path) -> None:
    for name in ("Y", "labels"):
        told = f"has no y but {name}: call labels y; to go without them leave them out"
        assert told in complaint(npz(tmp_path / "rows.npz", **{name: Y}))
    data = read(npz(tmp_path / "rows.npz", y=Y, ids=Y, labels=Y))
    assert data.n_classes == 3 and data.source.endswith("; without its arrays ids, labels)")


def test_names_in_a_parquet_are_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    frame(site=Y).set_index("site").to_parquet(path)
    for label in (None, "site"):
        assert "has site as its index; write the table after reset_index() to have it" in complaint(path, label=label)
    frame().set_index(Y).to_parquet(path)
    assert read(path).train.x.shape == (N, D), "an index without a name numbers the rows"
    pq.write_table(pa.table([X[:, 0], X[:, 1], X[:, 2]], names=["a", "b", "a"]), path)
    assert "several columns are called a; expected: a name of its own for each" in complaint(path)


@pytest.mark.parametrize(
    ("shape", "channels"), [((6, 9, 7), 1), ((6, 9, 7, 3), 3), ((6, 3, 9, 7), 3), ((6, 9, 7, 1), 1)]
)
def test_bytes_of_three_or_four_axes_are_images(tmp_path: Path, shape: tuple[int, ...], channels: int) -> None:
    x = RNG.integers(0, 256, shape, dtype=np.uint8)
    data = read(npz(tmp_path / "images.npz", x, y=Y[:6]))
    assert data.train.x.shape == (6, channels, 9, 7) and data.train.x.dtype == torch.uint8
    first = x[0] if len(shape) == 3 or shape[1] == 3 else x[0].transpose(2, 0, 1)
    assert np.array_equal(data.train.x[0].numpy().reshape(first.shape), first)
    assert f"images of 7x9 {'colour' if channels == 3 else 'grey'}" in data.split and data.scaling is None
    assert read(tmp_path / "images.npz", "none").fingerprint == data.fingerprint
    text = complaint(tmp_path / "images.npz", "minmax", name=str(tmp_path / "images.npz"))
    assert "scaling: minmax is for vectors" in text


def write_images(folder: Path, **kinds: tuple[str, tuple[int, int]]) -> Path:
    for name, (mode, size) in kinds.items():
        path = folder / f"{name.replace('__', '/')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode).save(path)
    return folder


def test_a_folder_of_images_has_its_subfolders_as_labels(tmp_path: Path) -> None:
    grey = write_images(tmp_path / "grey", b__1=("L", (20, 20)), a__2=("L", (20, 20)), a__1=("1", (20, 20)))
    (grey / "notes.txt").write_text("no image")
    data = read(grey)
    assert data.train.x.shape == (3, 1, 20, 20) and data.name == "grey"
    assert data.train.y is not None and data.train.y.tolist() == [0, 0, 1]
    assert np.array_equal(data.train.x[2, 0].numpy(), np.asarray(Image.open(grey / "b/1.png")))
    assert read(grey, side=32).train.x.shape == (3, 1, 32, 32)
    mixed = write_images(tmp_path / "mixed", x=("L", (30, 20)), y=("RGBA", (70, 90)), z=("P", (8, 8)))
    data = read(mixed)
    assert data.train.x.shape == (3, 3, 64, 64) and data.train.y is None
    assert torch.equal(data.train.x[0, 0], data.train.x[0, 2]), "grey in colours"
    large = write_images(tmp_path / "large", x=("RGB", (100, 100)), y=("RGB", (100, 100)))
    assert read(large).train.x.shape == (2, 3, 64, 64) and read(large, side=100).train.x.shape == (2, 3, 100, 100)


def test_folders_that_are_no_set_of_images(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"{empty} holds no images" in complaint(empty)
    mixed = write_images(tmp_path / "mixed", x=("L", (9, 9)), a__y=("L", (9, 9)))
    assert "beside subfolders" in complaint(mixed)
    alone = write_images(tmp_path / "alone", a__x=("L", (9, 9)), a__y=("L", (9, 9)))
    assert "all labels are a; at least two classes" in complaint(alone)
    (alone / "b").mkdir()
    assert "holds no images" in complaint(alone)
    torn = write_images(tmp_path / "torn", x=("L", (99, 99)), y=("L", (9, 9)))
    (torn / "x.png").write_bytes((torn / "x.png").read_bytes()[:200])
    assert f"{torn / 'x.png'} is torn or no image" in complaint(torn)
    Image.fromarray(RNG.integers(0, 60000, (9, 9)).astype(np.uint16)).save(torn / "x.png")
    assert "x.png is 9x9 I;16; expected: an image of 8 bits" in complaint(torn)
    assert "label names a column" in complaint(torn, label="kind")


def test_no_file_of_a_folder_is_left_out_without_a_word(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "all", a__x=("L", (9, 9)), b__x=("L", (9, 9)))
    assert read(folder).source == f"{folder} (images of 9x9 grey)"
    for name in ("notes.txt", "a/list.csv", ".hidden", "a/._x.png", ".thumbs/x.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("no image")
    assert read(folder).source == f"{folder} (images of 9x9 grey; 2 other files left out)"
    assert read(folder).split == "all, 2; images of 9x9 grey; 2 other files left out"
    (folder / "a/y.TIF").write_bytes(b"")
    told = f"holds 1 images of a kind that is not read (.tif); the first is {folder / 'a/y.TIF'}; expected: .bmp, .jpeg"
    assert told in complaint(folder)
    deep = write_images(tmp_path / "deep", a__x=("L", (9, 9)), b__deep__x=("L", (9, 9)))
    told = f"holds 1 images below its subfolders; the first is {deep / 'b/deep/x.png'}; expected: all in the folder"
    assert told in complaint(deep)
    beside = write_images(tmp_path / "beside", x=("L", (9, 9)), a__b__c=("L", (9, 9)))
    assert "images below its subfolders" in complaint(beside)


def test_links_to_folders_are_followed_but_not_around_in_circles(tmp_path: Path) -> None:
    write_images(tmp_path / "kept", x=("L", (9, 9)))
    folder = write_images(tmp_path / "all", a__x=("L", (9, 9)))
    (folder / "b").symlink_to(tmp_path / "kept")
    (tmp_path / "kept/up").symlink_to(tmp_path)
    assert read(folder).n_classes == 2


def test_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    folder = tmp_path / "all"
    write_images(folder, a__x=("L", (9, 9)), b__x=("L", (9, 9)), c__x=("L", (9, 9)))
    for one, other in itertools.permutations("abc", 2):
        (folder / one / f"to{other}").symlink_to(folder / other)
    assert len(list(files_below(folder))) == 3 + 6 + 6, "each way that goes through no folder twice"
    assert "images below its subfolders" in complaint(folder)
    upwards = write_images(tmp_path / "upwards", a__x=("L", (9, 9)), b__x=("L", (9, 9)))
    (upwards / "up").symlink_to(tmp_path)
    assert read(upwards).n_classes == 2


@pytest.mark.parametrize("rows", ["\na\n1\n2\n3\n", "\n \na,b\n1,2\n3,4\n5,6\n"])
def test_blank_lines_before_the_names_are_none(tmp_path: Path, rows: str) -> None:
    (tmp_path / "rows.csv").write_text(rows)
    assert len(read(tmp_path / "rows.csv").train) == 3


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_images(tmp_path / "all", a__x=("L", (9, 9)), b__x=("L", (9, 9)))
    scandir = os.scandir

    def forbidden(place: Any) -> Any:
        if str(place).endswith("b"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", forbidden)
    assert f"{folder / 'b'} cannot be read (Permission denied)" in complaint(folder)


def test_a_photo_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "all", x=("L", (9, 9)), y=("L", (9, 9)))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the camera's right is up
    with Image.open(folder / "x.png") as image:
        plain = np.asarray(image)
        image.save(folder / "x.png", exif=exif)
    assert np.array_equal(read(folder).train.x[0, 0].numpy(), np.rot90(plain, -1))


def test_a_transparent_pixel_has_the_colour_that_is_stored(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "all", x=("RGB", (9, 9)), y=("RGB", (9, 9)))
    colours = read(folder)
    with Image.open(folder / "x.png") as image:
        image.putalpha(0)
        image.save(folder / "x.png")
    assert torch.equal(read(folder).train.x, colours.train.x)


def bad(x: np.ndarray, row: int, column: int, value: float) -> np.ndarray:
    x = x.copy()
    x[row:, column] = value
    return x


@pytest.mark.parametrize(
    ("x", "y", "told"),
    [
        (bad(X, 28, 2, np.nan), None, "holds 2 values that are missing, NaN, infinite or beyond float32; the first is"),
        (bad(X, 28, 2, np.nan), None, "row 28, column 2 (counted from 0)"),
        (bad(X, 29, 0, -np.inf), None, "holds 1 values"),
        (bad(X, 29, 1, 1e39), None, "row 29, column 1"),
        (X[0], None, "x of 4 values (float64); expected: rows [n, d] of numbers, or uint8 images"),
        (np.float64(3), None, "x of no values"),
        (X[:0], None, "x of 0x4 values"),
        (X[:, :0], None, "x of 30x0 values"),
        (X[:1], None, "holds 1 samples; at least 2 are needed"),
        (X.reshape(N, 2, 2), None, "x of 30x2x2 values (float64)"),
        (X.astype(complex), None, "(complex128)"),
        (X.astype(str), None, "x of 30x4 values (<U"),
        (np.zeros((4, 5, 5, 2), np.uint8), None, "images of 4x5x5x2; expected: 1 or 3 colours"),
        (X, Y[:7], "holds 7 labels (int64) for 30 samples"),
        (X, Y[:, None], "holds 30x1 labels"),
        (X, Y * 1j, "(complex128)"),
        (X, Y + 0.5, "the label of row 0 is 0.5; expected: a whole number"),
        (X, bad(Y[:, None] * 1.0, 4, 0, np.nan)[:, 0], "the label of row 4 is nan"),
        (X, np.ones(N, int), "all labels are 1; at least two classes are needed, or no labels"),
    ],
)
def test_arrays_that_are_no_samples_are_one_line(tmp_path: Path, x: np.ndarray, y: Any, told: str) -> None:
    path = npz(tmp_path / "rows.npz", x, **({} if y is None else {"y": y}))
    assert told in complaint(path)


def test_files_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    assert "is missing; expected: .npz, .npy, .csv, .parquet or a folder of images" in complaint(
        tmp_path / "absent.csv"
    )
    for name in ("rows.xlsx", "rows"):
        (tmp_path / name).write_bytes(b"")
        assert f"unknown extension {Path(name).suffix or '(none)'}; expected: .npz" in complaint(tmp_path / name)
    for kind in ("npz", "npy", "parquet"):
        path = tmp_path / f"rows.{kind}"
        whole = path.read_bytes() if path.exists() else b""
        for torn in (b"", b"not what it says", whole[: len(whole) // 2]):
            path.write_bytes(torn)
            complaint(path)
    np.savez(tmp_path / "rows.npz", samples=X, y=Y)
    assert "lacks an array x (it has samples, y)" in complaint(tmp_path / "rows.npz")
    npz(tmp_path / "rows.npz", y=Y)
    (tmp_path / "rows.npy").write_bytes((tmp_path / "rows.npz").read_bytes())
    assert "holds several arrays" in complaint(tmp_path / "rows.npy")
    assert "label names a column of a .csv or .parquet" in complaint(tmp_path / "rows.npz", label="y")
    assert "side is for a folder of images" in complaint(tmp_path / "rows.npz", side=32)


class Harm:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("harm"),))


def test_objects_in_a_file_are_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "rows.npz", allow_pickle=True, x=np.asarray([Harm()], object))
    assert "objects, which could be code" in complaint(tmp_path / "rows.npz")
    (tmp_path / "rows.npy").write_bytes(pickle.dumps(Harm()))
    complaint(tmp_path / "rows.npy")
    assert not (tmp_path / "harm").exists()


GOOD = "a,b,kind\n1,2,x\n3,5,y\n4,4,x\n"


@pytest.mark.parametrize(
    ("text", "label", "told"),
    [
        (GOOD, "kin", "has no column kin; did you mean kind?"),
        (GOOD, None, "no numbers in kind; the column of the labels is named by label: in the space file"),
        (GOOD.replace(",2,", ",two,"), "kind", "no numbers in b"),
        (GOOD.replace("b,kind", "site,kind").replace(",2,", ",two,"), None, "no numbers in site, kind"),
        (GOOD.replace(",2,", ",,"), "kind", "holds 1 values that are missing"),
        (GOOD.replace(",2,", ",NA,").replace(",4,", ",inf,"), "kind", "holds 2 values"),
        (GOOD.replace(",5,", ",NaN,"), "kind", "row 1, column b (counted from 0)"),
        (GOOD.replace("5,y", "5,"), "kind", "1 rows have no kind; the first is row 1"),
        (GOOD.replace("5,y", "5"), "kind", "1 rows have no kind; the first is row 1"),
        (GOOD.replace("5,y", "5,y,7"), "kind", "cannot be read"),
        (GOOD.replace("2,x", "2,x,7"), "kind", "cannot be read"),
        (GOOD.replace("y", "x"), "kind", "all labels are x; at least two classes"),
        ("a,kind\n1,0.5\n2,1\n", "kind", "the label of row 0 is 0.5"),
        ("a,kind\n1,true\n2,false\n3,NA\n", "kind", "1 rows have no kind; the first is row 2 (NA)"),
        (
            "a\n1\n\n3\n",
            None,
            "holds 1 values that are missing, NaN, infinite or beyond float32; the first is in row 1",
        ),
        ("", None, "cannot be read"),
        ("a,b\n", None, "holds 0 rows of 2 columns"),
        ("kind\nx\ny\n", "kind", "holds 2 rows of 0 columns"),
        *(
            (f"{first}\n3,4,5\n5,6,8\n", None, "the first line holds numbers; expected: the names of the columns")
            for first in ("1.5,2,3", "0.0,0.0,0.0", "1.5,,2", "1,NA,2", "1,1,nan")
        ),
        ("k,k,c\n0,0,1\n1,1,2\n", "k", "several columns are called k; expected: a name of its own for each"),
        ("k,c, k \n0,1,0\n1,2,1\n", "k", "several columns are called k"),
        ("a;b\n1;2\n3;4\n", None, "columns are separated by commas, and the first line has none: 'a;b'"),
        ("a\tb\n1\t2\n3\t4\n", None, "the first line has none: 'a\\tb'"),
        ("a;b\n1,5;2\n3,2;4\n", None, "columns are separated by commas"),
        (
            ",a,b\n0,1,2\n1,3,4\n",
            None,
            "column 0 (counted from 0) has no name; numbers of rows would be taken for data",
        ),
    ],
)
def test_a_csv_that_is_no_table_of_numbers_is_one_line(tmp_path: Path, text: str, label: str | None, told: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    assert told in complaint(path, label=label)


def test_a_csv_with_numbered_columns_and_one_of_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    pd.DataFrame(X).to_csv(path, index=False)
    assert read(path).train.x.shape == (N, D)
    path.write_bytes(b"a,b\xff\n1,2\n3,4\n")
    assert "cannot be read" in complaint(path)


def test_many_columns_of_text_are_not_all_named(tmp_path: Path) -> None:
    frame(**{f"t{i}": TEXTS for i in range(9)}).to_parquet(tmp_path / "rows.parquet")
    assert "no numbers in t0, t1, t2, t3, t4 and 4 more" in complaint(tmp_path / "rows.parquet")
    frame(when=pd.Timestamp(0)).to_parquet(tmp_path / "rows.parquet")
    assert "no numbers in when" in complaint(tmp_path / "rows.parquet")


def test_a_relative_path_is_taken_from_the_space_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    npz(tmp_path / "data/rows.npz", y=Y)
    path = space(tmp_path, "{path: data/rows.npz}")
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name in (path, os.path.relpath(path)):
        found = load_space(name)
        assert found.own == own(tmp_path / "data/rows.npz") and found.dataset == found.config().dataset == "rows"
        assert load_for(found.config()).fingerprint == read(tmp_path / "data/rows.npz").fingerprint
        # What a study keeps can be read anywhere.
        (tmp_path / "elsewhere/kept.yaml").write_text(json.dumps(dict(found.content)))
        assert load_space("kept.yaml").own == found.own
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_space(space(tmp_path, "{path: ~/data/rows.npz, name: flowers}")).own == own(
        tmp_path / "data/rows.npz", name="flowers"
    )


def test_known_vectors_may_be_scaled_and_images_may_not() -> None:
    sphere = load("sphere")
    data = load_for(Config(method="mlc", dataset="sphere", scaling="standardise"))
    assert data.train.x.mean(0).abs().max() < 1e-6 and data.fingerprint != sphere.fingerprint
    for how in (None, "none"):
        assert load_for(Config(method="mlc", dataset="sphere", scaling=how)).fingerprint == sphere.fingerprint
    with pytest.raises(InputError, match="scaling: minmax is for vectors, and digits holds images; leave it null"):
        load_for(Config(method="nmce", dataset="digits", scaling="minmax"))


def test_a_stream_is_scaled_as_its_evaluation_set_is() -> None:
    plain = load("double_spiral")
    data = scaled(plain, "minmax")
    assert data.stream is not None and plain.stream is not None and data.scaling is not None
    drawn, raw = (one(torch.Generator().manual_seed(0), 50) for one in (data.stream, plain.stream))
    assert torch.equal(drawn, data.scaling(raw.numpy())) and not torch.equal(drawn, raw)
    assert len({one.fingerprint for one in (plain, data, scaled(plain, "standardise"))}) == 3


def test_scaling_uses_the_training_rows_alone() -> None:
    sphere = load("sphere")
    parts = [Split(sphere.train.x[rows], None) for rows in (slice(0, 150), slice(150, 200))]
    data = scaled(dataclasses.replace(sphere, train=parts[0], test=parts[1]), "standardise")
    assert data.train.x.mean(0).abs().max() < 1e-6 and data.test is not None
    assert torch.equal(data.test.x, fit(parts[0].x.numpy(), "standardise")(parts[1].x.numpy()))


def test_a_file_that_changes_is_read_anew(tmp_path: Path) -> None:
    config = Config(method="gcml", dataset="rows", own=own(npz(tmp_path / "rows.npz")))
    before = load_once(config)
    assert load_once(config) is before
    npz(tmp_path / "rows.npz", X[:9])
    assert len(load_once(config).train) == 9


def test_a_folder_is_read_anew_when_a_file_in_it_changes(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "all", a__x=("L", (9, 9)), b__x=("L", (9, 9)))
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    config = Config(method="gcml", dataset="all", own=own(folder))
    before = load_once(config)
    assert load_once(config) is before
    Image.new("L", (9, 9), 7).save(folder / "b/x.png")
    assert bool((load_once(config).train.x[1] == 7).all())


@pytest.mark.parametrize(
    ("dataset", "told"),
    [
        ("{path: images, side: 100000}", "dataset.side: 100000 is above 1024"),
        ("{path: rows.csv, label: ''}", "dataset.label: is empty"),
        ("{path: ''}", "dataset.path: is empty"),
        ("{path: rows.csv, name: usps}", "dataset: the name usps is that of a known dataset; give another as name"),
        ("{path: mine/usps.npz}", "dataset: the name usps, from its path, is that of a known dataset; give another"),
        ("{path: rows.csv, name: a/b}", "dataset: name 'a/b' is no plain name"),
        ('{path: rows.csv, name: "a\\nb"}', "dataset: name 'a\\nb' is no plain name"),
        ("{path: rows.csv, name: ' '}", "dataset: name ' ' is no plain name"),
    ],
)
def test_a_section_that_cannot_be_meant_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], dataset: str, told: str
) -> None:
    code, out, err = run(capsys, train, str(space(tmp_path, dataset)))
    assert (code, out) == (2, "") and told in err and err.count("\n") == 1


def test_a_method_without_presets_for_own_data_names_those_that_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = space(tmp_path, "{path: rows.npz}", "")
    able = [name for name, method in METHODS.items() if "own" in method.presets]
    assert "gcml" in able and "nmce" not in able
    path.write_text(path.read_text().replace("gcml", "nmce"))
    with pytest.raises(
        InputError, match=f"nmce has no presets for data of your own .methods that have: {', '.join(able)}"
    ):
        load_space(path)


def run(capsys: pytest.CaptureFixture[str], command: Callable[..., Any], *words: str) -> tuple[int, str, str]:
    code = execute(command.parser(), command.run, list(words))  # type: ignore[attr-defined]
    return code, *capsys.readouterr()


def test_own_data_are_checked_and_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frame(kind=TEXTS).to_csv(tmp_path / "rows.csv", index=False)
    path = str(space(tmp_path, "{path: rows.csv, label: kind, name: flowers}"))
    code, out, _ = run(capsys, check, path)
    assert code == 0 and "ok       one step of each stage at preset" in out
    code, out, _ = run(capsys, train, path, "finetune.batch_size=8", "--storage", "store", "--out", "out", "--json")
    result = json.loads(out)
    assert (
        code == 0 and result["dataset"] == "flowers" and result["n"] == N and {"acc", "nmi"} <= set(result["metrics"])
    )
    assert result["split"] == f"all, {N}; {WORDS['standardise']}"
    assert json.loads((tmp_path / "out/metrics.json").read_text())["split"] == result["split"]
    told = json.loads((tmp_path / "out/config.json").read_text())
    assert told["own"] == {"name": "flowers", "path": str(tmp_path / "rows.csv"), "label": "kind", "side": None}
    model = torch.load(tmp_path / "out/model.pt", weights_only=True)
    scale = fit(X, "standardise")
    assert model["scaling"]["how"] == "standardise"
    assert all(np.array_equal(model["scaling"][name].numpy(), getattr(scale, name)) for name in ("shift", "width"))


def test_other_labels_of_the_same_samples_share_the_stages_but_no_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(space(tmp_path, "{path: rows.npz}", QUICK.replace("}", ", finetune.batch_size: 8, evaluate_every: 1}")))
    curves, cached = [], []
    for y in (Y, Y, (Y + (np.arange(N) > 14)) % 3):
        npz(tmp_path / "rows.npz", y=y)
        _, out, _ = run(capsys, train, path, "--storage", "store", "--out", "out", "--json")
        cached.append([stage["cached"] for stage in json.loads(out)["stages"]])
        curves.append([json.loads(line) for line in (tmp_path / "out/curve.jsonl").read_text().splitlines()])
    assert cached == [[False, False], [True, True], [True, True]]
    scored = [any("acc" in row for row in curve) for curve in curves]
    assert scored == [True, True, False]


def test_what_is_missing_is_said_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "rows.npy", X)
    for dataset, told in (
        ("{path: rows.npy}", "rows has no labels: give n_clusters"),
        ("{path: absent.npy}", f"{tmp_path / 'absent.npy'} is missing"),
    ):
        path = str(space(tmp_path, dataset))
        code, out, err = run(capsys, train, path, "--storage", "store", "--out", "out")
        assert (code, out) == (2, "") and err.startswith("raymc: ") and told in err and err.count("\n") == 1
        code, out, err = run(capsys, check, path)
        assert code == 2 and "INVALID" in out and told in out
        assert not (tmp_path / "store").exists() and not (tmp_path / "out").exists()
    path = str(space(tmp_path, "{path: rows.npy}"))
    code, _, err = run(capsys, train, path, "n_clusters=31", "--storage", "store")
    assert code == 2 and "30 points cannot have 31 clusters" in err
    path = str(space(tmp_path, "{path: rows.npy}", QUICK.replace("{", "{n_clusters: 3, ")))
    code, out, _ = run(capsys, check, path)
    assert code == 0 and "note     tune: acc needs labels, which are not there" in out
