"""Unpickles arrays, numbers and texts, and nothing that a downloaded file could run.

CIFAR's published batches and the deep-clustering papers' Reuters are pickles. A pickle names functions and calls them,
so the few that arrays need are ours. numpy's own would not do: `ndarray(shape, object, buffer)` makes pointers of a
file's bytes, and so does an array whose `dtype` is told, by its state, that it holds no objects.
"""

from __future__ import annotations

import pickle
import re
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

PLAIN = re.compile(r"[biufSU]\d{1,4}|O8")
"""The types of arrays: booleans, numbers, texts; and objects, which are unpickled by the same rules."""


def unpickle(file: BinaryIO) -> Any:
    """The content of a pickle, old or new. Raises UnpicklingError, or nearly anything where the file is torn."""
    return _Unpickler(file, encoding="latin1").load()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module.split(".")[0] == "numpy" or module == "_codecs") and name in KNOWN:
            return KNOWN[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}")


class _Dtype:
    """Stands for a dtype until its byte order is known; its state may say nothing else."""

    def __init__(self, name: str, *_: object) -> None:
        if not PLAIN.fullmatch(name):
            raise pickle.UnpicklingError(f"it holds values of type {name}")
        self.real = np.dtype("O" if name == "O8" else name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[2:5] != (None, None, None):
            raise pickle.UnpicklingError("it holds values made of several")
        self.real = self.real.newbyteorder(state[1])


class _Array(np.ndarray[Any, Any]):
    def __setstate__(self, state: tuple[Any, ...]) -> None:
        *version, shape, kind, fortran, content = state
        # Of objects numpy takes a list alone, never bytes: this dtype knows that it holds some.
        super().__setstate__((*version, shape, _real(kind), fortran, content))


def _array(kind: object, shape: object, code: object) -> _Array:
    return np.ndarray.__new__(_Array, (0,), np.int8)


def _array_of_buffer(content: bytes, kind: object, shape: tuple[int, ...], order: Any = "C") -> NDArray[Any]:
    return np.frombuffer(content, _real(kind)).reshape(shape, order=order)


def _scalar(kind: object, content: object) -> Any:
    held = content.encode("latin1") if isinstance(content, str) else content
    if not isinstance(held, bytes):
        raise pickle.UnpicklingError("it holds a number that is none")
    return np.frombuffer(held, _real(kind))[0]


def _encoded(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes for Python 2."""
    return text.encode("latin1")


def _real(kind: object) -> np.dtype[Any]:
    if not isinstance(kind, _Dtype):
        raise pickle.UnpicklingError("it holds an array without a type")
    return kind.real


KNOWN = {
    "dtype": _Dtype,
    "ndarray": "ndarray",  # named beside `_reconstruct`, never called
    "_reconstruct": _array,
    "_frombuffer": _array_of_buffer,
    "scalar": _scalar,
    "encode": _encoded,
}
