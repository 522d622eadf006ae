"""The stage `features`: what a frozen encoder gives for the samples, in the store chunk by chunk.

Its key is of the encoder, its weights, the preprocessing, the type of the numbers and the samples as they are read. A
chunk is computed from its own rows in fixed batches, so it has the same numbers whoever computes it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raymc.distributed import Workers, barrier
from raymc.encoders import Encoder
from raymc.errors import InputError
from raymc.storage.stage_store import Store
from raymc.training.features.inputs import Inputs, batch, kind_of, print_of
from raymc.training.precision import exact_float32
from raymc.training.stages import digest_of, key_of

NUMERICS = 1  # raised when features change their numbers
CHUNK = 1024  # rows that are stored together, and at most lost when a process dies
BATCHES = {"cpu": 8, "cuda": 128}  # images; on a CPU small ones stay in its caches
TEXTS = 64

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Of the stored rows by `precision`; the operations are float32, or with `bfloat16` those that autocast has in it."""

Report = Callable[[dict[str, Any]], None]


class Features:
    """The features of the samples `x` by `encoder`, chunk by chunk.

    A chunk comes from the store, else it is computed and stored. In a store that is a folder, the rows stay in their
    files until they are read.

    Attributes:
        key: under which they are stored.
        width: how many numbers a sample has.
        cached: whether all were there.
    """

    def __init__(self, encoder: Encoder, x: Inputs, store: Store, precision: str, device: torch.device) -> None:
        """Raises InputError where the encoder takes other samples."""
        found = kind_of(x)
        if found != encoder.takes:
            raise InputError(f"encoder {encoder.name} takes {encoder.takes}, and the samples are {found}")
        self.encoder, self.x, self.store, self.device = encoder, x, store, device
        self.precision, self.width, self.cached = precision, 0, False
        self.key = key_of(
            {
                "stage": "features",
                "numerics": NUMERICS,
                "encoder": encoder.name,
                "weights": digest_of({"encoder": encoder.module}),
                "preprocessing": dataclasses.asdict(encoder.preprocessing) if encoder.preprocessing else None,
                "type": precision,
                "data": print_of(x),
            }
        )
        self._placed, self._computed = False, 0

    def __len__(self) -> int:
        return len(self.x)

    @property
    def chunks(self) -> int:
        return -(-len(self) // CHUNK)

    def obtain(self, workers: Workers, report: Report) -> None:
        """See that the store has all: another process computes them, or the `workers` together do, each its chunks.

        `report` is called with rows `{"event": "features", "encoder", "done", "n", "left"}`: samples of this worker's
        share, and the seconds that are left, None where none was computed yet.
        """
        lease = self.store.lease(self.key) if workers.rank == 0 else None
        found = None if lease is None else self._complete() or lease.acquire_unless(self._complete)
        found = workers.broadcast(found)
        if found is None:
            with lease or nullcontext():
                self._compute(workers, report)
                workers.meet()  # one may find its share in the store, and another has to compute it
                if lease is not None:
                    facts = {"n": len(self), "width": self._width_of(0), "encoder": self.encoder.name}
                    self.store.save(self.key, {}, {"stage": "features", **facts, "type": self.precision})
            barrier(workers.group)
        self.cached, self.width = found is not None, self._width_of(0)

    def rows(self) -> Iterator[Tensor]:
        """The rows `[up to 1024, width]` in order, in the type that they are stored in."""
        return (self.chunk(number) for number in range(self.chunks))

    def chunk(self, number: int) -> Tensor:
        """One chunk; computed where the store has none, or a torn one."""
        name = f"rows-{number:06d}"
        entry = self.store.load(self.key, name, mapped=True)
        if entry is not None:
            stored: Tensor = entry.state["x"]
            return stored
        rows = slice(number * CHUNK, min(len(self), (number + 1) * CHUNK))
        computed = self._encoded(rows)
        self._computed += len(computed)
        self.store.save(self.key, {"x": computed}, {"stage": "features", "chunk": number}, name)
        return computed

    def array(self, dtype: type[np.floating[Any]] = np.float32) -> NDArray[Any]:
        """All rows `[n, width]` in memory."""
        out = np.empty((len(self), self.width), dtype)
        for number, x in enumerate(self.rows()):
            out[number * CHUNK : number * CHUNK + len(x)] = x.float().numpy()
        return out

    def write_npy(self, file: BinaryIO, dtype: type[np.floating[Any]] = np.float32) -> None:
        """Write all rows as an .npy, of which a chunk is in memory at a time."""
        descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
        shape = (len(self), self.width)
        np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
        for x in self.rows():
            file.write(x.float().numpy().astype(dtype).tobytes())

    def _complete(self) -> bool | None:
        return None if self.store.load(self.key) is None else True

    def _width_of(self, number: int) -> int:
        return self.chunk(number).shape[1]

    def _compute(self, workers: Workers, report: Report) -> None:
        mine = range(workers.rank, self.chunks, workers.size)
        n = sum(min(CHUNK, len(self) - number * CHUNK) for number in mine)
        done, fresh, seconds = 0, 0, 0.0
        for number in mine:
            computed, begun = self._computed, time.monotonic()
            done += len(self.chunk(number))
            fresh += self._computed - computed
            seconds += time.monotonic() - begun if self._computed > computed else 0
            left = seconds / fresh * (n - done) if fresh else None
            report({"event": "features", "encoder": self.encoder.name, "done": done, "n": n, "left": left})

    def _encoded(self, rows: slice) -> Tensor:
        """Features of some rows, in the type that they are stored in. Raises InputError for values that are none."""
        if not self._placed:
            self.encoder.module.to(self.device).to(memory_format=torch.channels_last)
            self._placed = True
        size = TEXTS if self.encoder.takes == "texts" else BATCHES.get(self.device.type, BATCHES["cuda"])
        parts = [slice(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size)]
        out: list[Tensor] = []
        with ThreadPoolExecutor(1) as pool:  # the next batch is read while this one is encoded
            ahead = [pool.submit(batch, self.x, part, self.encoder, self.device) for part in parts[:1]]
            for following in [*parts[1:], None]:
                given = ahead.pop().result()
                if following is not None:
                    ahead.append(pool.submit(batch, self.x, following, self.encoder, self.device))
                out.append(self._forward(given))
        features = torch.cat(out)
        wrong = (~features.isfinite().all(1)).nonzero()
        if len(wrong):
            row = rows.start + int(wrong[0])
            raise InputError(f"encoder {self.encoder.name} gives no finite numbers for sample {row} (counted from 0)")
        return features

    def _forward(self, given: Any) -> Tensor:
        half = self.precision == "bfloat16"
        with exact_float32(), torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            return self.encoder.encode(given).to(TYPES[self.precision]).cpu()
