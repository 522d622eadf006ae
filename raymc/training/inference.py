"""One pass of a model over many samples, in eval mode: embedding, clusters, features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raymc.methods.base import Method, confidence_of, labels_of
from raymc.ops.blocks import ROWS, in_blocks
from raymc.training.feed import Feed, Inputs

HEADS = ("projection", "subspace")  # features with unit rows
PROBE_ROWS = 1024  # samples whose views are drawn together: the figures of probes depend on it


@torch.no_grad()
def features(method: Method, model: nn.ModuleDict, feed: Feed, x: Tensor, views: int = 0) -> dict[str, Tensor]:
    """Features of samples `[n, …]` in eval mode, on the CPU; means over `views` augmented passes (0: plain).

    A head's unit rows are normalised again after averaging, other features are not, as in the published code.
    """

    def of(index: Tensor) -> dict[str, Tensor]:
        rows = x[index]
        inputs = [feed.augmented(rows, "probe", v, int(index[0])) for v in range(views)] or [feed.plain(rows)]
        passes = [method.features(model, one) for one in inputs]
        return {name: torch.stack([p[name].float() for p in passes]).mean(0).cpu() for name in passes[0]}

    whole = _mapped(model, of, torch.arange(len(x)), PROBE_ROWS)
    heads = {name: nn.functional.normalize(whole[name], dim=1) for name in HEADS if name in whole}
    return whole | heads


@dataclass(frozen=True)
class Assigned:
    """Of n samples, on the CPU: labels int64 `[n]`, confidence in 0..1 `[n]`, embedding float32 `[n, d]`.

    `ruled` `[n]` are the labels by the model's own rule, which are others only where a sample's label was `known`.
    """

    labels: Tensor
    ruled: Tensor
    confidence: Tensor
    z: Tensor


@torch.no_grad()
def assign(
    method: Method, model: nn.ModuleDict, feed: Inputs, x: Tensor, known: tuple[Tensor, Tensor] | None = None
) -> Assigned:
    """Clusters and embedding of samples `[n, …]` in eval mode.

    `known` has positions `[m]` and labels `[m]` of samples that were clustered themselves: they keep their labels.
    """
    given = torch.full((len(x),), -1)
    if known is not None:
        given[known[0]] = known[1]

    def of(index: Tensor) -> dict[str, Tensor]:
        inputs = feed.plain(x[int(index[0]) : int(index[-1]) + 1] if len(index) else x[:0])
        z, c = method.heads(model, inputs)
        own, ruled = given[index].to(z.device), labels_of(model, z, c)
        labels = torch.where(own < 0, ruled, own)
        sure = confidence_of(method, model, z, c, labels)
        found = {"labels": labels, "ruled": ruled, "confidence": sure.float(), "z": z.float()}
        return {name: value.cpu() for name, value in found.items()}

    return Assigned(**_mapped(model, of, torch.arange(len(x))))


@torch.no_grad()
def heads(method: Method, model: nn.ModuleDict, feed: Inputs, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Embedding `[n, d]` of samples and the cluster head's output, in eval mode, on the training device, float32."""

    def of(rows: Tensor) -> dict[str, Tensor]:
        z, c = method.heads(model, feed.plain(rows))
        return {"z": z.float()} | ({} if c is None else {"c": c.float()})

    found = _mapped(model, of, x)
    return found["z"], found.get("c")


def plain_inputs(feed: Feed, x: Tensor) -> Tensor:
    """Samples as the network sees them, flat `[n, d]`, float32, on the CPU."""
    return in_blocks(lambda rows: feed.plain(rows).flatten(1).float().cpu(), x)


def _mapped(
    model: nn.ModuleDict, function: Callable[[Tensor], dict[str, Tensor]], x: Tensor, rows: int = ROWS
) -> dict[str, Tensor]:
    """See `in_blocks`, with the model in eval mode meanwhile."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    found = in_blocks(function, x, rows)
    for module, training in modes:
        module.training = training
    return found
