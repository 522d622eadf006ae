"""What subspace clustering methods share: unit points in, codes out, each point written by the other points.

Shapes: n points, d features, m coefficients kept of each code.
"""

from __future__ import annotations

import numpy as np
import scipy  # its parts are loaded where they are first used
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from raymc.clusterers.base import check_count


def unit_points(z: Tensor | NDArray[np.floating], n_clusters: int) -> Tensor:
    """Rows of z `[n, d]` scaled to length 1 in single precision or better; zero rows stay.

    Raises InputError where there are more clusters than points.
    """
    points = torch.as_tensor(z).detach()
    check_count(n_clusters, len(points))
    return functional.normalize(points.to(torch.promote_types(points.dtype, torch.float32)), dim=1)


def code_matrix(values: Tensor, indices: Tensor) -> scipy.sparse.csr_array:
    """Sparse `[n, n]`: |code| of each point in its row, length 1, from coefficients and their points `[n, m]`.

    A coefficient of 0 stands for none; a row of them stays zero.
    """
    n, m = values.shape
    rows = np.repeat(np.arange(n), m)
    data = functional.normalize(values.abs().double(), dim=1).cpu().numpy().ravel()
    codes = scipy.sparse.csr_array((data, (rows, indices.cpu().numpy().ravel())), shape=(n, n))
    codes.eliminate_zeros()
    return codes
