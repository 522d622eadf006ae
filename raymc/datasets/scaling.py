"""How the columns of vectors are scaled: by figures of the training rows, the same for every row that comes later."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raymc.datasets.base import BLOCK, Dataset, Scaling, Split, as_rounded, fingerprint, row_blocks
from raymc.errors import InputError

WORDS = {
    "standardise": "columns standardised to mean 0 and deviation 1",
    "minmax": "columns scaled to 0..1",
    "unit": "rows centred by their mean, then scaled to length 1",
    "none": "columns as they are",
}
COARSE = 1e-4  # of a column's deviation
TINY = 1e-140  # whose square has few digits as a float64


def fit(x: NDArray[Any], how: str) -> Scaling:
    """The scaling of `x` `[n, d]`, finite numbers; a column that is constant becomes 0, unless it is not scaled.

    `standardise`: by mean and population deviation; `minmax`: by the smallest and the largest value; `unit`: by the
    mean, and each row by its length; `none`.
    The figures are numpy's sums over the rows in their order: the same on every machine, with any number of threads.
    They are taken block by block, so that no copy of `x` is made.
    """
    _, deviation = column_figures(x)
    error = [np.abs(block.astype(np.float32) - block.astype(np.float64)).max(0) for block in row_blocks(x)]
    exact = np.max(error, 0) > COARSE * deviation

    def rounded(block: NDArray[Any], columns: slice) -> NDArray[np.float64]:
        return as_rounded(block, exact[columns])

    low = np.min([as_rounded(block, exact).min(0) for block in row_blocks(x)], 0)
    high = np.max([as_rounded(block, exact).max(0) for block in row_blocks(x)], 0)
    if how == "none":
        return Scaling(how, np.zeros_like(low), np.ones_like(low), exact)
    shift, width = (low, high - low) if how == "minmax" else _moments(x, rounded)
    if how == "unit":
        return Scaling(how, np.where(low == high, low, shift), np.ones_like(low), exact)
    constant = (low == high) | (width == 0)
    return Scaling(how, np.where(constant, low, shift), np.where(constant, 1.0, width), exact)


def column_figures(x: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and population deviation `[d]` of the columns of `x` `[n, d]`, the same with any number of threads."""
    return _moments(x, lambda block, _: block.astype(np.float64))


Read = Callable[[NDArray[Any], slice], NDArray[np.float64]]
"""A block of the numbers of some columns as they count."""


def _moments(x: NDArray[Any], read: Read) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and population deviation of the columns of `x` `[n, d]`: `mean(0)` and `std(0)` to the last bit."""
    mean = _sums(x, read) / len(x)
    squares = _sums(x, lambda block, columns: (read(block, columns) - mean[columns]) ** 2)
    deviation = np.sqrt(squares / len(x))
    for at in np.flatnonzero(deviation < TINY):
        deviation[at] = _small_deviation(read(x[:, at : at + 1], slice(at, at + 1)) - mean[at])
    return mean, deviation


def _small_deviation(centred: NDArray[np.float64]) -> float:
    """The deviation of numbers whose squares are too small for a float64."""
    largest = float(np.abs(centred).max())
    return largest * float(np.sqrt(np.mean((centred / largest) ** 2))) if largest else 0.0


def _sums(x: NDArray[Any], read: Read) -> NDArray[np.float64]:
    """`sum(0)` of `x`, in numpy's order: column by column where these are contiguous, else row after row."""
    if x.flags.f_contiguous:
        step = max(1, BLOCK // len(x))
        parts = (slice(start, start + step) for start in range(0, x.shape[1], step))
        return np.concatenate([read(x[:, columns], columns).sum(0) for columns in parts])
    total: NDArray[np.float64] = np.empty((0, x.shape[1]))
    for block in row_blocks(x):
        total = np.concatenate([total, read(block, slice(None))]).sum(0, keepdims=True)
    return total.reshape(-1)


def scaled(dataset: Dataset, how: str | None) -> Dataset:
    """A known dataset, scaled by its training rows; None or `none`: as it is stored.

    Raises InputError for images, whose pixels only the augmentation scales.
    """
    if how in (None, "none"):
        return dataset
    assert how is not None
    check_vectors(dataset.name, dataset.train.x, how)
    scaling = fit(dataset.train.x.numpy(), how)
    train = Split(scaling(dataset.train.x.numpy()), dataset.train.y)
    return dataclasses.replace(
        dataset,
        train=train,
        test=None if dataset.test is None else Split(scaling(dataset.test.x.numpy()), dataset.test.y),
        split=f"{dataset.split}; {WORDS[how]}",
        fingerprint=fingerprint(train.x) if dataset.stream is None else _renamed(dataset.fingerprint, how),
        stream=None if dataset.stream is None else _scaled_stream(dataset.stream, scaling),
        scaling=scaling,
    )


def check_vectors(name: str, x: Tensor, how: str) -> None:
    """Raises InputError where the samples `x` are images."""
    if x.dtype == torch.uint8:
        raise InputError(f"scaling: {how} is for vectors, and {name} holds images; leave it null")


def _scaled_stream(
    stream: Callable[[torch.Generator, int], Tensor], scaling: Scaling
) -> Callable[[torch.Generator, int], Tensor]:
    return lambda generator, n: scaling(stream(generator, n).numpy())


def _renamed(print_: str, how: str) -> str:
    # Of a stream the parameters are hashed, not the numbers: see `raymc.datasets.synthetic`.
    return hashlib.sha256(f"{print_} {how}".encode()).hexdigest()
