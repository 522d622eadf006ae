"""Batches of augmented views: drawn for the global batch, of which each worker makes its own rows.

Draws are made on the CPU while a GPU works on what it was given before (`raymc.training.ahead`); a step's go there in
one copy.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.profiler import record_function

from raymc.bare_keys import Augment
from raymc.datasets import Dataset
from raymc.datasets.augmentation import Policy, compiled_apply
from raymc.datasets.policy import build_policy
from raymc.distributed import Workers, gather_rows, rows_of, shard_sizes
from raymc.errors import InputError
from raymc.methods.base import Batch
from raymc.ops.blocks import ROWS, in_blocks
from raymc.ops.uploads import uploaded
from raymc.rng import Seed, generator, part
from raymc.storage.stage_store import Store
from raymc.training.ahead import Ahead
from raymc.training.neighbours import Neighbours
from raymc.training.transfer import moved, rows_at

Key = TypeVar("Key", bound=Hashable)

DEVICE_SHARE = 0.4  # of the free device memory that the samples may take


@dataclass(frozen=True)
class Drawing:
    """What the draws of a step depend on, and which of the global batch's are this worker's.

    Attributes:
        words: stage, epoch and step, counted from 0.
        seed: the stage's.
        steps: those of the epoch.
        batch: samples of the global batch.
        rows: this worker's of them.
        ahead: makes them.
    """

    words: tuple[str, int, int]
    seed: Seed
    steps: int
    batch: int
    rows: slice
    ahead: Ahead

    def take(
        self, name: Hashable, draw: Callable[[Drawing], Mapping[Key, Tensor]], device: torch.device
    ) -> dict[Key, Tensor]:
        """What `draw` makes of this step, on `device`, see `Ahead.take`."""
        stage, epoch, step = self.words
        return self.ahead.take(name, lambda of: draw(replace(self, words=(stage, epoch, of))), step, device)

    def source(self, of: str, *more: str | int) -> torch.Generator:
        """The generator of one kind of draws, by the part of the seed that is for them."""
        return generator(part(self.seed, of), *self.words, *more)


@dataclass(frozen=True)
class Inputs:
    """How samples become what a network sees: by a policy without its draws, on a device, in a type.

    `autocast` is the type of the network's operations that autocast knows; None: off.
    """

    policy: Policy
    device: torch.device
    dtype: torch.dtype
    channels_last: bool
    autocast: torch.dtype | None

    def plain(self, x: Tensor) -> Tensor:
        """Un-augmented network input of samples `[n, …]`."""
        return self._shaped(self.policy.plain(uploaded(x, self.device)))

    def autocasting(self) -> torch.autocast:
        """A context for passes of the network."""
        return torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None)

    def _shaped(self, x: Tensor) -> Tensor:
        x = x.to(self.dtype)
        if self.channels_last and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return x


@dataclass(frozen=True)
class Feed(Inputs):
    """The samples on the training device and the policy that augments them.

    Attributes:
        augmentation: the name of the policy, of which `policy` is what `augment` makes.
        compiled: the augmentation runs as kernels that do many operations in a pass (see `compiled_apply`).
        neighbours: of which the second and later views of a sample are; None: of the sample.
    """

    data: Dataset
    samples: Tensor
    augmentation: str
    workers: Workers
    compiled: bool = False
    neighbours: Neighbours | None = None

    @staticmethod
    def build(
        data: Dataset,
        augmentation: str,
        device: torch.device,
        dtype: torch.dtype,
        channels_last: bool,
        workers: Workers,
        compiled: bool = False,
        augment: Augment = Augment(),  # noqa: B008
        store: Store | None = None,
        autocast: torch.dtype | None = None,
    ) -> Feed:
        """Move the samples to the device when they fit; neighbours are looked for in `store`.

        Raises InputError for an unknown policy and for what of `augment` is not for such samples.
        """
        policy = build_policy(augmentation, augment, data, device)
        samples = data.train.x
        if device.type != "cuda" or samples.nbytes < DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
            samples = samples.to(device)
        k = augment.neighbours
        neighbours = Neighbours(data, samples, k, workers, store) if k else None
        seen = (policy, device, dtype, channels_last, autocast)
        return Feed(*seen, data, samples, augmentation, workers, compiled, neighbours)

    def steps(self, batch_size: int) -> tuple[int, int]:
        """Steps of an epoch and the global batch: full batches only, one batch where there are fewer samples."""
        size = self.data.epoch_size
        batch = min(batch_size, size)
        if batch < self.workers.size:
            raise InputError(f"a batch of {batch} samples is too small for {self.workers.size} workers")
        return size // batch, batch

    def epoch(self, stage: str, seed: Seed, epoch: int, batch_size: int, views: int = 2) -> Generator[Batch]:
        """This worker's rows of each global batch of one epoch, in so many augmented views; 0: one plain view."""
        steps, batch = self.steps(batch_size)
        stream = self.data.stream
        order = None
        if stream is None:
            words = (part(seed, "order"), stage, epoch, "order")
            drawn = torch.randperm(self.data.epoch_size, generator=generator(*words))
            order = moved({0: drawn}, self.samples.device)[0]
        rows = rows_of(batch, self.workers.rank, self.workers.size)
        with Ahead(self.device, steps) as ahead:
            for step in range(steps):
                draws = Drawing((stage, epoch, step), seed, steps, batch, rows, ahead)
                with record_function("samples"):
                    samples, index = self._samples(order, draws)
                yield self._batch(samples, index, draws, views)

    def _samples(self, order: Tensor | None, draws: Drawing) -> tuple[Tensor, Tensor]:
        """This worker's samples of a step and their positions; without an order they are drawn anew."""
        if order is not None:
            begin = draws.words[2] * draws.batch
            index = order[begin + draws.rows.start : begin + draws.rows.stop]
            return rows_at(self.samples, index, self.device), index
        stream = self.data.stream
        assert stream is not None
        drawn = draws.take(
            "samples", lambda at: {0: stream(at.source("order", "samples"), at.batch)[at.rows]}, self.device
        )
        return drawn[0], torch.arange(draws.rows.start, draws.rows.stop, device=self.device)

    def everything(self, epoch: int) -> Batch:
        """This worker's share of all samples as one plain batch; nothing is drawn for it."""
        index = self._share()
        return Batch((self.rows(index),), index, epoch=epoch, counts=self._counts())

    @property
    def group(self) -> ProcessGroup | None:
        """See `raymc.methods.base.Whole`, which this is."""
        return self.workers.group

    def __len__(self) -> int:
        return len(self.samples)

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Whole.blocks`."""
        for index in torch.split(self._share(), ROWS):
            yield index, self.rows(index)

    def rows(self, index: Tensor) -> Tensor:
        """See `Whole.rows`."""
        return self.plain(rows_at(self.samples, index.to(self.samples.device), self.device))

    @torch.no_grad()
    def map(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """See `Whole.map`."""
        found = in_blocks(lambda index: function(self.rows(index)), self._share())
        return gather_rows(found, self.workers.group, self._counts())

    def _counts(self) -> tuple[int, ...]:
        return shard_sizes(len(self.samples), self.workers.size)

    def _share(self) -> Tensor:
        rows = rows_of(len(self.samples), self.workers.rank, self.workers.size)
        return torch.arange(rows.start, rows.stop, device=self.samples.device)

    def augmented(self, x: Tensor, *words: str | int) -> Tensor:
        """One augmented view of samples `[n, …]`, drawn by `words`."""
        drawn = self.policy.draw(generator(*words), len(x), tuple(x.shape[1:]))
        return self._shaped(self.policy.apply(uploaded(x, self.device), moved(drawn, self.device)))

    def _batch(self, samples: Tensor, index: Tensor, draws: Drawing, count: int) -> Batch:
        def noise(draw: Callable[..., Tensor], kind: str, name: str, width: int) -> Tensor:
            def drawn(at: Drawing) -> dict[str, Tensor]:
                return {name: draw(at.batch, width, generator=at.source("noise", kind, name))[at.rows]}

            return draws.take((kind, name, width), drawn, self.device)[name]

        views = self._views(samples, index, draws, count) if count else (self.plain(samples),)
        uniform, normal = partial(noise, torch.rand, "uniform"), partial(noise, torch.randn, "normal")
        counts = shard_sizes(draws.batch, self.workers.size)
        return Batch(views, index, uniform, normal, draws.words[1], draws.steps, counts=counts)

    def _views(self, samples: Tensor, index: Tensor, draws: Drawing, count: int) -> tuple[Tensor, ...]:
        """So many views of this worker's samples, each by its own draws."""
        policy, shape = self.policy, tuple(samples.shape[1:])
        apply = compiled_apply(policy) if self.compiled else policy.apply

        def of_views(at: Drawing) -> dict[tuple[int, str], Tensor]:
            drawn = {}
            for view in range(count):
                for name, values in policy.draw(at.source("augmentation", "view", view), at.batch, shape).items():
                    drawn[view, name] = values[at.rows]
            return drawn

        with record_function("draws"):
            drawn = draws.take("views", of_views, self.device)
        with record_function("augmentation"):
            own = [{name: values for (one, name), values in drawn.items() if one == view} for view in range(count)]
            seen = [samples] * count
            if self.neighbours is not None:
                seen[1:] = [rows_at(self.samples, at, self.device) for at in self._positions(index, draws, count)[1:]]
            return tuple(self._shaped(apply(x, params)) for x, params in zip(seen, own, strict=True))

    def _positions(self, index: Tensor, draws: Drawing, count: int) -> list[Tensor]:
        """Of which samples so many views are: the first of those at `index`, the others of drawn neighbours, if any."""
        near = self.neighbours
        if near is None:
            return [index] * count

        def which(at: Drawing) -> dict[int, Tensor]:
            sources = {view: at.source("augmentation", "neighbour", view) for view in range(1, count)}
            return {view: torch.randint(near.k, (at.batch,), generator=s)[at.rows] for view, s in sources.items()}

        return [index, *(near.table[index, one] for one in draws.take("neighbours", which, index.device).values())]
