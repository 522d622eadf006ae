"""How much of the data's geometry an embedding keeps: the six scores of GCML (Table 3; definitions in DCRL's A.4).

Shapes: n points, d features of the input x, m of the embedding z, b points of a block, k neighbours, C clusters. No
`[n, n]` array is made: blocks of distances in both spaces give the neighbours, their ranks and the sum of d-RMSE.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from raymc.errors import InputError
from raymc.metrics.clustering import Labels, as_labels
from raymc.ops import cluster_means

TIE_BITS = 22
"""Last bits of a squared distance that say nothing: such as agree to 9 digits are ties, whatever the rounding."""

DUPLICATE = 1e-12
"""Of a point's squared distance from the mean, the squared distance within which others are its duplicates."""


FEWEST, MOST = 3, 7  # neighbours, as the published evaluation has them; the paper gives no numbers


def geometry_scores(x: Tensor, z: Tensor, labels: Labels, k1: int = FEWEST, k2: int = MOST) -> dict[str, float]:
    """`rre`, `trustworthiness`, `continuity`, `d_rmse`, `lgd` and `cra` of an embedding, Euclidean distances.

    The first three and `lgd` are means over k = k1..k2 nearest neighbours, a point not being its own. Of others at
    the same distance the one with the lower index is nearer. Where the published evaluation differs from the paper:

    - `rre`: half of the sum of both directions' rank changes, as the published code has it and the printed figures
      must; its normaliser is n sum_{l=1..k} |n - 2l|/l. 0 is best.
    - `trustworthiness`, `continuity`: Venna and Kaski's, as in the paper and in scikit-learn. 1 is best.
    - `d_rmse`: sqrt(sum over all i, j of (d_x - d_z)^2 / n^2), in units of x, which has to be on z's scale.
    - `lgd`: as the code, sqrt(sum (d_x/sqrt(d) - d_z/sqrt(m))^2 / (k n)) over the k nearest in x, each distance
      divided by the root of its space's width; the paper's sum has no such widths and other constants.
    - `cra`: share of the C x C ranks of the clusters' means that agree in both spaces, ranked in each row, where a
      centre's own rank always agrees: at least 1/C. Empty clusters have no centre.

    Args:
        x: input `[n, d]`.
        z: embedding `[n, m]`.
        labels: predicted cluster of each point, `[n]`.
        k1: fewest neighbours, at least 1.
        k2: most neighbours, fewer than n/2, or the scores' normalisers would not hold.

    Raises:
        InputError: x, z and labels differ in length, k1 and k2 do not fit, or a value is not finite.
    """
    found = torch.as_tensor(np.unique(as_labels(labels), return_inverse=True)[1])
    if not len(x) == len(z) == len(found):
        raise InputError(f"{len(x)} samples, {len(z)} embeddings and {len(found)} labels do not belong together")
    n = len(x)
    if not 1 <= k1 <= k2 < n / 2:
        raise InputError(f"{k1} to {k2} neighbours of {n} points: there must be more than twice as many points")
    space_x, space_z, found = _Space.of(x, "x"), _Space.of(z.to(x.device), "z"), found.to(x.device)
    tables = _tables(space_x, space_z, k2)
    # Equal places in the sorted rows are equal ranks.
    agree = space_x.centre_order(found) == space_z.centre_order(found)
    counts = range(k1, k2 + 1)
    return {
        "rre": _mean((_rank_change(tables.rank_z, k) + _rank_change(tables.rank_x, k)) / 2 for k in counts),
        "trustworthiness": _mean(_preserved_share(tables.rank_x, k) for k in counts),
        "continuity": _mean(_preserved_share(tables.rank_z, k) for k in counts),
        "d_rmse": (tables.squares / n**2) ** 0.5,
        "lgd": _mean(float(tables.gaps[:, :k].square().mean()) ** 0.5 for k in counts),
        "cra": float(agree.double().mean()),
    }


def centre_order(x: Tensor, labels: Tensor) -> Tensor:
    """`[C, C]`: in row i the clusters in the order of their means' distance from cluster i's, itself first.

    x is `[n, d]`; every one of the labels `[n]` 0..C-1 occurs. The share of places at which the input's and the
    embedding's agree is CRA.
    """
    return _Space.of(x, "x").centre_order(labels.to(x.device))


def learnt_centre_agreement(x: Tensor, labels: Labels, centers: Tensor) -> float:
    """CRA with a model's own centres `[C, m]` in the embedding's place of the samples' means; x is `[n, d]`.

    The paper's v^Z may be read as either. It is the share of ranks that agree, over the clusters that have samples.
    """
    used, found = np.unique(as_labels(labels), return_inverse=True)
    own = _Space.of(centers[torch.as_tensor(used, device=centers.device)], "centers")
    each = torch.arange(len(used), device=centers.device)
    agree = centre_order(x, torch.as_tensor(found)) == own.centre_order(each).to(x.device)
    return float(agree.double().mean())


@dataclass(frozen=True)
class _Space:
    """Points `[n, d]` about their mean in double precision, and their squared lengths `[n]`."""

    points: Tensor
    squares: Tensor

    @staticmethod
    def of(x: Tensor, name: str) -> _Space:
        points = x.detach().flatten(1).double()
        points = points - points.mean(0)  # or the products below would lose a far cloud's distances
        if not torch.isfinite(points).all():
            raise InputError(f"{name} has a value that is not finite")
        return _Space(points, points.square().sum(1))

    def keys(self, rows: slice) -> Tensor:
        """int64 `[b, n]`: as float64 the squared distances, in their last bits the index: ordered as they, no ties."""
        own = self.squares[rows, None] * (1 - DUPLICATE)
        square = torch.addmm(self.squares, self.points[rows], self.points.mT, alpha=-2).add_(own).clamp_(min=0)
        at = torch.arange(len(self.points), device=square.device)
        bits = max(TIE_BITS, len(at).bit_length())
        keys = square.view(torch.int64).bitwise_and_(-(1 << bits)).bitwise_or_(at + 1)
        keys[at[: len(keys)], at[rows]] = 0
        return keys

    def centre_order(self, labels: Tensor) -> Tensor:
        """`[C, C]`: clusters in the order of their means' distance from each cluster's; every label below C occurs."""
        centres, _ = cluster_means(self.points, labels, int(labels.max()) + 1)
        scale = float(self.squares.max()) ** 0.5 or 1.0
        # Means that coincide are ties too, whatever their rounding.
        distance = torch.stack([(centres - one).norm(dim=1) for one in centres]).div_(scale).round_(decimals=9)
        return distance.fill_diagonal_(-1).argsort(dim=1, stable=True)


@dataclass(frozen=True)
class _Tables:
    """Of each point's k nearest, in their order.

    `rank_x` are the ranks in x of the nearest in z, int64 `[n, k]`, `rank_z` those in z of the nearest in x, `gaps` the
    differences of the latter's distances, each over the root of its space's width; `squares` is the sum over all pairs.
    """

    rank_x: Tensor
    rank_z: Tensor
    gaps: Tensor
    squares: float


def _tables(x: _Space, z: _Space, k: int) -> _Tables:
    # Made beforehand: small results kept between large temporary ones would hold the freed memory in pieces.
    gaps = x.points.new_empty(len(x.points), k)
    rank_x, rank_z = torch.empty_like(gaps, dtype=torch.int64), torch.empty_like(gaps, dtype=torch.int64)
    widths, squares = (x.points.shape[1] ** 0.5, z.points.shape[1] ** 0.5), gaps.new_zeros(())
    for rows, keys_x, keys_z in _blocks(x, z):
        difference = _distances(keys_x).sub_(_distances(keys_z))
        squares += torch.linalg.vector_norm(difference).square()
        near_x, near_z = (_without_own(keys).topk(k, dim=1, largest=False) for keys in (keys_x, keys_z))
        rank_x[rows] = _ranks(keys_x, near_z.indices)
        rank_z[rows] = _ranks(keys_z, near_x.indices)
        to_z = keys_z.gather(1, near_x.indices)
        gaps[rows] = _distances(near_x.values) / widths[0] - _distances(to_z) / widths[1]
    return _Tables(rank_x, rank_z, gaps, float(squares))


def _blocks(x: _Space, z: _Space) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Rows and their keys in both spaces: products of many rows, then as few as a processor's cache holds."""
    n = len(x.points)
    many, few = (2**24, 2**20) if x.points.device.type == "cpu" else (2**27, 2**25)
    for block in _rows(n, many):
        keys_x, keys_z = x.keys(block), z.keys(block)
        for part in _rows(len(keys_x), few, n):
            yield slice(block.start + part.start, block.start + part.stop), keys_x[part], keys_z[part]


def _rows(n: int, elements: int, width: int | None = None) -> Iterator[slice]:
    """Slices of n rows of `width` (or n) numbers, with at most so many elements each, but at least one row."""
    step = max(1, elements // (width or n))
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def _without_own(keys: Tensor) -> Tensor:
    """In place: a point is no neighbour of its own."""
    return keys.masked_fill_(keys == 0, torch.iinfo(torch.int64).max)


def _distances(keys: Tensor) -> Tensor:
    return keys.view(torch.float64).sqrt()


def _ranks(keys: Tensor, which: Tensor) -> Tensor:
    """Ranks `[b, k]` of the points `which` `[b, k]` among all by `keys` `[b, n]`; the nearest has 1."""
    own = keys.gather(1, which)
    return torch.stack([(keys < own[:, at, None]).count_nonzero(1) for at in range(own.shape[1])], 1) + 1


def _rank_change(ranks: Tensor, k: int) -> float:
    """MRRE: the change of rank of the k nearest relative to their rank 1..k, normalised. `ranks` `[n, k2]`."""
    n = len(ranks)
    there = torch.arange(1, k + 1, device=ranks.device)
    change = ((ranks[:, :k] - there).abs() / there.double()).sum()
    return float(change) / (n * sum(abs(n - 2 * rank) / rank for rank in range(1, k + 1)))


def _preserved_share(ranks: Tensor, k: int) -> float:
    """1 less the normalised sum by which the k nearest in one space are beyond rank k in the other."""
    n = len(ranks)
    beyond = (ranks[:, :k] - k).clamp(min=0).sum()
    return 1 - 2 * float(beyond) / (n * k * (2 * n - 3 * k - 1))


def _mean(values: Iterator[float]) -> float:
    return float(np.mean(list(values)))
