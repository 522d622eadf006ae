"""Data-parallel workers: the only file of raymc that talks to `torch.distributed`.

The convention throughout: every worker holds its rows of the global batch and the *global* loss. The sums
below are autograd-aware: their backward adds up what all workers' losses ask for, so a worker's gradient is
`size` times its rows' share, and averaging gradients over workers (as DistributedDataParallel does) gives
exactly one process's gradient. `group=None` means one process: nothing is communicated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from raymc.pulse import Pulse

T = TypeVar("T")

BUCKET_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Workers:
    """This worker's place among the data-parallel ones; the default is one process on its own.

    Attributes:
        group: of all of them; a collective of it that takes long has met a worker that hangs.
        pulse: by which they wait for one that is at work alone, as long as it is; None: they wait in `group`.
    """

    rank: int = 0
    size: int = 1
    group: ProcessGroup | None = None
    pulse: Pulse | None = None

    def broadcast(self, obj: T) -> T:
        """Worker 0's object on every worker, which it may have been at work on for hours; see `broadcast_object`."""
        if self.pulse is not None:
            self.pulse.meet()
        return broadcast_object(obj, self.group)

    def by_first(self, make: Callable[[], T]) -> T:
        """What `make()` gives on worker 0, which alone calls it: on others threads may differ in the last bit."""
        return self.broadcast(cast(T, make() if self.rank == 0 else None))

    def meet(self) -> None:
        """Wait until every worker is here, for hours if one has more to do. Raises RuntimeError for one that hangs."""
        if self.pulse is None:
            barrier(self.group)
        else:
            self.pulse.meet()


def all_workers(rank: int, size: int) -> Workers:
    """The workers of this process's default group, of which it is number `rank`; all have to ask at the same time."""
    if size == 1:
        return Workers(rank, size)
    store = dist.distributed_c10d._get_default_store().clone()  # of its own, for two threads
    return Workers(rank, size, dist.group.WORLD, Pulse(store, rank, size))


def world(group: ProcessGroup | None) -> tuple[int, int]:
    """`(rank, size)` of this process in the group."""
    return (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))


def rows_of(n: int, rank: int, size: int) -> slice:
    """The contiguous shard of `n` rows that worker `rank` holds; the sizes of shards differ by at most 1."""
    share, rest = divmod(n, size)
    start = rank * share + min(rank, rest)
    return slice(start, start + share + (rank < rest))


def shard_sizes(n: int, size: int) -> tuple[int, ...]:
    """How many of `n` rows each of `size` workers holds by `rows_of`, by rank."""
    spans = [rows_of(n, rank, size) for rank in range(size)]
    return tuple(span.stop - span.start for span in spans)


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
    def forward(ctx: Any, x: Tensor, group: ProcessGroup, counts: list[int]) -> Tensor:
        ctx.group, ctx.counts = group, counts
        most = max(counts)
        whole = x.new_empty((len(counts) * most, *x.shape[1:]))
        dist.all_gather_into_tensor(whole, _padded(x, most), group=group)
        if min(counts) == most:
            return whole
        return torch.cat([part[:n] for part, n in zip(torch.split(whole, most), counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        counts, whole = ctx.counts, grads[0]
        most = max(counts)
        if min(counts) < most:  # all workers must take equally many
            whole = torch.cat([_padded(part, most) for part in torch.split(whole, counts)])
        own = whole.new_empty((most, *whole.shape[1:]))
        dist.reduce_scatter_tensor(own, whole.contiguous(), group=ctx.group)
        return own[: counts[dist.get_rank(ctx.group)]], None, None


def _padded(x: Tensor, length: int) -> Tensor:
    """x `[n, ...]` with rows of zeros at its end, contiguous."""
    if len(x) == length:
        return x.contiguous()
    padded = x.new_zeros((length, *x.shape[1:]))
    padded[: len(x)] = x
    return padded


def _all_reduced(x: Tensor, group: ProcessGroup) -> Tensor:
    total = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total


def sum_over_workers(x: Tensor, group: ProcessGroup | None) -> Tensor:
    """The sum of every worker's `x` (equal shapes); the backward sums the upstream gradients likewise."""
    return x if group is None else cast(Tensor, _Sum.apply(x, group))


def sums_over_workers(parts: Sequence[Tensor], group: ProcessGroup | None) -> list[Tensor]:
    """`sum_over_workers` of several tensors of one type, by one collective for all of them."""
    if group is None:
        return list(parts)
    whole = sum_over_workers(torch.cat([part.reshape(-1) for part in parts]), group)
    totals = torch.split(whole, [part.numel() for part in parts])
    return [total.view_as(part) for total, part in zip(totals, parts, strict=True)]


def row_counts(x: Tensor, group: ProcessGroup | None, known: Sequence[int] | None = None) -> list[int]:
    """How many rows `[n_r, ...]` each worker holds, by rank.

    `known`: what the caller knows of it, as `shard_sizes` or a batch has it. Else it is asked of all workers, and the
    device is waited for. Raises ValueError where this worker holds another number than is known.
    """
    if group is None:
        return [len(x)]
    if known is not None:
        if known[dist.get_rank(group)] != len(x):
            raise ValueError(f"this worker holds {len(x)} rows, not {known[dist.get_rank(group)]}")
        return list(known)
    rows = [torch.zeros(1, dtype=torch.int64, device=x.device) for _ in range(dist.get_world_size(group))]
    dist.all_gather(rows, torch.tensor([len(x)], device=x.device), group=group)
    return [int(row) for row in rows]


def first_row(counts: list[int], group: ProcessGroup | None) -> int:
    """How many rows the workers before this one hold, by `row_counts`."""
    return sum(counts[: world(group)[0]])


def gather_rows(x: Tensor, group: ProcessGroup | None, counts: Sequence[int] | None = None) -> Tensor:
    """All workers' rows, `[sum of n_r, ...]` in order of rank; the shards `[n_r, ...]` may differ in length.

    `counts` are those of `row_counts`: without them they are asked for, and the device is waited for. The backward
    gives every worker the gradient that all workers together have for its rows.
    """
    if group is None:
        return x
    return cast(Tensor, _Gather.apply(x, group, row_counts(x, group, counts)))


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


class _Bucket:
    """Parameters whose gradients travel together."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        self.missing: set[nn.Parameter] = set()
        self.grads: list[Tensor] = []
        self.flat: Tensor | None = None
        self.work: dist.Work | None = None

    def clear(self) -> None:
        self.missing, self.grads, self.flat, self.work = set(self.parameters), [], None, None

    def send(self, group: ProcessGroup) -> None:
        """Begin to sum up the gradients that there are."""
        self.grads = [p.grad for p in self.parameters if p.grad is not None]
        if self.grads:
            self.flat = torch.cat([grad.reshape(-1) for grad in self.grads])
            self.work = dist.all_reduce(self.flat, group=group, async_op=True)

    def receive(self, size: int) -> None:
        """Replace the gradients by their means."""
        if self.flat is None or self.work is None:
            return
        self.work.wait()
        self.flat /= size
        means = torch.split(self.flat, [grad.numel() for grad in self.grads])
        for grad, mean in zip(self.grads, means, strict=True):
            grad.copy_(mean.view_as(grad))


class GradientAverage:
    """Averages gradients over the workers while the backward pass goes on: `with average: loss.backward()`.

    A bucket of gradients is sent once its last one is there; what has none in this step is left out at the end. The
    same parameters must have a gradient on every worker, which holds where all run the same graph. Gradients of
    backward passes before the `with` are averaged with those of the pass inside it. torch's DistributedDataParallel
    would need one module whose `forward` is the loss, and search its graph in every step for parameters without a
    gradient.

    Raises RuntimeError in a second backward pass within one `with` that comes to gradients already sent.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], group: ProcessGroup | None) -> None:
        self._group, self._going = group, False
        # Those of the last layers are there first.
        own = [] if group is None else [p for p in parameters if p.requires_grad][::-1]
        self._buckets = [_Bucket(bucket) for bucket in _buckets(own)]
        for bucket in self._buckets:
            for parameter in bucket.parameters:
                parameter.register_post_accumulate_grad_hook(partial(self._arrived, bucket))  # type: ignore[no-untyped-call]

    def __enter__(self) -> None:
        self._going = True
        for bucket in self._buckets:
            bucket.clear()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._going = False
        if kind is None and self._group is not None:
            for bucket in self._buckets:
                if bucket.work is None:
                    bucket.send(self._group)
            for bucket in self._buckets:
                bucket.receive(dist.get_world_size(self._group))
        for bucket in self._buckets:
            bucket.clear()

    def _arrived(self, bucket: _Bucket, parameter: nn.Parameter) -> None:
        if not self._going or self._group is None:
            return
        if bucket.work is not None:
            raise RuntimeError("a second backward pass comes to gradients that are being averaged")
        bucket.missing.discard(parameter)
        if not bucket.missing:
            bucket.send(self._group)


def _buckets(tensors: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Runs of tensors of one type and device, each of about BUCKET_BYTES."""
    bucket: list[nn.Parameter] = []
    held = 0
    for tensor in tensors:
        alike = bucket and (tensor.dtype, tensor.device) == (bucket[0].dtype, bucket[0].device)
        if bucket and (not alike or held > BUCKET_BYTES):
            yield bucket
            bucket, held = [], 0
        bucket.append(tensor)
        held += tensor.numel() * tensor.element_size()
    if bucket:
        yield bucket


def on_gpus(norm: nn.Module, group: ProcessGroup) -> nn.Module:
    """torch's own BatchNorm over the rows of all workers in place of `norm`; it has no form for CPUs."""
    convert: Callable[..., nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
    return convert(norm, group)
