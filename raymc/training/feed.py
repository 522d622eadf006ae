"""Batches of augmented views: drawn for the global batch, of which each worker makes its own rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from raymc.datasets import Dataset
from raymc.datasets.augmentation import POLICIES
from raymc.errors import InputError
from raymc.methods.base import Batch
from raymc.rng import generator
from raymc.seed_parts import Seed, part
from raymc.training.dist import Workers, gather_rows, rows_of

DEVICE_SHARE = 0.4  # of the free device memory that the samples may take
ROWS = 2048  # samples of one forward pass over the whole dataset


@dataclass(frozen=True)
class Feed:
    """The samples on the training device and the policy that augments them."""

    data: Dataset
    samples: Tensor
    augmentation: str
    device: torch.device
    dtype: torch.dtype
    channels_last: bool
    workers: Workers

    @staticmethod
    def build(
        data: Dataset,
        augmentation: str,
        device: torch.device,
        dtype: torch.dtype,
        channels_last: bool,
        workers: Workers,
    ) -> Feed:
        """Move the samples to the device when they fit; raises InputError for an unknown policy."""
        if augmentation not in POLICIES:
            raise InputError(f"augmentation: {augmentation!r} is not one of {', '.join(POLICIES)}")
        samples = data.train.x
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            fits = samples.nbytes < DEVICE_SHARE * free
            samples = samples.to(device) if fits else samples.pin_memory()
        return Feed(data, samples, augmentation, device, dtype, channels_last, workers)

    def steps(self, batch_size: int) -> tuple[int, int]:
        """Steps of an epoch and the global batch: full batches only, one batch where there are fewer samples."""
        size = self.data.epoch_size
        batch = min(batch_size, size)
        if batch < self.workers.size:
            raise InputError(f"a batch of {batch} samples is too small for {self.workers.size} workers")
        return size // batch, batch

    def epoch(self, stage: str, seed: Seed, epoch: int, batch_size: int, views: int = 2) -> Iterator[Batch]:
        """This worker's rows of each global batch of one epoch, in so many augmented views; 0: one plain view."""
        steps, batch = self.steps(batch_size)
        stream = self.data.stream
        order = None
        if stream is None:
            order = torch.randperm(
                self.data.epoch_size, generator=generator(part(seed, "order"), stage, epoch, "order")
            )
        rows = rows_of(batch, self.workers.rank, self.workers.size)
        for step in range(steps):
            words = (stage, epoch, step)
            if order is None:
                assert stream is not None
                index = torch.arange(rows.start, rows.stop)
                samples = stream(generator(part(seed, "order"), *words, "samples"), batch)[rows].to(self.device)
            else:
                index = order[step * batch + rows.start : step * batch + rows.stop]
                samples = self.samples[index.to(self.samples.device)].to(self.device, non_blocking=True)
            yield self._batch(samples, index, batch, rows, seed, words, views, steps)

    def everything(self, epoch: int) -> Batch:
        """This worker's share of all samples as one plain batch; nothing is drawn for it."""
        index = self._share()
        return Batch((self.rows(index),), index, epoch=epoch)

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
        return self.plain(self.samples[index.to(self.samples.device)])

    @torch.no_grad()
    def map(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """See `Whole.map`."""
        return gather_rows(torch.cat([function(x) for _, x in self.blocks()]), self.workers.group)

    def _share(self) -> Tensor:
        rows = rows_of(len(self.samples), self.workers.rank, self.workers.size)
        return torch.arange(rows.start, rows.stop)

    def plain(self, x: Tensor) -> Tensor:
        """Un-augmented network input of samples `[n, …]`."""
        return self._shaped(POLICIES[self.augmentation].plain(x.to(self.device)))

    def augmented(self, x: Tensor, *words: str | int) -> Tensor:
        """One augmented view of samples `[n, …]`, drawn by `words`."""
        policy = POLICIES[self.augmentation]
        drawn = policy.draw(generator(*words), len(x), tuple(x.shape[1:]))
        return self._shaped(policy.apply(x.to(self.device), self._moved(drawn)))

    def _batch(
        self,
        samples: Tensor,
        index: Tensor,
        batch: int,
        rows: slice,
        seed: Seed,
        words: tuple[str, int, int],
        count: int,
        steps: int,
    ) -> Batch:
        views = self._views(samples, index, batch, rows, (part(seed, "augmentation"), *words), count)

        def uniform(name: str, width: int) -> Tensor:
            noise = torch.rand(batch, width, generator=generator(part(seed, "noise"), *words, "uniform", name))
            return noise[rows].to(self.device, non_blocking=True)

        def normal(name: str, width: int) -> Tensor:
            noise = torch.randn(batch, width, generator=generator(part(seed, "noise"), *words, "normal", name))
            return noise[rows].to(self.device, non_blocking=True)

        return Batch(views or (self.plain(samples),), index, uniform, normal, words[1], steps)

    def _views(
        self, samples: Tensor, index: Tensor, batch: int, rows: slice, words: tuple[str | int, ...], count: int
    ) -> tuple[Tensor, ...]:
        """So many augmented views of `samples`, rows `rows` of the global batch, drawn by `words`."""
        policy = POLICIES[self.augmentation]
        views = []
        for view in range(count):
            drawn = policy.draw(generator(*words, "view", view), batch, tuple(samples.shape[1:]))
            mine = {name: value[rows] for name, value in drawn.items()}
            views.append(self._shaped(policy.apply(samples, self._moved(mine))))
        return tuple(views)

    def _moved(self, drawn: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(self.device, non_blocking=True) for name, value in drawn.items()}

    def _shaped(self, x: Tensor) -> Tensor:
        x = x.to(self.dtype)
        if self.channels_last and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return x
