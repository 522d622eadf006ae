"""How the columns of vectors are scaled: by figures of the training rows, the same for every row that comes later."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raymc.datasets.base import Dataset, Split, fingerprint
from raymc.errors import InputError

WORDS = {
    "standardise": "columns standardised to mean 0 and deviation 1",
    "minmax": "columns scaled to 0..1",
    "none": "columns as they are",
}
COARSE = 1e-4  # of a column's deviation


@dataclass(frozen=True)
class Scaling:
    """`(x - shift) / width` of every column; both are float64 `[d]`.

    Numbers are first rounded to float32, so that a .csv and an .npz of the same numbers give the same samples, but for
    the columns of `exact` `[d]`, which float32 cannot resolve (times in seconds, say).
    """

    how: str
    shift: NDArray[np.float64]
    width: NDArray[np.float64]
    exact: NDArray[np.bool_]

    def __call__(self, x: NDArray[Any]) -> Tensor:
        """Rows `[n, d]`, float32."""
        return torch.from_numpy(((_rounded(x, self.exact) - self.shift) / self.width).astype(np.float32))


def fit(x: NDArray[Any], how: str) -> Scaling:
    """The scaling of `x` `[n, d]`, finite numbers; a column that is constant becomes 0, unless it is not scaled.

    `standardise`: by mean and population deviation; `minmax`: by the smallest and the largest value; `none`.
    The figures are numpy's sums over the rows in their order: the same on every machine, with any number of threads.
    """
    exact = np.abs(x.astype(np.float32) - x.astype(np.float64)).max(0) > COARSE * x.std(0, dtype=np.float64)
    x = _rounded(x, exact)
    low, high = x.min(0), x.max(0)
    if how == "none":
        return Scaling(how, np.zeros_like(low), np.ones_like(low), exact)
    shift, width = (low, high - low) if how == "minmax" else (x.mean(0), x.std(0))
    constant = (low == high) | (width == 0)  # the latter where the squares of the deviations are too small
    return Scaling(how, np.where(constant, low, shift), np.where(constant, 1.0, width), exact)


def _rounded(x: NDArray[Any], exact: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.where(exact, x, x.astype(np.float32)).astype(np.float64)


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
