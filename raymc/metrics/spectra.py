"""Squared singular values of groups of rows, all at once: ranks and coding rates of clusters are read off them.

The device is read once for all groups. Beyond a block of rows and 128 MB of Gram matrices on a GPU (of the largest one,
where it alone has more) nothing is made.

Shapes: n rows, d features, g groups, s the most values that a group has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raymc.metrics.clustering import Labels, as_labels
from raymc.ops.uploads import uploaded

ROWS = 2**16
"""Rows of one product."""

ENERGY = 0.95
"""Share of the squared singular values' sum that the numerical rank counts."""


@dataclass(frozen=True)
class Spectra:
    """Of groups of rows of width `width`: `names` `[g]`, `sizes` `[g]` and `squares` float64 `[g, s]`, descending.

    `squares` are eigenvalues of Gram matrices in double precision: singular values below 1e-7 of a group's largest
    are rounding. Those that a group does not have are 0.
    """

    names: list[int]
    sizes: NDArray[np.int64]
    squares: NDArray[np.float64]
    width: int

    def ranks(self, energy: float = ENERGY) -> list[int]:
        """Per group the least number of singular values with `energy` of their sum of squares; 0 of zeros."""
        totals = self.squares.sum(1, keepdims=True)
        below = self.squares.cumsum(1) < energy * totals * (1 - 1e-12)
        return [int(count) for count in np.where(totals[:, 0] > 0, below.sum(1) + 1, 0)]

    def rates(self, eps_sq: float) -> NDArray[np.float64]:
        """Per group its coding rate, `[g]`, see `raymc.ops.coding_rate`; the rows are of length 1."""
        scale = self.width / (self.sizes * eps_sq)
        return np.asarray(np.log1p(scale[:, None] * self.squares).sum(1) / 2, dtype=np.float64)

    def singular_values(self) -> dict[int, NDArray[np.float64]]:
        """Of each group by its name, descending, as many as it has rows or the width."""
        values = np.sqrt(self.squares)
        sides = np.minimum(self.sizes, self.width)
        return {name: row[:side] for name, row, side in zip(self.names, values, sides, strict=True)}


@torch.no_grad()
def group_spectra(z: Tensor, *labels: Labels) -> list[Spectra]:
    """The spectra of all rows of z `[n, d]` as one group, named 0, then for each of `labels` `[n]` of its groups.

    Labels are best on the CPU, where they are sorted; z may be on any device. The Gram matrix is of rows or of columns,
    whichever are fewer, and not centred: subspaces contain 0.
    """
    found = [as_labels(one) for one in labels]
    counted = [np.unique(one, return_counts=True) for one in found]
    counted = [(np.zeros(1, np.int64), np.array([len(z)])), *counted]
    sizes = np.concatenate([count for _, count in counted])
    orders = np.concatenate([np.arange(0), *(one.argsort(kind="stable") for one in found)])
    squares = _squares(z, uploaded(torch.as_tensor(orders), z.device), sizes).cpu().numpy()
    parts = np.split(squares, np.cumsum([len(names) for names, _ in counted])[:-1])
    width = z.shape[1]
    return [Spectra(names.tolist(), count, part, width) for (names, count), part in zip(counted, parts, strict=True)]


def _squares(z: Tensor, order: Tensor, sizes: NDArray[np.int64]) -> Tensor:
    """`[g, s]` on the device: of all rows, then of runs of `order` of the other sizes."""
    ends = np.cumsum(sizes[1:])
    rows = [None, *(order[end - size : end] for end, size in zip(ends.tolist(), sizes[1:].tolist(), strict=True))]
    sides = np.minimum(sizes, z.shape[1])
    squares = z.new_zeros(len(sizes), int(sides.max(initial=0)), dtype=torch.float64)
    for some in _batches(sides, z.device):
        side = int(sides[some[0]])
        grams = squares.new_zeros(len(some), side, side)
        for gram, group in zip(grams, some, strict=True):
            _add_gram(gram, z, rows[group], int(sizes[group]))
        values = torch.linalg.eigvalsh(grams).flip(1).clamp_(min=0)
        for group, one in zip(some, values, strict=True):
            squares[group, :side] = one
    return squares


def _batches(sides: NDArray[np.int64], device: torch.device) -> Iterator[list[int]]:
    """Groups whose eigenvalues are had together, the largest matrices first: padded, they fit a cache, or 128 MB."""
    room = 2**15 if device.type == "cpu" else 2**24
    some: list[int] = []
    for group in np.argsort(-sides, kind="stable").tolist():
        if not sides[group]:
            continue
        if some and (len(some) + 1) * sides[some[0]] ** 2 > room:
            yield some
            some = []
        some.append(group)
    if some:
        yield some


def _add_gram(gram: Tensor, z: Tensor, index: Tensor | None, size: int) -> None:
    """Put the smaller Gram matrix of the rows at `index` (None: of all) into the corner of zeros."""
    if size < z.shape[1]:
        rows = (z if index is None else z[index]).double()
        gram[:size, :size] = rows @ rows.mT
        return
    for part in torch.split(z if index is None else index, ROWS):
        rows = (part if index is None else z[part]).double()
        gram.addmm_(rows.mT, rows)
