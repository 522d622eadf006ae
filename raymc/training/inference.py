"""One pass of a model over many samples, in eval mode: embedding, clusters, features.

What it gives lies on the training device. In blocks of rows, which several workers may share among them: each sample is
in the same block whoever computes it, so that the results are those of one worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raymc.distributed import Workers, gather_rows, rows_of
from raymc.methods.base import Method, confidence_of, labels_of
from raymc.ops.blocks import ROWS, in_blocks
from raymc.ops.uploads import uploaded
from raymc.training.feed import Feed, Inputs
from raymc.training.transfer import fetched

ALONE = Workers()
HEADS = ("projection", "subspace")  # features with unit rows
PROBE_ROWS = 1024  # samples whose views are drawn together: the figures of probes depend on it


@dataclass(frozen=True)
class Assigned:
    """Of n samples: labels int64 `[n]`, confidence in 0..1 `[n]`, embedding float32 `[n, d]`.

    `ruled` `[n]` are the labels by the model's own rule, which are others only where samples were clustered themselves.
    """

    labels: Tensor
    ruled: Tensor
    confidence: Tensor
    z: Tensor

    def cpu(self) -> Assigned:
        """The same on the CPU, by one copy."""
        return Assigned(**fetched(vars(self)))


@torch.no_grad()
def assign(method: Method, model: nn.ModuleDict, feed: Inputs, x: Tensor, workers: Workers = ALONE) -> Assigned:
    """Clusters and embedding of samples `[n, …]` by the model's rule; shared by `workers`, each of which gets all."""

    def of(rows: Tensor, first: int) -> dict[str, Tensor]:
        z, c = _heads(method, model, feed, rows)
        labels = labels_of(model, z, c)
        return {"labels": labels, "confidence": confidence_of(method, model, z, c, labels).float(), "z": z.float()}

    found = _mapped(model, of, x, workers=workers)
    return Assigned(ruled=found["labels"], **found)


@torch.no_grad()
def heads(
    method: Method, model: nn.ModuleDict, feed: Inputs, x: Tensor, workers: Workers = ALONE
) -> tuple[Tensor, Tensor | None]:
    """Embedding `[n, d]` of samples `[n, …]` and the cluster head's output, in the feed's type; shared as by `assign`.

    Where the model has no cluster head the output is None.
    """

    def of(rows: Tensor, first: int) -> dict[str, Tensor]:
        z, c = _heads(method, model, feed, rows)
        return {"z": z} | ({} if c is None else {"c": c})

    found = _mapped(model, of, x, workers=workers)
    return found["z"], found.get("c")


@torch.no_grad()
def assigned(
    method: Method, model: nn.ModuleDict, z: Tensor, c: Tensor | None, known: tuple[Tensor, Tensor] | None = None
) -> Assigned:
    """Clusters of samples with `heads` z and c, by the model's rule.

    `known` has positions `[m]` and labels `[m]` of samples that were clustered themselves: they keep their labels.
    """
    given = torch.full((len(z),), -1, device=z.device)
    if known is not None:
        given[uploaded(known[0], z.device)] = uploaded(known[1], z.device)

    def of(rows: Tensor) -> dict[str, Tensor]:
        own_z, own_c = z[rows], None if c is None else c[rows]
        ruled = labels_of(model, own_z, own_c)
        labels = torch.where(given[rows] < 0, ruled, given[rows])
        sure = confidence_of(method, model, own_z, own_c, labels)
        return {"labels": labels, "ruled": ruled, "confidence": sure.float()}

    with _evaluating(model):
        return Assigned(z=z.float(), **in_blocks(of, torch.arange(len(z), device=z.device)))


@torch.no_grad()
def features(
    method: Method, model: nn.ModuleDict, feed: Feed, x: Tensor, views: int = 0, workers: Workers = ALONE
) -> dict[str, Tensor]:
    """Features float32 of samples `[n, …]`, shared as by `assign`; means over `views` augmented passes (0: plain).

    A head's unit rows are normalised again after averaging, other features are not, as in the published code.
    """

    def of(x: Tensor, first: int) -> dict[str, Tensor]:
        rows = uploaded(x, feed.device)
        inputs = [feed.augmented(rows, "probe", view, first) for view in range(views)] or [feed.plain(rows)]
        with feed.autocasting():
            passes = [method.features(model, one) for one in inputs]
        return {name: torch.stack([p[name].float() for p in passes]).mean(0) for name in passes[0]}

    whole = _mapped(model, of, x, PROBE_ROWS, workers)
    return whole | {name: nn.functional.normalize(whole[name], dim=1) for name in HEADS if name in whole}


def plain_inputs(feed: Inputs, x: Tensor) -> Tensor:
    """Samples as the network sees them, flat `[n, d]`, float32."""
    return in_blocks(lambda rows: feed.plain(rows).flatten(1).float(), x)


def _heads(method: Method, model: nn.ModuleDict, feed: Inputs, rows: Tensor) -> tuple[Tensor, Tensor | None]:
    with feed.autocasting():
        z, c = method.heads(model, feed.plain(rows))
    return z.to(feed.dtype), None if c is None else c.to(feed.dtype)


def _mapped(
    model: nn.ModuleDict,
    function: Callable[[Tensor, int], dict[str, Tensor]],
    x: Tensor,
    size: int = ROWS,
    workers: Workers = ALONE,
) -> dict[str, Tensor]:
    """`function` of each block `[b, …]` of x and the position of its first row, joined by name: `[n, …]`.

    Where there are fewer blocks than workers, each worker computes them all.
    """
    blocks = range(0, max(1, len(x)), size)
    shared = workers.size > 1 and len(blocks) >= workers.size
    shares = [blocks[rows_of(len(blocks), rank, workers.size)] for rank in range(workers.size)] if shared else [blocks]
    with _evaluating(model):
        parts = [function(x[first : first + size], first) for first in shares[workers.rank if shared else 0]]
    found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    if not shared:
        return found
    counts = [sum(len(x[first : first + size]) for first in share) for share in shares]
    return {name: gather_rows(value, workers.group, counts) for name, value in found.items()}


@contextmanager
def _evaluating(model: nn.ModuleDict) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
