"""A feature bank: a frozen backbone's outputs for every sample, so that a stage behind it trains without it.

Kept in the store, under a hash of the backbone's weights: the outputs for the samples as they are, for the held-out
split, and for V augmented views of each sample. Every seed and configuration behind the same stage 1 shares them; which
of the V views a step takes is drawn as its augmentation would be.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property, partial
from typing import Protocol

import torch
from torch import Tensor, nn

from raymc.config import Config, StageConfig
from raymc.datasets import POLICIES, Dataset, Split, fingerprint
from raymc.distributed import barrier, gather_rows, rows_of
from raymc.errors import InputError
from raymc.nets import architecture, backbone_width
from raymc.ops.blocks import ROWS, in_blocks
from raymc.storage.lease import Lease
from raymc.storage.stage_store import Store
from raymc.training.feed import Drawing, Feed
from raymc.training.stages import BANK_NUMERICS, digest_of

Make = Callable[[], Tensor]


class Outputs(Protocol):
    """What a stage behind a backbone sees of it, see `Bank`."""

    @property
    def data(self) -> Dataset: ...

    @property
    def views(self) -> tuple[Tensor, ...]: ...


class Bank:
    """Outputs of a backbone, of width p; what is asked for is read from the store, or made, by all workers together.

    Args:
        whole: the modules, on their device when the bank is asked for.
        settings: with `feature_bank` above 0.
    """

    def __init__(
        self,
        whole: nn.ModuleDict,
        config: Config,
        settings: StageConfig,
        feed: Feed,
        store: Store,
        autocast: torch.dtype | None,
    ) -> None:
        self._whole, self._count, self._samples, self._store = whole, settings.feature_bank, feed, store
        self._autocast = autocast
        self._width = backbone_width(config.backbone, tuple(feed.data.train.x.shape[1:]), config.mlp_width)
        self.key = bank_key(config, feed.data, whole["backbone"])

    @cached_property
    def data(self) -> Dataset:
        """The dataset with its samples replaced by their outputs, float32 `[n, p]`."""
        data = self._samples.data
        makers: dict[str, Make] = {"plain": partial(self._outputs, data.train.x)}
        if data.test is not None:
            makers["test"] = partial(self._outputs, data.test.x)
        stored = self._obtain(makers)
        held_out = None if data.test is None else Split(stored["test"], data.test.y)
        return dataclasses.replace(data, train=Split(stored["plain"], data.train.y), test=held_out)

    @cached_property
    def views(self) -> tuple[Tensor, ...]:
        """Those of augmented views, V times bfloat16 `[n, p]`; in a folder's store they stay in their files."""
        x = self._samples.data.train.x
        stored = self._obtain({f"view{view}": partial(self._outputs, x, view) for view in range(self._count)})
        return tuple(stored.values())

    def _obtain(self, makers: Mapping[str, Make]) -> dict[str, Tensor]:
        """The outputs by name, computed and stored where they are missing; who finds another process at it waits."""
        group = self._samples.workers.group
        stored: dict[str, Tensor] = {}
        lease = self._store.lease(self.key) if self._samples.workers.rank == 0 else None
        missing = self._samples.workers.broadcast(self._missing(tuple(makers), stored, lease) if lease else [])
        if missing:
            with lease or contextlib.nullcontext():
                for name in missing:
                    outputs = makers[name]()
                    if lease:
                        self._store.save(self.key, {"outputs": outputs}, {"bank": name}, name)
        barrier(group)
        return {name: stored[name] if name in stored else self._read(name) for name in makers}

    def _missing(self, names: tuple[str, ...], stored: dict[str, Tensor], lease: Lease) -> list[str]:
        """What is left to make, and then the lease is ours; nothing once another process has made it all.

        What is there is put into `stored`; what is torn is missing.
        """

        def whole() -> dict[str, Tensor] | None:
            for name in names:
                entry = None if name in stored else self._store.load(self.key, name, mapped=True)
                stored.update({} if entry is None else {name: entry.state["outputs"]})
            return stored if len(stored) == len(names) else None

        lease.acquire_unless(whole)
        return [name for name in names if name not in stored]

    def _read(self, name: str) -> Tensor:
        entry = self._store.load(self.key, name, mapped=True)
        if entry is None:
            raise InputError(f"the feature bank {self.key} cannot be read back from the store")
        outputs: Tensor = entry.state["outputs"]
        return outputs

    @torch.no_grad()
    def _outputs(self, x: Tensor, view: int | None = None) -> Tensor:
        """`[n, p]` on the CPU of samples `[n, …]`: as evaluation sees them, or as their augmented view `view`.

        In blocks of which each worker takes some, so that the draws do not depend on how many workers there are.
        """
        feed, backbone = self._samples, self._whole["backbone"].eval()
        half = self._autocast if view is not None else None

        def outputs(index: Tensor) -> Tensor:
            if not len(index):  # there are fewer blocks than workers
                return torch.empty(0, self._width, device=feed.device)
            rows = x[index]
            seen = feed.plain(rows) if view is None else feed.augmented(rows, "bank", view, int(index[0]))
            with torch.autocast(feed.device.type, dtype=half, enabled=half is not None):
                found: Tensor = backbone(seen).float()
            return found

        blocks = rows_of(math.ceil(len(x) / ROWS), feed.workers.rank, feed.workers.size)
        share = torch.arange(len(x))[blocks.start * ROWS : blocks.stop * ROWS]
        whole = gather_rows(in_blocks(outputs, share), feed.workers.group).cpu()
        return whole if view is None else whole.to(torch.bfloat16)


@dataclass(frozen=True)
class BankFeed(Feed):
    """Batches of a bank: views of a sample are some of its kept ones, no two the same."""

    bank: Outputs | None = None

    @staticmethod
    def of(feed: Feed, bank: Outputs) -> BankFeed:
        """The batches that `feed` would give, as the backbone's outputs."""
        own = {f.name: getattr(feed, f.name) for f in fields(Feed)}
        plain = {"augmentation": "none", "policy": POLICIES["none"]}
        near = feed.neighbours and feed.neighbours.on(feed.device)  # the samples may be on the CPU, the outputs are not
        own |= {"data": bank.data, "samples": bank.data.train.x.to(feed.device), "neighbours": near, **plain}
        return BankFeed(**own, bank=bank)

    @cached_property
    def stored(self) -> tuple[Tensor, ...] | Tensor:
        """The bank's views: where they are in their files on a CPU, on another device in one tensor `[V, n, p]`."""
        assert self.bank is not None
        return self.bank.views if self.device.type == "cpu" else torch.stack(self.bank.views).to(self.device)

    def _views(self, samples: Tensor, index: Tensor, draws: Drawing, count: int) -> tuple[Tensor, ...]:
        size = len(self.stored)

        def choose(at: Drawing) -> dict[int, Tensor]:
            drawn = torch.rand(at.batch, size, generator=at.source("augmentation", "bank"))[at.rows]
            return {0: drawn.argsort(1)[:, :count].T}

        chosen = draws.take("views", choose, self.device)[0]  # [count, b]
        positions = self._positions(index, draws, count)
        if isinstance(self.stored, Tensor):  # no positions are looked for: the device would be waited for
            taken = self.stored[chosen, torch.stack(positions)]
        else:
            taken = torch.stack([_taken(self.stored, *pair) for pair in zip(chosen, positions, strict=True)])
        return tuple(self._shaped(view) for view in taken)


def _taken(stored: tuple[Tensor, ...], which: Tensor, index: Tensor) -> Tensor:
    """`[b, p]`: of each sample at `index` the view that was chosen for it."""
    out = stored[0].new_empty(len(index), stored[0].shape[1])
    for view, outputs in enumerate(stored):
        at = (which == view).nonzero().squeeze(1)
        out[at] = outputs[index[at]]
    return out


@dataclass
class BankedStage:
    """A stage of the modules `whole` behind a frozen backbone, as its bank shows it."""

    whole: nn.ModuleDict
    samples: Feed
    bank: Bank

    @property
    def model(self) -> nn.ModuleDict:
        """The same modules without the backbone."""
        own = {name: nn.Identity() if name == "backbone" else module for name, module in self.whole.items()}
        return nn.ModuleDict(own)

    @property
    def data(self) -> Dataset:
        """The dataset as the bank has it."""
        return self.bank.data

    @cached_property
    def feed(self) -> BankFeed:
        """The batches of the bank."""
        return BankFeed.of(self.samples, self.bank)


def bank_key(config: Config, data: Dataset, backbone: nn.Module) -> str:
    """Name of a bank: a hash of the net and its weights, of the samples and of how their views are made."""
    facts = {
        "bank": BANK_NUMERICS,
        "architecture": architecture(backbone),
        "weights": digest_of({"backbone": backbone}),
        "augmentation": config.augmentation,
        **({"augment": augment} if (augment := config.augment.keyed(1)) else {}),
        "precision": config.precision,
        "data": data.fingerprint,
        "test": None if data.test is None else fingerprint(data.test.x),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
