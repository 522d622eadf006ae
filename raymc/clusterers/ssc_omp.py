"""Sparse subspace clustering by orthogonal matching pursuit (SSC-OMP; You, Robinson and Vidal, CVPR 2016).

Every point is written by the few others that explain it best, chosen one after the other. MLC's Table 1 compares with
it. Shapes: n points, d features, b points whose codes are computed at a time, m atoms (other points) of a code.
"""

from __future__ import annotations

import numpy as np
import scipy  # its parts are loaded where they are first used
import torch
from numpy.typing import NDArray
from torch import Tensor

from raymc.clusterers.base import Clusters
from raymc.clusterers.self_expression import code_matrix, unit_points
from raymc.clusterers.spectral import spectral_clustering
from raymc.clusterers.voting import with_neighbours
from raymc.errors import InputError

LEAST_COSINE = 1e-6
"""Cosine with what is left of a point up to which an atom explains nothing: rounding, duplicates, orthogonality."""

EXACT = 1e-16
"""Squared residual of a unit point that is rounding, whatever the tolerance."""


def fit(directions: Tensor, n_clusters: int, nonzero: int, tolerance: float, seed: int) -> Clusters:
    """Clusters of unit rows `[m, d]`, see `ssc_omp`; a new point follows the 10 most similar of them."""
    return with_neighbours(directions, ssc_omp(directions, n_clusters, nonzero, tolerance, seed))


def ssc_omp(
    z: Tensor | NDArray[np.floating], n_clusters: int, nonzero: int = 10, tolerance: float = 1e-6, seed: int = 0
) -> NDArray[np.int64]:
    """Labels `[n]` in 0..n_clusters-1 of features z `[n, d]` that lie near a union of subspaces.

    The code of a point takes up, step by step, the other point most aligned with the residual, and fits all that it
    has taken by least squares (Algorithm 1 there). Codes scaled to length 1 make the affinity (|C| + |C|^T)/2 for
    spectral clustering.

    Args:
        z: features; rows are scaled to length 1, zero rows stay. Duplicates are allowed.
        n_clusters: at most n.
        nonzero: most coefficients of a code, at least 1.
        tolerance: a code ends when the residual's squared length is below it, in (0, 1): the share of the point that
            is left. The published code compares with tolerance times the point's length, the same for unit points.
        seed: of the spectral step; the codes depend on no seed.

    Raises:
        InputError: more clusters than points, or nonzero or tolerance out of range.
    """
    points = unit_points(z, n_clusters)
    if nonzero < 1:
        raise InputError(f"ssc_omp_nonzero: {nonzero} is not at least 1")
    if not 0 < tolerance < 1:
        raise InputError(f"ssc_omp_tolerance: {tolerance} is not between 0 and 1, the squared length of a point")
    codes = pursuit(points, nonzero, tolerance)
    return spectral_clustering((codes + codes.T) / 2, n_clusters, seed)


def pursuit(x: Tensor, nonzero: int, tolerance: float) -> scipy.sparse.csr_array:
    """Sparse `[n, n]`: |code| of each point of x `[n, d]` (unit rows) in its row, scaled to length 1."""
    # In double precision, or the rounding left of an exact fit would choose atoms.
    x = x.double()
    n, d = x.shape
    most = min(nonzero, n, d)
    width = max(1, (2**22 if x.device.type == "cpu" else 2**27) // max(n, most * d))
    blocks = torch.split(torch.arange(n, device=x.device), width)
    codes = [pursuit_codes(x, which, most, tolerance) for which in blocks]
    return code_matrix(torch.cat([values for values, _ in codes]), torch.cat([atoms for _, atoms in codes]))


def pursuit_codes(x: Tensor, which: Tensor, most: int, tolerance: float) -> tuple[Tensor, Tensor]:
    """Codes of the points `which` `[b]` of x `[n, d]`: at most `most` coefficients and their atoms, `[b, most]` each.

    A point's own row is no atom of it. A code that ends before `most` has coefficients of 0 at the end.
    """
    fit = _Fit(x[which], most)
    atoms = which[:, None]  # its own first, so that what may not be taken is one list
    for _ in range(most):
        similar = (fit.residual @ x.mT).abs_().scatter_(1, atoms, -1)
        best, atom = similar.max(1)
        left = fit.residual.norm(dim=1)
        goes_on = (left.square() >= max(tolerance, EXACT)) & (best > LEAST_COSINE * left)
        if not goes_on.any():
            break
        fit.take(x[atom] * goes_on[:, None], goes_on)
        atoms = torch.cat([atoms, atom[:, None]], 1)
    atoms = atoms[:, 1:]
    return fit.coefficients(), torch.nn.functional.pad(atoms, (0, most - atoms.shape[1]))


class _Fit:
    """Least squares of `target` `[b, d]` by one more column at a time: a QR decomposition that grows, one a point."""

    def __init__(self, target: Tensor, most: int) -> None:
        b, d = target.shape
        self.residual = target.clone()
        self.taken = 0
        self.basis = target.new_zeros(b, most, d)
        self.triangle = torch.eye(most, dtype=target.dtype, device=target.device).repeat(b, 1, 1)
        self.shares = target.new_zeros(b, most)

    def take(self, column: Tensor, real: Tensor) -> None:
        """Add a column `[b, d]` to each fit; where not `real` `[b]` it is zero and leaves the fit as it is."""
        at, basis = self.taken, self.basis[:, : self.taken]
        for _ in range(2):  # once more takes away what rounding left along the basis
            part = torch.einsum("bmd,bd->bm", basis, column)
            column = column - torch.einsum("bm,bmd->bd", part, basis)
            self.triangle[:, :at, at] += part
        length = column.norm(dim=1).where(real, 1)
        self.triangle[:, at, at] = length
        self.basis[:, at] = column / length[:, None]
        self.shares[:, at] = (self.basis[:, at] * self.residual).sum(1)
        self.residual = self.residual - self.shares[:, at, None] * self.basis[:, at]
        self.taken += 1

    def coefficients(self) -> Tensor:
        """Of the columns in the order in which they were taken, `[b, most]`."""
        found: Tensor = torch.linalg.solve_triangular(self.triangle, self.shares[:, :, None], upper=True)
        return found.squeeze(2)
