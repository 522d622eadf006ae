"""The user's own arrays: .npz and .npy of numpy, .safetensors and .pt of torch; rows of numbers, or images."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raymc.config import OwnData
from raymc.datasets.base import BLOCK
from raymc.datasets.own_cells import is_read
from raymc.datasets.own_found import Array, Found, as_texts, check_names, some, text_labels
from raymc.errors import InputError

LIKE_LABELS = ("y", "label", "labels", "target", "targets", "class", "classes", "y_train")
ROWS_OR_IMAGES = (
    "rows [n, d] of numbers, or images [n, h, w], [n, h, w, c] or [n, c, h, w], uint8 images or floats in 0..1"
)
TENSORS = "tensors x and, where there are labels, y, or a single tensor x"
NUMPY_KNOWS = {getattr(torch, name) for name in "bool uint8 int8 int16 int32 int64 float16 float32 float64".split()}


def read_npz(own: OwnData) -> Found:
    """Arrays `x`, where there are labels `y`, and where the samples have names `sample` `[n]`. Raises InputError."""
    expected = "an .npz with samples x and, where there are labels, y"
    arrays = _loaded(own.path, expected)
    if not isinstance(arrays, dict) or "x" not in arrays:
        names = f" (it has {', '.join(arrays) or 'nothing'})" if isinstance(arrays, dict) else ""
        raise InputError(f"{own.path} lacks an array x{names}; expected: {expected}")
    x, how = samples_in(arrays["x"], own.path)
    y, samples = arrays.get("y"), _names(arrays.get("sample"), len(x), own.path)
    used = ("x", "y") if samples is None else ("x", "y", "sample")
    if y is not None and y.dtype.kind in "US" and y.ndim == 1:
        y = text_labels(y.tolist(), "label", own.path)
    others = _others(list(arrays), used, "arrays", own.path)
    return Found(x, y, left_out=how + others, samples=samples)


def read_npy(own: OwnData) -> Found:
    """The array, without labels. Raises InputError."""
    x = _loaded(own.path, "an .npy of samples x")
    if not isinstance(x, np.ndarray):
        raise InputError(f"{own.path} holds several arrays; expected: an .npy of samples x")
    x, how = samples_in(x, own.path)
    return Found(x, None, left_out=how)


def _loaded(path: str, expected: str) -> Any:
    try:
        with open(path, "rb") as file:
            found = np.load(file, allow_pickle=False)
            return found if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); expected: {expected}") from error
    except Exception as error:  # zipfile, zlib and numpy each have their own errors for a torn file
        reason = "objects, which could be code" if "allow_pickle" in str(error) else str(error)
        raise InputError(f"{path} is torn or holds no plain arrays ({reason}); expected: {expected}") from error


def _names(sample: Array | None, n: int, path: str) -> Sequence[str] | None:
    """The samples' names, where the array of that name is texts. Raises InputError."""
    if sample is None or sample.dtype.kind not in "US":
        return None
    if sample.shape != (n,):
        raise InputError(f"{path} holds {'x'.join(map(str, sample.shape))} names in sample for {n} samples")
    names = as_texts(sample.tolist())
    check_names(names, "sample", path)
    return names


def read_safetensors(own: OwnData) -> Found:
    """Tensors `x` and `y`; a lone one is `x`. Raises InputError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(own.path, framework="pt") as file:
            names = list(file.keys())
            # A copy: else they change with the file.
            wanted = {name: file.get_tensor(name).clone() for name in _wanted(names, own.path)}
    except OSError as error:
        raise InputError(f"{own.path} cannot be read ({error.strerror or error}); expected: {TENSORS}") from error
    except SafetensorError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{own.path} is torn or no .safetensors ({reason}); expected: {TENSORS}") from error
    return _of_tensors(wanted, names, own.path)


def read_pt(own: OwnData) -> Found:
    """As `read_safetensors`, of what `torch.save` wrote: a tensor, or a dict of tensors; nothing else is unpickled."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong is said below, and nothing else
            found = torch.load(own.path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{own.path} cannot be read ({error.strerror or error}); expected: {TENSORS}") from error
    except Exception as error:  # torch, pickle and zipfile each have their own errors for a torn file
        code = isinstance(error, pickle.UnpicklingError) and "global" in str(error).lower()
        reason = "holds more than tensors, which could be code, and is not loaded" if code else "is torn or no .pt"
        raise InputError(f"{own.path} {reason}; expected: {TENSORS}, as torch.save writes them") from error
    tensors = {"x": found} if isinstance(found, Tensor) else found
    if not isinstance(tensors, Mapping):
        raise InputError(f"{own.path} holds a {type(found).__name__}; expected: {TENSORS}")
    names = [str(name) for name, value in tensors.items() if isinstance(value, Tensor)]
    return _of_tensors({name: tensors[name] for name in _wanted(names, own.path)}, list(map(str, tensors)), own.path)


def _wanted(names: Sequence[str], path: str) -> Sequence[str]:
    """The names of the samples and, where there are some, of the labels. Raises InputError."""
    if "x" in names:
        return ("x", "y") if "y" in names else ("x",)
    if len(names) != 1:
        raise InputError(f"{path} lacks a tensor x (it has {some(names) or 'nothing'}); expected: {TENSORS}")
    return names


def _of_tensors(tensors: Mapping[str, Tensor], names: Sequence[str], path: str) -> Found:
    arrays = [array_of(tensor, name, path) for name, tensor in tensors.items()]
    x, how = samples_in(arrays[0], path)
    others = _others(names, list(tensors), "tensors", path)
    return Found(x, arrays[1] if len(arrays) > 1 else None, left_out=how + others)


def array_of(tensor: Tensor, name: str, path: str) -> Array:
    """The numbers of a tensor, on the CPU and without a copy where that can be. Raises InputError."""
    plain = tensor.detach().cpu()
    if plain.dtype == torch.bfloat16:
        plain = plain.float()  # numpy has no such type
    if plain.layout != torch.strided or plain.dtype not in NUMPY_KNOWS:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise InputError(f"{path} holds {name} as {kind} ({tensor.layout}); expected: plain floats or whole numbers")
    return plain.numpy()


def _others(names: Sequence[str], used: Sequence[str], what: str, path: str) -> str:
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
