"""Data-parallel workers: the only file of raymc that talks to `torch.distributed`.

The convention throughout: every worker holds its rows of the global batch and the *global* loss. The sums
below are autograd-aware: their backward adds up what all workers' losses ask for, so a worker's gradient is
`size` times its rows' share, and averaging gradients over workers (as DistributedDataParallel does) gives
exactly one process's gradient. `group=None` means one process: nothing is communicated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup

T = TypeVar("T")

BUCKET_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Workers:
    """This worker's place among the data-parallel ones; the default is one process on its own."""

    rank: int = 0
    size: int = 1
    group: ProcessGroup | None = None


def world(group: ProcessGroup | None) -> tuple[int, int]:
    """`(rank, size)` of this process in the group."""
    return (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))


def rows_of(n: int, rank: int, size: int) -> slice:
    """The contiguous shard of `n` rows that worker `rank` holds; the sizes of shards differ by at most 1."""
    share, rest = divmod(n, size)
    start = rank * share + min(rank, rest)
    return slice(start, start + share + (rank < rest))


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return _all_reduced(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _all_reduced(grads[0], ctx.group), None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup, lengths: list[int]) -> Tensor:
        rank, size = world(group)
        padded = x.new_zeros((max(lengths), *x.shape[1:]))
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in range(size)]
        dist.all_gather(parts, padded, group=group)
        start = sum(lengths[:rank])
        ctx.group, ctx.own = group, slice(start, start + len(x))
        return torch.cat([part[:n] for part, n in zip(parts, lengths, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _all_reduced(grads[0], ctx.group)[ctx.own], None, None


def _all_reduced(x: Tensor, group: ProcessGroup) -> Tensor:
    total = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total


def sum_over_workers(x: Tensor, group: ProcessGroup | None) -> Tensor:
    """The sum of every worker's `x` (equal shapes); the backward sums the upstream gradients likewise."""
    return x if group is None else cast(Tensor, _Sum.apply(x, group))


def row_counts(x: Tensor, group: ProcessGroup | None) -> list[int]:
    """How many rows `[n_r, ...]` each worker holds, by rank. The device is waited for."""
    if group is None:
        return [len(x)]
    rows = [torch.zeros(1, dtype=torch.int64, device=x.device) for _ in range(dist.get_world_size(group))]
    dist.all_gather(rows, torch.tensor([len(x)], device=x.device), group=group)
    return [int(row) for row in rows]


def first_row(counts: list[int], group: ProcessGroup | None) -> int:
    """How many rows the workers before this one hold, by `row_counts`."""
    return sum(counts[: world(group)[0]])


def gather_rows(x: Tensor, group: ProcessGroup | None, counts: list[int] | None = None) -> Tensor:
    """All workers' rows, `[sum of n_r, ...]` in order of rank; the shards `[n_r, ...]` may differ in length.

    `counts` are those of `row_counts`, for who gathers again and again: without them the device is waited for. The
    backward gives every worker the gradient that all workers together have for its rows.
    """
    if group is None:
        return x
    return cast(Tensor, _Gather.apply(x, group, counts or row_counts(x, group)))


def leads(group: ProcessGroup | None) -> bool:
    """Whether this worker is the first one."""
    return world(group)[0] == 0


def barrier(group: ProcessGroup | None) -> None:
    """Wait until every worker is here."""
    if group is not None:
        dist.barrier(group)


def broadcast_object(obj: T, group: ProcessGroup | None) -> T:
    """Worker 0's object on every worker (pickled; the others' argument is ignored)."""
    if group is None:
        return obj
    held = [obj]
    dist.broadcast_object_list(held, src=dist.get_global_rank(group, 0), group=group)
    return held[0]


def average_gradients(parameters: Iterable[nn.Parameter], group: ProcessGroup | None) -> None:
    """Replace each `.grad` by its mean over the workers, in flattened buckets.

    The same parameters must have a gradient on every worker, which holds where all run the same graph.
    """
    if group is None:
        return
    size = dist.get_world_size(group)
    for bucket in _buckets([p.grad for p in parameters if p.grad is not None]):
        flat = torch.cat([grad.reshape(-1) for grad in bucket])
        dist.all_reduce(flat, group=group)
        flat /= size
        for grad, mean in zip(bucket, torch.split(flat, [g.numel() for g in bucket]), strict=True):
            grad.copy_(mean.view_as(grad))


def _buckets(grads: list[Tensor]) -> Iterator[list[Tensor]]:
    """Runs of tensors of one type and device, each of about BUCKET_BYTES."""
    bucket: list[Tensor] = []
    held = 0
    for grad in grads:
        alike = bucket and (grad.dtype, grad.device) == (bucket[0].dtype, bucket[0].device)
        if bucket and (not alike or held > BUCKET_BYTES):
            yield bucket
            bucket, held = [], 0
        bucket.append(grad)
        held += grad.numel() * grad.element_size()
    if bucket:
        yield bucket


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm over the rows of all workers, for any device; made by `synchronise_batchnorm`."""

    group: ProcessGroup | None = None

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected [n, channels, ...], got {input.dim()} axes")

    def forward(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        if not self.training and self.running_mean is not None:
            return super().forward(x)
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        axes = [0, *range(2, x.dim())]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        sums = torch.cat([wide.sum(axes), wide.new_tensor([x.numel() // x.shape[1]])])
        totals = sum_over_workers(sums, self.group)
        count = totals[-1].detach()
        if count < 2:
            raise ValueError("BatchNorm needs more than one value per channel in training")
        mean = totals[:-1] / count
        centred = wide - mean.view(shape)
        variance = sum_over_workers(centred.square().sum(axes), self.group) / count
        self._track(mean.detach(), variance.detach() * (count / (count - 1)))
        out = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(x.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


def synchronise_batchnorm(module: nn.Module, group: ProcessGroup | None) -> None:
    """Let every BatchNorm1d/2d below `module` take its training statistics from the global batch.

    Replaces them in place with the same parameters, buffers, names and state-dict keys: on a GPU by
    `nn.SyncBatchNorm`, elsewhere by `GlobalBatchNorm`. `module` itself must not be a BatchNorm (ValueError).
    """
    if group is None:
        return
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        raise ValueError("give the module that holds the BatchNorm, so that it can be replaced")
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            setattr(module, name, _synchronised(child, group))
        else:
            synchronise_batchnorm(child, group)


def _synchronised(norm: nn.BatchNorm1d | nn.BatchNorm2d, group: ProcessGroup) -> nn.Module:
    tensors = [*norm.parameters(), *norm.buffers()]
    if tensors and tensors[0].is_cuda:
        convert: Callable[..., nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
        return convert(norm, group)
    twin = GlobalBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    twin.group = group
    twin._parameters = norm._parameters
    twin._buffers = norm._buffers
    twin.training = norm.training
    return twin
