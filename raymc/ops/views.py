"""What two or more augmented views of a batch have in common: their mean direction and their similarity."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn import functional

from raymc.distributed import sum_over_workers
from raymc.ops.rates import at_least_float32


def normalised_mean(views: Sequence[Tensor]) -> Tensor:
    """`[n, d]`: the mean of the views `[n, d]`, its rows scaled to length 1 (views that cancel out give 0).

    NMCE section 4: "feature vectors are averaged between augmentations"; the scaling is the published code's.
    """
    stack = torch.stack(tuple(views))
    return functional.normalize(stack.to(at_least_float32(stack.dtype)).mean(0), dim=1)


def cosine_similarity_mean(z1: Tensor, z2: Tensor, group: ProcessGroup | None = None, absolute: bool = False) -> Tensor:
    """The mean over rows of cos(z1_i, z2_i), a scalar in [-1, 1]; z1 and z2 are `[n, d]`.

    NMCE's constraint D(f) (section 3.5, section 4); `absolute` takes |cos|, as MLC does (eq. 5). With `group` the
    mean is that of all workers' rows.
    """
    dtype = at_least_float32(torch.promote_types(z1.dtype, z2.dtype))
    cosine = functional.cosine_similarity(z1.to(dtype), z2.to(dtype), dim=1)
    cosine = cosine.abs() if absolute else cosine
    total, count = sum_over_workers(torch.stack([cosine.sum(), cosine.new_full((), len(z1))]), group)
    mean: Tensor = total / count
    return mean


def view_similarity(views: Sequence[Tensor], group: ProcessGroup | None = None, absolute: bool = False) -> Tensor:
    """`cosine_similarity_mean` averaged over the pairs of views; ValueError for fewer than two views."""
    if len(views) < 2:
        raise ValueError(f"similarity needs two views or more, got {len(views)}")
    pairs = [cosine_similarity_mean(a, b, group, absolute) for a, b in combinations(views, 2)]
    return torch.stack(pairs).mean()


def similarity_to_mean(views: Sequence[Tensor], group: ProcessGroup | None = None, absolute: bool = False) -> Tensor:
    """The mean over views and rows of cos(z_i, mean of the views); of two views their `view_similarity`.

    EMP-SSL (Tong et al., arXiv 2304.03977), for many views of a sample. Two views are compared with each other, as NMCE
    does. Raises ValueError for fewer.
    """
    if len(views) <= 2:
        return view_similarity(views, group, absolute)
    stack = torch.stack(tuple(views))
    stack = stack.to(at_least_float32(stack.dtype))
    return cosine_similarity_mean(stack.flatten(0, 1), stack.mean(0).repeat(len(stack), 1), group, absolute)
