"""Elastic-net subspace clustering (EnSC; You, Li, Robinson and Vidal, CVPR 2016).

Every point is written as a sparse combination of the others; points that use each other belong together. NMCE
clusters its COIL features so. Shapes: n points, d features, b points whose codes are computed at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

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

LARGEST = 50  # largest coefficients of a code that enter the affinity, as in the published code
RELAXATION = 1.6
TOLERANCE = 1e-4
CHECK_EVERY = 25
MOST_ITERATIONS = 1000


def fit(directions: Tensor, n_clusters: int, gamma: float, tau: float, seed: int) -> Clusters:
    """Clusters of unit rows `[m, d]`, see `ensc`; a new point follows the 10 most similar of them."""
    return with_neighbours(directions, ensc(directions, n_clusters, gamma, tau, seed))


def ensc(
    z: Tensor | NDArray[np.floating], n_clusters: int, gamma: float = 50.0, tau: float = 0.9, seed: int = 0
) -> NDArray[np.int64]:
    """Labels `[n]` in 0..n_clusters-1 of features z `[n, d]` that lie near a union of subspaces.

    The code of point j minimises tau |c|_1 + (1-tau)/2 |c|^2 + gamma_j/2 |z_j - Z^T c|^2 with c_j = 0 (eq. 2 there),
    where gamma_j is gamma times the least weight at which the code is not zero. The 50 largest coefficients of
    each code, scaled to length 1, make the affinity (|C| + |C|^T)/2 for spectral clustering.

    Args:
        z: features; rows are scaled to length 1, zero rows stay. Duplicates are allowed.
        n_clusters: at most n.
        gamma: weight of the self-expression error, above 1.
        tau: share of the l1 norm, in (0, 1]; 1 is sparse subspace clustering by lasso.
        seed: of the spectral step; the codes depend on no seed.

    Raises:
        InputError: more clusters than points, or gamma or tau out of range.
    """
    points = unit_points(z, n_clusters)
    if not gamma > 1:
        raise InputError(f"ensc_gamma: {gamma} is not above 1, where every code is zero")
    if not 0 < tau <= 1:
        raise InputError(f"ensc_tau: {tau} is not in (0, 1]")
    codes = self_expression(points, gamma, tau)
    return spectral_clustering((codes + codes.T) / 2, n_clusters, seed)


def self_expression(x: Tensor, gamma: float, tau: float) -> scipy.sparse.csr_array:
    """Sparse `[n, n]`: |code| of each point of x `[n, d]` (unit rows) in its row, largest kept, length 1."""
    n = len(x)
    count = min(LARGEST, n)
    width = max(64, (2**19 if x.device.type == "cpu" else 2**27) // n)
    values, indices = [], []
    for start in range(0, n, width):
        code = elastic_net_codes(x, torch.arange(start, min(start + width, n), device=x.device), gamma, tau)
        top = code.abs().topk(count, dim=0)
        values.append(top.values.T.cpu())
        indices.append(top.indices.T.cpu())
    return code_matrix(torch.cat(values), torch.cat(indices))


def elastic_net_codes(x: Tensor, which: Tensor, gamma: float, tau: float) -> Tensor:
    """Codes `[n, b]` of the points `which` `[b]` of x `[n, d]`, by over-relaxed ADMM (Boyd et al. 2011, section 6.4).

    All points at once and d x d systems make this two thin matrix products an iteration, where one lasso a point
    is thousands of short loops.
    """
    problem = _Problem.of(x, which, gamma, tau)
    code, dual = problem.zeros(), problem.zeros()
    for iteration in range(1, MOST_ITERATIONS + 1):
        before = code
        fitted = problem.fit(code - dual)
        relaxed = RELAXATION * fitted + (1 - RELAXATION) * code + dual
        code = problem.shrink(relaxed)
        dual = relaxed - code
        if iteration % CHECK_EVERY == 0 and _settled(code, fitted, before):
            break
    return code


def _settled(code: Tensor, fitted: Tensor, before: Tensor) -> bool:
    moved = torch.maximum((code - fitted).norm(), (code - before).norm())
    return bool(moved <= TOLERANCE * code.norm())


@dataclass(frozen=True)
class _Problem:
    """min over c of |x_j - X^T c|^2 / 2 + alpha_j (tau |c|_1 + (1-tau)/2 |c|^2), c_j = 0, for each j of `which`.

    `project` is (rho I + X^T X)^-1 X^T `[d, n]`, by which the ridge step is two thin products.
    """

    x: Tensor
    which: Tensor
    alpha: Tensor
    tau: float
    rho: float
    project: Tensor

    @staticmethod
    def of(x: Tensor, which: Tensor, gamma: float, tau: float) -> _Problem:
        own = torch.arange(len(which), device=x.device)
        similar = (x @ x[which].mT).abs()
        similar[which, own] = 0
        # A point orthogonal to all others has the code 0 whatever alpha is.
        alpha = similar.amax(0).clamp(min=1e-6) / (gamma * tau)
        rho = 2 * float(alpha.median()) ** 0.5  # within 2x of the best over the cases measured
        eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        return _Problem(x, which, alpha, tau, rho, torch.linalg.solve(x.mT @ x + rho * eye, x.mT))

    def zeros(self) -> Tensor:
        return self.x.new_zeros(len(self.x), len(self.which))

    def fit(self, target: Tensor) -> Tensor:
        """argmin over c of |x_j - X^T c|^2 / 2 + rho/2 |c - target_j|^2."""
        return target + self.x @ (self.project[:, self.which] - self.project @ target)

    def shrink(self, target: Tensor) -> Tensor:
        """argmin over c of the penalty + rho/2 |c - target_j|^2."""
        least = self.alpha * (self.tau / self.rho)
        shrunk = (target - target.clamp(-least, least)) / (1 + self.alpha * ((1 - self.tau) / self.rho))
        shrunk[self.which, torch.arange(len(self.which), device=self.x.device)] = 0
        return shrunk
