"""The nearest neighbours of the training samples: found once for a dataset, kept in the store, shared by all trainings.

`augment.neighbours=k` makes the second and later views of a sample views of one of its k nearest others: positive pairs
for vectors of which nobody knows another augmentation (as in TEMI, arXiv 2303.17896).
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
from functools import cached_property

import torch
from torch import Tensor

from raymc.datasets import Dataset
from raymc.distributed import Workers, barrier, gather_rows, rows_of
from raymc.ops.neighbours import nearest
from raymc.storage.stage_store import Store

NUMERICS = 2  # raised when the neighbours that are found change
LEAST = 32  # neighbours of a sample that are kept, so that a search over k finds them once


class Neighbours:
    """The k nearest others of every training sample, by Euclidean distance between the samples as they are scaled.

    Args:
        samples: those of `data.train`, wherever they lie.
        k: at most the number of the others.
        store: where they are kept; None: nowhere.
    """

    def __init__(self, data: Dataset, samples: Tensor, k: int, workers: Workers, store: Store | None) -> None:
        self.k = k
        self._samples, self._workers, self._store = samples, workers, store
        self._device = samples.device  # of the table
        # Powers of two: different numbers of neighbours share a result.
        self._columns = min(len(samples) - 1, max(LEAST, 1 << (k - 1).bit_length()))
        facts = {"neighbours": NUMERICS, "data": data.fingerprint, "k": self._columns, "metric": "euclidean"}
        self.key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    def on(self, device: torch.device) -> Neighbours:
        """The same ones with their table on `device`."""
        other = copy.copy(self)
        vars(other).pop("table", None)
        other._device = device
        return other

    @cached_property
    def table(self) -> Tensor:
        """Positions int64 `[n, k]`, nearest first, where the samples lie or `on` says.

        From the store, or found by all workers together, who must ask for it at the same time; who meets another
        process at it waits for that one.
        """
        group = self._workers.group
        lease = self._store.lease(self.key) if self._store and self._workers.rank == 0 else None
        found = self._workers.broadcast(lease.acquire_unless(self._stored) if lease else None)
        if found is None:
            with lease or contextlib.nullcontext():
                found = self._search()
                if lease and self._store:
                    self._store.save(self.key, {"neighbours": found}, {"of": "samples"}, "neighbours")
        barrier(group)
        return found[:, : self.k].to(self._device, torch.int64)

    def _stored(self) -> Tensor | None:
        assert self._store is not None
        entry = self._store.load(self.key, "neighbours")
        table = None if entry is None else entry.state["neighbours"]
        return table if table is not None and table.shape == (len(self._samples), self._columns) else None

    def _search(self) -> Tensor:
        """int32 `[n, columns]` on the CPU; each worker searches for its share of the samples."""
        rows = rows_of(len(self._samples), self._workers.rank, self._workers.size)
        mine = torch.arange(rows.start, rows.stop, device=self._samples.device)
        return gather_rows(nearest(self._samples, self._columns, mine)[0].int(), self._workers.group).cpu()
