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
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from raymc.config import Config, StageConfig
from raymc.datasets import Dataset, Split, fingerprint
from raymc.errors import InputError
from raymc.nets import architecture, backbone_width
from raymc.rng import generator
from raymc.seed_parts import Seed, part
from raymc.training.dist import barrier, broadcast_object, gather_rows, rows_of
from raymc.training.feed import ROWS, Feed
from raymc.training.lease import Lease
from raymc.training.stages import BANK_NUMERICS, digest_of
from raymc.training.store import Store
from raymc.training.transfer import moved

POLL_SECONDS = 0.5

Make = Callable[[], Tensor]


@dataclass(frozen=True)
class Bank:
    """Outputs of a backbone, of width p.

    Attributes:
        data: the dataset with its samples replaced by their outputs, float32 `[n, p]`.
        views: those of augmented views, V times `[n, p]`, bfloat16; in a folder's store they stay in their files.
    """

    data: Dataset
    views: tuple[Tensor, ...]


@dataclass(frozen=True)
class BankFeed(Feed):
    """Batches of a bank: views of a sample are some of its kept ones, no two the same.

    `kept` are the bank's views: where they are in their files on a CPU, on another device in one tensor `[V, n, p]`.
    """

    kept: tuple[Tensor, ...] | Tensor = ()

    @staticmethod
    def of(feed: Feed, bank: Bank) -> BankFeed:
        """The batches that `feed` would give, as the backbone's outputs."""
        own = {f.name: getattr(feed, f.name) for f in fields(Feed)}
        own |= {"data": bank.data, "samples": bank.data.train.x.to(feed.device), "augmentation": "none"}
        kept = bank.views if feed.device.type == "cpu" else torch.stack(bank.views).to(feed.device)
        return BankFeed(**own, kept=kept)

    def _views(
        self,
        samples: Tensor,
        index: Tensor,
        batch: int,
        rows: slice,
        seed: Seed,
        words: tuple[str, int, int],
        count: int,
    ) -> tuple[Tensor, ...]:
        source = generator(part(seed, "augmentation"), *words, "bank")
        drawn = torch.rand(batch, len(self.kept), generator=source)[rows]
        return tuple(self._taken(chosen, index) for chosen in drawn.argsort(1)[:, :count].unbind(1))

    def _taken(self, chosen: Tensor, index: Tensor) -> Tensor:
        """`[b, p]`: for each sample the view that was chosen for it."""
        if isinstance(self.kept, Tensor):  # no positions are looked for: the device would be waited for
            return self._shaped(self.kept[moved({0: chosen}, self.device)[0], index])
        out = self.kept[0].new_empty(len(index), self.kept[0].shape[1])
        for view, outputs in enumerate(self.kept):
            at = (chosen == view).nonzero().squeeze(1)
            out[at] = outputs[index[at]]
        return self._shaped(out)


class Behind:
    """A stage behind a frozen backbone, as its bank shows it; the bank is read, or made, when first asked for.

    Args:
        model: the stage's modules, on their device when the bank is asked for.
        settings: with `feature_bank` above 0.
    """

    def __init__(
        self,
        model: nn.ModuleDict,
        config: Config,
        settings: StageConfig,
        feed: Feed,
        store: Store,
        autocast: torch.dtype | None,
    ) -> None:
        self._whole, self._count, self._samples, self._store = model, settings.feature_bank, feed, store
        self._autocast = autocast
        self._width = backbone_width(config.backbone)
        self.key = bank_key(config, feed.data, model["backbone"])

    @property
    def model(self) -> nn.ModuleDict:
        """The same modules without the backbone."""
        own = {name: nn.Identity() if name == "backbone" else module for name, module in self._whole.items()}
        return nn.ModuleDict(own)

    def share(self, other: Behind) -> None:
        """Have what another stage behind the same backbone has read."""
        self.__dict__ |= {"_bank": other._bank, "feed": other.feed}

    def open(self) -> None:
        """Read the bank, or make it, which all workers do together."""
        _ = self._bank

    @property
    def data(self) -> Dataset:
        """The dataset as the bank has it."""
        return self._bank.data

    @cached_property
    def feed(self) -> BankFeed:
        """The batches of the bank."""
        return BankFeed.of(self._samples, self._bank)

    @cached_property
    def _bank(self) -> Bank:
        data = self._samples.data
        makers: dict[str, Make] = {"plain": partial(self._outputs, data.train.x)}
        makers |= {f"view{view}": partial(self._outputs, data.train.x, view) for view in range(self._count)}
        if data.test is not None:
            makers["test"] = partial(self._outputs, data.test.x)
        self._make(makers)
        found = {name: self._read(name) for name in makers}
        train = Split(found["plain"], data.train.y)
        held_out = None if data.test is None else Split(found["test"], data.test.y)
        return Bank(
            dataclasses.replace(data, train=train, test=held_out),
            tuple(found[f"view{view}"] for view in range(self._count)),
        )

    def _make(self, makers: Mapping[str, Make]) -> None:
        """Compute and store what is missing; who finds another process at it waits."""
        group = self._samples.workers.group
        lease = self._store.lease(self.key) if self._samples.workers.rank == 0 else None
        missing = broadcast_object(self._missing(tuple(makers), lease) if lease else [], group)
        if missing:
            with lease or contextlib.nullcontext():
                for name in missing:
                    outputs = makers[name]()
                    if lease:
                        self._store.save(self.key, {"outputs": outputs}, {"bank": name}, name)
        barrier(group)

    def _missing(self, names: tuple[str, ...], lease: Lease) -> list[str]:
        """What is left to make, and then the lease is ours; nothing once another process has made it all."""

        def absent() -> list[str]:
            return [name for name in names if not self._store.has(self.key, name)]

        while absent():
            if lease.try_acquire():
                left = absent()
                if not left:
                    lease.release()
                return left
            time.sleep(POLL_SECONDS)
        return []

    def _read(self, name: str) -> Tensor:
        entry = self._store.load(self.key, name, mapped=True)
        if entry is None:
            raise InputError(f"the feature bank {self.key} is damaged: delete its folder in the store")
        outputs: Tensor = entry.state["outputs"]
        return outputs

    @torch.no_grad()
    def _outputs(self, x: Tensor, view: int | None = None) -> Tensor:
        """`[n, p]` on the CPU of samples `[n, …]`: as evaluation sees them, or as their augmented view `view`.

        In blocks of which each worker takes some, so that the draws do not depend on how many workers there are.
        """
        feed, backbone = self._samples, self._whole["backbone"].eval()
        starts = range(0, len(x), ROWS)
        share = rows_of(len(starts), feed.workers.rank, feed.workers.size)
        half = self._autocast if view is not None else None
        parts = [torch.empty(0, self._width, device=feed.device)]
        for at in starts[share]:
            rows = x[at : at + ROWS]
            seen = feed.plain(rows) if view is None else feed.augmented(rows, "bank", view, at)
            with torch.autocast(feed.device.type, dtype=half, enabled=half is not None):
                parts.append(backbone(seen).float())
        whole = gather_rows(torch.cat(parts), feed.workers.group).cpu()
        return whole if view is None else whole.to(torch.bfloat16)


def bank_key(config: Config, data: Dataset, backbone: nn.Module) -> str:
    """Name of a bank: a hash of the net and its weights, of the samples and of how their views are made."""
    facts = {
        "bank": BANK_NUMERICS,
        "architecture": architecture(backbone),
        "weights": digest_of({"backbone": backbone}),
        "augmentation": config.augmentation,
        "precision": config.precision,
        "data": data.fingerprint,
        "test": None if data.test is None else fingerprint(data.test.x),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
