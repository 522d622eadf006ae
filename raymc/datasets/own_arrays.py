"""The user's own arrays, .npz and .npy of numpy; what is rows of numbers, and what images, in any kind of array."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from raymc.config import OwnData
from raymc.datasets.base import BLOCK
from raymc.datasets.own_cells import is_read
from raymc.datasets.own_found import Array, Found, as_texts, check_names, some, text_labels
from raymc.datasets.own_lines import other_kind
from raymc.errors import InputError

LIKE_LABELS = ("y", "label", "labels", "target", "targets", "class", "classes", "y_train")
ROWS_OR_IMAGES = (
    "rows [n, d] of numbers, or images [n, h, w], [n, h, w, c] or [n, c, h, w], uint8 images or floats in 0..1"
)
SAVED = {
    "x": "expected: numbers; save them as x=np.asarray(x, float)",
    "y": "expected: whole numbers or texts; save texts as y=np.asarray(y, str), numbers as y=np.asarray(y, int)",
    "sample": "expected: texts; save them as sample=np.asarray(sample, str)",
}
"""How an array that holds objects is written without them."""


def read_npz(own: OwnData) -> Found:
    """Arrays `x`, where there are labels `y`, and where the samples have names `sample` `[n]`. Raises InputError.

    Other arrays are not read, whatever they hold.
    """
    expected = "an .npz with samples x and, where there are labels, y"
    with _opened(own.path, expected) as file:
        names: list[str] = [] if isinstance(file, np.ndarray) else list(file.files)
        if "x" not in names:
            raise InputError(f"{own.path} lacks an array x (it has {_instead(names)}); expected: {expected}")
        given, y, sample = (_array_in(file, name, own.path) if name in names else None for name in ("x", "y", "sample"))
    assert given is not None
    x, how = samples_in(given, own.path)
    samples = _names(sample, len(x), own.path)
    used = ("x", "y") if samples is None else ("x", "y", "sample")
    if y is not None and y.dtype.kind in "US" and y.ndim == 1:
        y = text_labels(y.tolist(), "label", own.path)
    return Found(x, y, left_out=how + others_in(names, used, "arrays", own.path), samples=samples)


def read_npy(own: OwnData) -> Found:
    """The array, without labels. Raises InputError."""
    expected = "an .npy of samples x"
    with _opened(own.path, expected) as file:
        if not isinstance(file, np.ndarray):
            raise InputError(f"{own.path} holds several arrays; expected: {expected}")
        x, how = samples_in(file, own.path)
    return Found(x, None, left_out=how)


@contextlib.contextmanager
def _opened(path: str, expected: str) -> Iterator[Any]:
    """The array of an .npy, or the file of an .npz, of which each array is read when it is asked for.

    Raises InputError for what is no such file, or torn.
    """
    kind = other_kind(path)
    if kind and not kind.startswith(("a .zip", "an .npy")):
        raise InputError(f"{path} is {kind}; expected: {expected}")
    try:
        with open(path, "rb") as file:
            yield np.load(file, allow_pickle=False)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); expected: {expected}") from error
    except Exception as error:  # zipfile, zlib and numpy each have their own errors for a torn file
        if "allow_pickle" in str(error):
            raise InputError(f"{path} holds objects, which could be code, and is not loaded; {SAVED['x']}") from error
        raise InputError(f"{path} is torn or holds no plain arrays ({error}); expected: {expected}") from error


def _array_in(file: Any, name: str, path: str) -> Array:
    """An array of an .npz. Raises InputError where it holds objects, with how to save it."""
    try:
        array: Array = file[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        why = f"the array {name} of {path} holds objects, which could be code, and is not loaded"
        raise InputError(f"{why}; {SAVED[name]}") from error
    return array


def _instead(names: Sequence[str]) -> str:
    if {"indices", "indptr", "shape"} <= set(names):
        return "a sparse matrix of scipy's; save x=matrix.toarray()"
    return some(names) or "nothing"


def _names(sample: Array | None, n: int, path: str) -> Sequence[str] | None:
    """The samples' names, where the array of that name is texts. Raises InputError."""
    if sample is None or sample.dtype.kind not in "US":
        return None
    if sample.shape != (n,):
        raise InputError(f"{path} holds {'x'.join(map(str, sample.shape))} names in sample for {n} samples")
    names = as_texts(sample.tolist())
    check_names(names, "sample", path)
    return names


def others_in(names: Sequence[str], used: Sequence[str], what: str, path: str) -> str:
    """Words for what was not read. Raises InputError where that is labels by another name."""
    others = [name for name in names if name not in used]
    likely = [name for name in others if name.lower() in LIKE_LABELS]
    if likely and "y" not in names:
        raise InputError(f"{path} has no y but {likely[0]}: call labels y; to go without them leave them out")
    return f"; without its {what} {some(others)}" if others else ""


def samples_in(x: Array, path: str) -> tuple[Array, str]:
    """Rows `[n, d]` of numbers or images uint8 `[n, c, h, w]`, and words for what was done. Raises InputError."""
    if 0 not in x.shape and x.ndim == 2 and x.dtype.kind in "biuf":
        return x, ""
    images = x.ndim in (3, 4) and (x.dtype == np.uint8 or x.dtype.kind == "f")
    if 0 in x.shape or not images:
        shape = "x".join(map(str, x.shape)) or "no"
        raise InputError(f"{path} holds x of {shape} values ({x.dtype}{_text_in(x)}); expected: {ROWS_OR_IMAGES}")
    if x.dtype == np.uint8:
        return as_images(x, path), ""
    return as_images(_in_bytes(x, path), path), "; their floats 0..1 times 255, rounded"


def _text_in(x: Array) -> str:
    """Which of the texts `[n, d]` is the first that is no number, or that all are."""
    if x.ndim != 2 or x.dtype.kind not in "US":
        return ""
    texts = as_texts(x.ravel().tolist())
    wrong = next((at for at, text in enumerate(texts) if not is_read(text.strip())), None)
    if wrong is None:
        return ": numbers as texts; save x.astype(float)"
    row, column = divmod(wrong, x.shape[1])
    return f": texts, and row {row}, column {column} (counted from 0) holds {texts[wrong]!r}"


def as_images(x: Array, path: str) -> Array:
    """`[n, c, h, w]` of `[n, h, w]`, `[n, h, w, c]` or `[n, c, h, w]`, c of 1 or 3; the last axis goes first.

    Raises InputError where no axis can be that of the colours.
    """
    if x.ndim == 3:
        return x[:, None]
    if x.shape[3] in (1, 3):
        return x.transpose(0, 3, 1, 2)
    if x.shape[1] not in (1, 3):
        shape = "x".join(map(str, x.shape))
        raise InputError(f"{path} holds images of {shape}; expected: 1 or 3 colours in the second or the last axis")
    return x


def _in_bytes(x: Array, path: str) -> Array:
    """uint8 of floats in 0..1, which are multiplied by 255. Raises InputError for others."""
    pixels = np.empty(x.shape, np.uint8)
    for rows in _blocks(x):
        block = x[rows].astype(np.float64)
        wrong = ~((block >= 0) & (block <= 1))
        if wrong.any():
            row, value = rows.start + int(np.argwhere(wrong)[0][0]), block[wrong][0]
            shape = "x".join(map(str, x.shape))
            reason = f"{shape} floats, and {value:g} in sample {row} (counted from 0)"
            raise InputError(f"{path} holds images of {reason}; expected: floats in 0..1, or uint8; rows are [n, d]")
        pixels[rows] = np.rint(block * 255)
    return pixels


def _blocks(x: Array) -> Iterator[slice]:
    """Slices of the samples, of about `BLOCK` numbers each."""
    step = max(1, BLOCK // x[0].size)
    return (slice(start, start + step) for start in range(0, len(x), step))
