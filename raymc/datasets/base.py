"""What a dataset is: samples, labels where there are any, and words that say which split they are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 1 << 17  # numbers that are read at a time, where a copy of all would be as large as the file


@dataclass(frozen=True)
class Split:
    """Samples and their labels.

    Attributes:
        x: images uint8 `[n, c, h, w]` (c = 1 grey, 3 colour), or vectors float32 `[n, d]`.
        y: labels int64 `[n]`, None where there are none.
    """

    x: Tensor
    y: Tensor | None

    def __post_init__(self) -> None:
        dtype, dims = (torch.uint8, 4) if self.x.dtype == torch.uint8 else (torch.float32, 2)
        if self.x.dtype != dtype or self.x.ndim != dims:
            raise ValueError(f"samples {tuple(self.x.shape)} of {self.x.dtype} are neither images nor vectors")
        if self.y is not None and (self.y.dtype != torch.int64 or self.y.shape != self.x.shape[:1]):
            raise ValueError(f"{tuple(self.y.shape)} labels of {self.y.dtype} for {len(self.x)} samples")

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, index: Tensor) -> Split:
        """The samples at these positions, int64 `[m]`."""
        return Split(self.x[index], None if self.y is None else self.y[index])


@dataclass(frozen=True)
class Scaling:
    """`(x - shift) / width` of every column, both float64 `[d]`; where `how` is `unit`, each row then has length 1.

    A row that equals `shift` has no direction: it becomes, and stays, zero.

    Numbers are first rounded to float32, so that a .csv and an .npz of the same numbers give the same samples, but for
    the columns of `exact` `[d]`, which float32 cannot resolve (times in seconds, say).
    """

    how: str
    shift: NDArray[np.float64]
    width: NDArray[np.float64]
    exact: NDArray[np.bool_]

    def __call__(self, x: NDArray[Any], out: NDArray[np.float32] | None = None) -> Tensor:
        """Rows `[n, d]`, float32; in `out`, which may be `x` itself, where it is given."""
        scaled = np.empty(x.shape, np.float32) if out is None else out
        for block, place in zip(row_blocks(x), row_blocks(scaled), strict=True):
            rows = (as_rounded(block, self.exact) - self.shift) / self.width
            place[:] = of_length_one(rows) if self.how == "unit" else rows
        return torch.from_numpy(scaled)


def of_length_one(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rows `[n, d]` scaled to Euclidean length 1; rows of zeros stay."""
    largest = np.abs(x).max(1, keepdims=True)
    near_one: NDArray[np.float64] = x / np.where(largest == 0, 1, largest)  # whose squares are numbers
    length = np.linalg.norm(near_one, axis=1, keepdims=True)
    return near_one / np.where(length == 0, 1, length)


def as_rounded(x: NDArray[Any], exact: NDArray[np.bool_]) -> NDArray[np.float64]:
    """`x` `[n, d]` rounded to float32 but for the columns `exact`."""
    return np.where(exact, x, x.astype(np.float32)).astype(np.float64)


def row_blocks(x: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Views of the rows of `x` `[n, d]`, in order, of about `BLOCK` numbers each."""
    step = max(1, BLOCK // x.shape[1])
    return (x[start : start + step] for start in range(0, len(x), step))


@dataclass(frozen=True)
class Dataset:
    """A dataset as training and evaluation see it.

    Attributes:
        name: one of `raymc.datasets.NAMES`, or what the user calls data of their own.
        train: what is trained on and scored; of a stream, a fixed evaluation set.
        test: the held-out split, None where the papers use every sample for training.
        n_classes: classes of the labels, None without labels.
        split: in words, which samples `train` holds.
        fingerprint: sha256 of the samples that are trained on, without labels and name.
        stream: `(generator, n) -> [n, d]` fresh samples, where the data are made while training; else None.
        epoch_size: samples of one epoch: `len(train)`, or what a stream counts as one.
        source: where the data come from, in words.
        scaling: how vectors were scaled, and new ones must be; None: not at all.
        samples: what each row of `train` is called: a file's path below the data's folder, with "/", or the text of an
            id column; None: the number of the row is its name.
        test_samples: the same of `test`.
        stored: the keys by which the stage store has the samples, where an encoder made them.
        classes: what the user calls the labels 0, 1, … of `train`; None: they are numbers, or there are none.
        columns: the names of the columns of vectors that a table gave; None: they have none.
        remarks: what is odd about the user's own data, in words, see `raymc.datasets.remarks`.
        encoder: what made the vectors of images or texts, see `raymc.training.features.data`; None: nothing did.
    """

    name: str
    train: Split
    test: Split | None
    n_classes: int | None
    split: str
    fingerprint: str
    stream: Callable[[torch.Generator, int], Tensor] | None
    epoch_size: int
    source: str
    scaling: Scaling | None = None
    samples: tuple[str, ...] | None = None
    test_samples: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    encoder: Mapping[str, Any] | None = None
    stored: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def stored(name: str, train: Split, test: Split | None, *, n_classes: int, split: str, source: str) -> Dataset:
    """The record of a dataset whose samples are all there; `n_classes` is the number of labels."""
    print_ = fingerprint(train.x)
    return Dataset(name, train, test, n_classes, split, print_, None, len(train), source)


def fingerprint(x: Tensor) -> str:
    """sha256 over dtype, shape and bytes of `x`: the same for the same samples, whatever they are called."""
    digest = hashlib.sha256(f"{x.dtype} {tuple(x.shape)} ".encode())
    digest.update(x.contiguous().cpu().numpy().data)
    return digest.hexdigest()


def data_facts(dataset: Dataset) -> dict[str, Any]:
    """What a study's manifest says of its data."""
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "labels": None if dataset.train.y is None else fingerprint(dataset.train.y),
        "n": len(dataset.train),
        "shape": list(dataset.train.x.shape[1:]),
        "test_n": 0 if dataset.test is None else len(dataset.test),
        "held_out": None if dataset.test is None else _held_out(dataset.test),
        "n_classes": dataset.n_classes,
        "split": dataset.split,
        "source": dataset.source,
        **({"stored": list(dataset.stored)} if dataset.stored else {}),
        **({"remarks": list(dataset.remarks)} if dataset.remarks else {}),
    }


def _held_out(test: Split) -> str:
    """sha256 of its samples and labels, which are scored together."""
    parts = (test.x,) if test.y is None else (test.x, test.y)
    return hashlib.sha256(" ".join(map(fingerprint, parts)).encode()).hexdigest()


def data_root(args_data: str | None = None) -> Path:
    """The folder of the datasets: `--data`, else RAYMC_DATA, else `raymc` in the user's cache folder."""
    given = args_data or os.environ.get("RAYMC_DATA")
    if given:
        return Path(given).expanduser().resolve()
    from platformdirs import user_cache_path  # not needed where a folder is given

    return user_cache_path("raymc").resolve()
