"""The user's own data: the same rows in every format, the part that is held out, and reading them anew."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from raymc.config import Config
from raymc.datasets import Dataset, load_once
from raymc.training.smoke import limit
from tests.own_data import RNG, TEXTS, D, N, X, Y, complaint, frame, npz, own, read


def write_all(folder: Path, x: np.ndarray) -> dict[str, Dataset]:
    """The same rows in every format."""
    np.save(folder / "rows.npy", x)
    frame(x, kind=TEXTS).to_csv(folder / "rows.csv", index=False)
    frame(x, kind=TEXTS).to_parquet(folder / "rows.parquet")
    table = frame(kind=TEXTS)[["kind"]].assign(emb=list(x))
    table.to_parquet(folder / "lists.parquet")
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), D)
    pq.write_table(pa.table({"kind": TEXTS, "emb": fixed}), folder / "fixed.parquet", row_group_size=7)
    tensors = {"x": torch.from_numpy(x), "y": torch.from_numpy(Y)}
    save_file(tensors, folder / "rows.safetensors")
    torch.save(tensors, folder / "rows.pt")
    torch.save(tensors["x"], folder / "lone.pt")
    return {
        "npz": read(npz(folder / "rows.npz", x, y=TEXTS)),
        "npy": read(folder / "rows.npy"),
        "csv": read(folder / "rows.csv", label="kind"),
        **{f"{name}.parquet": read(folder / f"{name}.parquet", label="kind") for name in ("rows", "lists", "fixed")},
        "safetensors": read(folder / "rows.safetensors"),
        "pt": read(folder / "rows.pt"),
        "lone": read(folder / "lone.pt"),
    }


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_same_rows_are_the_same_samples_in_every_format(tmp_path: Path, dtype: type) -> None:
    found = write_all(tmp_path, X.astype(dtype))
    assert len({data.fingerprint for data in found.values()}) == 1
    for kind, data in found.items():
        if kind in ("npy", "lone"):
            assert data.train.y is None and data.n_classes is None and data.classes is None
            continue
        assert data.train.y is not None and data.train.y.tolist() == Y.tolist() and data.n_classes == 3
        tensors = kind in ("safetensors", "pt")
        assert data.classes == (("0", "1", "2") if tensors else ("iris", "lily", "rose")) and data.samples is None


def test_whole_numbers_are_read_like_the_same_real_ones(tmp_path: Path) -> None:
    x = RNG.integers(0, 200, (N, D))
    wanted = read(npz(tmp_path / "a.npz", x.astype(float))).fingerprint
    for dtype in (np.int64, np.uint8, np.float32):
        assert read(npz(tmp_path / f"{dtype.__name__}.npz", x.astype(dtype))).fingerprint == wanted


def write_rows(path: Path, x: np.ndarray) -> None:
    """The rows in the form of the file's ending."""
    kind, y = path.suffix[1:], np.arange(len(x)) % 3
    if kind in ("csv", "parquet"):
        table = frame(x, kind=TEXTS[y])
        table.to_csv(path, index=False) if kind == "csv" else table.to_parquet(path)
    elif kind == "npy":
        np.save(path, x)
    elif kind == "npz":
        np.savez(path, x=x, y=y)
    else:
        tensors = {"x": torch.from_numpy(x), "y": torch.from_numpy(y)}
        torch.save(tensors, path) if kind == "pt" else save_file(tensors, path)


@pytest.mark.parametrize("kind", ["npy", "npz", "csv", "parquet", "lists", "safetensors", "pt"])
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_reading_takes_no_more_than_two_and_a_half_times_the_file(kind: str, tmp_path: Path) -> None:
    files, label = [], ["kind"] if kind in ("csv", "parquet", "lists") else []
    for rows in (200, 80_000 if kind in ("csv", "lists") else 200_000):
        x = np.random.default_rng(0).normal(size=(rows, 100 if kind == "lists" else 20))
        files.append(tmp_path / f"{rows}.{kind.replace('lists', 'parquet')}")
        if kind == "lists":  # as encoders write them: float32
            emb = pa.FixedSizeListArray.from_arrays(pa.array(x.astype(np.float32).ravel()), 100)
            pq.write_table(pa.table({"emb": emb, "kind": TEXTS[np.arange(rows) % 3]}), files[-1])
        else:
            write_rows(files[-1], x)
    script = Path(__file__).parent / "peak_of_own_data.py"
    done = subprocess.run([sys.executable, script, *files, *label], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 2.5 * files[1].stat().st_size / 2**20


def test_labels_do_not_touch_the_fingerprint_and_are_numbered_in_order(tmp_path: Path) -> None:
    plain = read(npz(tmp_path / "none.npz"))
    labels = [Y, Y[::-1], Y * 10 - 10, Y.astype(float), TEXTS, TEXTS.astype("S"), Y == 1, Y.astype(np.uint8)]
    for i, y in enumerate(labels):
        data = read(npz(tmp_path / f"{i}.npz", y=y))
        assert data.fingerprint == plain.fingerprint and data.train.y is not None
        assert np.array_equal(data.train.y.numpy(), np.unique(y, return_inverse=True)[1])
        assert data.n_classes == len(np.unique(y))


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


def test_files_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    kinds = ".npz, .npy, .csv, .parquet, .safetensors, .pt or a folder of images"
    assert f"is missing; expected: {kinds}" in complaint(tmp_path / "absent.csv")
    for name in ("rows.xlsx", "rows"):
        (tmp_path / name).write_bytes(b"")
        assert f"unknown extension {Path(name).suffix or '(none)'}; expected: .npz" in complaint(tmp_path / name)
    write_all(tmp_path, X)
    for kind in ("npz", "npy", "parquet", "safetensors", "pt"):
        path = tmp_path / f"rows.{kind}"
        whole = path.read_bytes()
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


def test_a_file_that_changes_is_read_anew(tmp_path: Path) -> None:
    config = Config(method="gcml", dataset="rows", own=own(npz(tmp_path / "rows.npz")))
    before = load_once(config)
    assert load_once(config) is before
    npz(tmp_path / "rows.npz", X[:9])
    assert len(load_once(config).train) == 9


def test_samples_that_are_drawn_keep_their_names(tmp_path: Path) -> None:
    """Of `n_samples`, and of a smoke run; where rows have no names, their numbers in the file."""
    names = [f"site {i}" for i in range(N)]
    for data in (read(npz(tmp_path / "rows.npz", sample=np.asarray(names))), read(npz(tmp_path / "bare.npz"))):
        few = limit(data, 7)
        assert few.samples is not None and len(few.samples) == 7 == len(set(few.samples))
        rows = [int(name.removeprefix("site ")) for name in few.samples]
        assert torch.equal(few.train.x, data.train.x[rows])
