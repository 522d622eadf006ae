"""Arrays and tensors of the user's own: rows or images, labels and names, and what is no data."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

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
    assert "the array x of" in complaint(tmp_path / "rows.npz")
    for kind in ("npy", "pt"):
        (tmp_path / f"rows.{kind}").write_bytes(pickle.dumps(Harm()))
        complaint(tmp_path / f"rows.{kind}")
    torch.save({"x": Harm()}, tmp_path / "rows.pt")
    assert "holds more than tensors, which could be code, and is not loaded" in complaint(tmp_path / "rows.pt")
    assert not (tmp_path / "harm").exists()


OBJECTS = np.asarray(["iris", 3, None] * (N // 3), object)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        (
            {"x": X.astype(object)},
            "the array x of {} holds objects, which could be code, and is not loaded; expected: ",
        ),
        ({"x": X.astype(object)}, "numbers; save them as x=np.asarray(x, float)"),
        ({"x": np.asarray([X[0], X[1, :2]], object)}, "save them as x=np.asarray(x, float)"),
        ({"x": X, "y": OBJECTS}, "save texts as y=np.asarray(y, str), numbers as y=np.asarray(y, int)"),
        ({"x": X, "y": Y, "sample": OBJECTS}, "save them as sample=np.asarray(sample, str)"),
        ({"x": X, "labels": OBJECTS}, "has no y but labels: call labels y"),
        ({"indices": Y, "indptr": Y, "shape": Y, "data": Y}, "a sparse matrix of scipy's; save x=matrix.toarray()"),
        ({"x": X, "y": np.asarray(Y, "M8[D]")}, "holds 30 labels (datetime64[D])"),
    ],
)
def test_an_array_of_objects_that_is_needed_is_named(tmp_path: Path, arrays: dict[str, Any], told: str) -> None:
    path = tmp_path / "rows.npz"
    np.savez(path, allow_pickle=True, **arrays)
    assert told.format(path) in complaint(path)


def test_what_is_not_read_may_hold_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "rows.npz", allow_pickle=True, x=X, y=Y, meta=np.asarray([Harm()], object))
    data = read(tmp_path / "rows.npz")
    assert data.n_classes == 3 and data.source.endswith("; without its arrays meta)")
    assert not (tmp_path / "harm").exists()
    for kind in (X, Y.tolist(), "labels"):
        torch.save({"x": torch.as_tensor(X), "y": kind}, tmp_path / "rows.pt")
        told = complaint(tmp_path / "rows.pt")
        assert "torch.as_tensor(array)" in told or f"holds y as a {type(kind).__name__}; expected: a tensor" in told
    np.save(tmp_path / "rows.npy", OBJECTS, allow_pickle=True)
    assert "holds objects, which could be code, and is not loaded" in complaint(tmp_path / "rows.npy")


def written(path: Path, x: Any, **more: Any) -> Path:
    """The same tensors as .npz, .pt or .safetensors."""
    tensors = {"x": torch.as_tensor(x), **{name: torch.as_tensor(value) for name, value in more.items()}}
    if path.suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in tensors.items()})
    else:
        torch.save(tensors, path) if path.suffix == ".pt" else save_file(tensors, path)
    return path


@pytest.mark.parametrize("kind", ["npz", "pt", "safetensors"])
@pytest.mark.parametrize("shape", [(6, 9, 7), (6, 9, 7, 3), (6, 3, 9, 7)])
def test_floats_of_images_become_the_bytes_they_were(tmp_path: Path, kind: str, shape: tuple[int, ...]) -> None:
    x = RNG.integers(0, 256, shape, dtype=np.uint8)
    wanted = read(npz(tmp_path / "bytes.npz", x)).train.x
    for dtype in (np.float32, np.float64):
        data = read(written(tmp_path / f"rows.{kind}", (x / 255).astype(dtype)))
        assert torch.equal(data.train.x, wanted) and data.scaling is None
        assert "images of 7x9" in data.split and "; their floats 0..1 times 255, rounded" in data.split


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "float32", "float64", "int8", "int16", "int64", "uint8", "bool"]
)
def test_tensors_are_read_as_the_numbers_that_they_hold(tmp_path: Path, kind: str, dtype: str) -> None:
    x = torch.as_tensor(RNG.integers(0, 2, (N, 3)) * 3 - 1).to(getattr(torch, dtype))
    data = read(written(tmp_path / f"rows.{kind}", x, y=torch.as_tensor(Y)), "none")
    assert torch.equal(data.train.x, x.float()) and data.n_classes == 3


def test_tensors_by_other_names_and_other_kinds_are_one_line(tmp_path: Path) -> None:
    pt, safe, x = tmp_path / "rows.pt", tmp_path / "rows.safetensors", torch.as_tensor(X)
    for content, told in (
        ({"a": x, "b": x + 1}, "lacks a tensor x (it has a, b)"),
        ({"x": x, "labels": x[:, 0].clone()}, "has no y but labels: call labels y"),
        ({}, "lacks a tensor x (it has nothing)"),
        ({"x": x.to(torch.complex64)}, "holds x as complex64"),
        ({"x": x[0].clone()}, "holds x of 4 values"),
        ({"x": x.to(torch.float8_e4m3fn)}, "holds x as float8_e4m3fn"),
    ):
        torch.save(content, pt)
        save_file(content, safe)
        assert told in complaint(pt) and told in complaint(safe)
    torch.save([x, x], pt)
    assert "holds a list; expected: tensors x and" in complaint(pt)
    torch.save({"x": x.to_sparse()}, pt)
    assert "(torch.sparse_coo)" in complaint(pt)
    torch.save({"emb": x.T.contiguous().T.requires_grad_(), "epoch": 3}, pt)
    assert read(pt).source.endswith("; without its tensors epoch)") and read(pt).train.x.shape == X.shape


def test_samples_have_the_names_that_an_npz_gives_them(tmp_path: Path) -> None:
    names = [f"photos/{i}.jpg" for i in range(N)]
    for texts in (np.asarray(names), np.asarray(names, "S")):
        data = read(npz(tmp_path / "rows.npz", sample=texts))
        assert data.samples == tuple(names) and "without" not in data.split
    assert read(npz(tmp_path / "rows.npz", sample=Y)).source.endswith("; without its arrays sample)"), "no texts"
    assert read(npz(tmp_path / "rows.npz")).samples is None
    assert "holds 7 names in sample for 30 samples" in complaint(
        npz(tmp_path / "rows.npz", sample=np.asarray(names[:7]))
    )
    names[9] = names[2]
    told = "1 rows repeat a name in sample: row 9 is 'photos/2.jpg', as row 2 is"
    assert told in complaint(npz(tmp_path / "rows.npz", sample=np.asarray(names)))
