"""Reading files so that whatever is wrong with one is one line that names it and says what is expected."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from raymc.datasets.unpickling import unpickle
from raymc.errors import InputError

Bytes = NDArray[np.uint8]


def read(path: Path, expected: str) -> bytes:
    """The whole file; raises InputError where it is missing or unreadable, with the words of what is expected."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} is missing; expected: {expected}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); expected: {expected}") from error


def read_image(path: Path, expected: str, convert: Callable[[Image.Image], Bytes | None]) -> Bytes:
    """`convert(image)` of an image file; raises InputError where it is missing, torn, or `convert` returns None."""
    try:
        with Image.open(path) as image:
            image.load()
            pixels = convert(image)
            size, mode = image.size, image.mode
    except FileNotFoundError:
        raise InputError(f"{path} is missing; expected: {expected}") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} is torn or no image ({error}); expected: {expected}") from error
    if pixels is None:
        raise InputError(f"{path} is {size[0]}x{size[1]} {mode}; expected: {expected}")
    return pixels


def read_images(paths: Sequence[Path], expected: str, convert: Callable[[Image.Image], Bytes | None]) -> list[Bytes]:
    """`read_image` of many files in order, a few at a time: Pillow decodes outside the interpreter's lock."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        jobs = [pool.submit(read_image, path, expected, convert) for path in paths]
        try:
            return [job.result() for job in jobs]
        finally:
            for job in jobs:
                job.cancel()


def read_npz(path: Path, keys: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The named arrays of an .npz file; raises InputError where it is missing, torn or lacks one of them."""
    expected = f"an .npz with {', '.join(keys)}"
    content = io.BytesIO(read(path, expected))
    try:
        with np.load(content, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in keys}
    except KeyError as error:
        raise InputError(f"{path} lacks an array ({error.args[0]}); expected: {expected}") from None
    except Exception as error:  # zipfile, zlib and numpy each have their own errors for a torn archive
        raise InputError(f"{path} is torn ({error}); expected: {expected}") from error


def read_pickled(path: Path, expected: str) -> Any:
    """What a pickle, or an .npy file that holds one, is made of; arrays, numbers and texts only.

    Raises InputError where the file is missing or torn, or names anything that could run.
    """
    content = io.BytesIO(read(path, expected))
    try:
        if content.read(6) == b"\x93NUMPY":
            content.seek(0)
            if np.lib.format.read_magic(content) == (1, 0):
                np.lib.format.read_array_header_1_0(content)
            else:
                np.lib.format.read_array_header_2_0(content)
        else:
            content.seek(0)
        return unpickle(content)
    except Exception as error:  # a torn pickle can raise nearly anything
        raise InputError(f"{path} is torn or no such pickle ({error}); expected: {expected}") from error


def as_labels(values: Any, n: int, classes: int, path: Path) -> Tensor:
    """Labels int64 `[n]` in 0..classes-1; raises InputError naming `path` where they are not."""
    labels = np.asarray(values)
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise InputError(f"{path} holds labels of shape {labels.shape} ({labels.dtype}); expected: {n} whole numbers")
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(f"{path} holds labels {labels.min()} to {labels.max()}; expected: 0 to {classes - 1}")
    return torch.from_numpy(labels.astype(np.int64))


def digest(path: Path, known: str) -> str:
    """The file's checksum in the form of `known`, `sha256:…` or `md5:…`."""
    kind = known.partition(":")[0]
    with path.open("rb") as file:
        return f"{kind}:{hashlib.file_digest(file, kind).hexdigest()}"
