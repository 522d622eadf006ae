"""Arrays and tensors of the user's own: rows or images, labels and names, and what is no data."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.own_data import RNG, N, X, Y, bad, complaint, npz, read


def test_an_npz_with_labels_of_another_name_is_not_read_without_them(tmp_path: Path) -> None:
    for name in ("Y", "labels"):
        told = f"has no y but {name}: call labels y; to go without them leave them out"
        assert told in complaint(npz(tmp_path / "rows.npz", **{name: Y}))
    data = read(npz(tmp_path / "rows.npz", y=Y, ids=Y, labels=Y))
    assert data.n_classes == 3 and data.source.endswith("; without its arrays ids, labels)")


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


@pytest.mark.parametrize(
    ("x", "y", "told"),
    [
        (bad(X, 28, 2, np.nan), None, "holds 2 values that are missing, NaN, infinite or beyond float32; the first is"),
        (bad(X, 28, 2, np.nan), None, "row 28, column 2 (counted from 0)"),
        (bad(X, 29, 0, -np.inf), None, "holds 1 values"),
        (bad(X, 29, 1, 1e39), None, "row 29, column 1"),
        (X[0], None, "x of 4 values (float64); expected: rows [n, d] of numbers, or images"),
        (np.float64(3), None, "x of no values"),
        (X[:0], None, "x of 0x4 values"),
        (X[:, :0], None, "x of 30x0 values"),
        (X[:1], None, "holds 1 samples; at least 2 are needed"),
        (X.reshape(N, 2, 2), None, f"images of 30x2x2 floats, and {X[0, 1]:g} in sample 0 (counted from 0); expected"),
        (bad(X * 0, 28, 2, np.nan).reshape(N, 2, 2), None, "and nan in sample 28"),
        (np.full((4, 5, 5), 256), None, "x of 4x5x5 values (int64); expected: rows"),
        (np.zeros((4, 5, 5, 2)), None, "images of 4x5x5x2; expected: 1 or 3 colours"),
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
