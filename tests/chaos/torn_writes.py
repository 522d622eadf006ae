"""kill -9 of a process that writes stage results, again and again: the store never serves a torn file.

    python -m tests.chaos.torn_writes --kills 50 --out reports/DATE-survival

The process does what a training does: it takes the lease of a stage, saves checkpoints, each in place of the one
before, then the result, and discards the checkpoint. All processes work on one stage, so each takes over the lease of
one that was killed, and what is left behind would pile up there.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from raymc.storage.stage_store import Store
from tests.chaos.command import tell

KEY = "0123456789abcdef"
NUMBERS = 100_000  # of four bytes each, in an entry
PIECES, PIECE_SECONDS = 40, 0.001
"""How a payload is written here: as to a disk that is slow, so that most kills hit a write."""

CHECKPOINTS = 2
LONGEST = 6.0  # from the lease to the kill, in the time of a save
WHOLE, HALF = 5, 3
"""Files of a stage that is whole: lease, result and checkpoint, the last two with their payloads. What one kill leaves
beside them at most: a temporary file, a payload that is not published yet, and the former one that should go."""


@contextmanager
def slow_disk() -> Iterator[None]:
    """What is written in the block is written in pieces, and takes its time."""
    fast = Path.open

    def slow(path: Path, mode: str = "r", **options: Any) -> Any:
        file = fast(path, mode, **options)
        return SlowFile(file) if mode == "wb" else file

    with mock.patch.object(Path, "open", slow):
        yield


class SlowFile:
    def __init__(self, file: Any) -> None:
        self.file = file

    def __enter__(self) -> SlowFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write(self, content: bytes) -> None:
        step = max(1, len(content) // PIECES)
        for start in range(0, len(content), step):
            self.file.write(content[start : start + step])
            self.file.flush()
            time.sleep(PIECE_SECONDS)


def write(root: str, number: int, log: str) -> None:
    """What the process does until it is killed; it notes in `log` what it has saved. `number` rises in every save."""
    store = Store(root)
    lease = store.lease(KEY)
    assert lease.try_acquire(), "the lease of a killed process must be taken over at once"
    with lease, slow_disk():
        done = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(done, f"lease {number}\n".encode())
        while True:
            for name in ("epoch",) * CHECKPOINTS + ("result",):
                number += 1
                store.save(KEY, _state(number), {"number": number}, name)
                os.write(done, f"{name} {number}\n".encode())
            os.write(done, f"discard {number}\n".encode())
            store.discard(KEY, "epoch")


def _state(number: int) -> dict[str, Any]:
    return {"weights": {"w": torch.full((NUMBERS,), float(number))}}


class Writers:
    """Processes that write one stage, one after the other, in `root`."""

    def __init__(self, root: Path) -> None:
        self.root, self.log = root, root / "log"
        self.folder = root / "stages" / KEY
        self.store = Store(str(root))
        self.looks, self.seen = 0, set[str]()
        begun = time.monotonic()
        with slow_disk():
            self.store.save("another", _state(0), {})
        self.pace = time.monotonic() - begun

    def round(self, saves: float) -> dict[str, Any]:
        """Start one, kill it in the time of `saves` saves after it has the lease, and look at what it has left."""
        before = self._saved()
        process = _start(write, str(self.root), max(before.values()) + 1, str(self.log))
        try:
            while self._saved()["lease"] == before["lease"] and process.is_alive():
                time.sleep(0.002)
            end = time.monotonic() + saves * self.pace
            while time.monotonic() < end:
                self._look()
                time.sleep(0.002)
        finally:
            assert process.pid is not None and process.is_alive(), "it ended by itself"
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        return self._left(before)

    def _left(self, before: dict[str, int]) -> dict[str, Any]:
        saved, files = self._saved(), sorted(path.name for path in self.folder.iterdir())
        found = {name: self._look(name) for name in ("result", "epoch")}
        assert found["result"] in (saved["result"], _next(saved, "result")), f"{found} of {saved}"
        if saved["epoch"] > saved["discard"]:
            assert found["epoch"] in (saved["epoch"], _next(saved, "epoch")), f"{found} of {saved}"
        with self.log.open("a") as log:  # what was published and not noted any more
            log.writelines(f"{name} {number}\n" for name, number in found.items() if number > saved[name])
        temporary = [name for name in files if name.endswith(".tmp")]
        new = [name for name in temporary if name not in self.seen]
        self.seen.update(temporary)
        noted = max(saved.values()) - max(before.values())
        assert len(files) <= WHOLE + HALF, f"what was left behind piles up: {files}"
        return {"saves": max(0, noted - 1), "files": len(files), "temporary": len(new), "served": found}

    def _look(self, name: str = "result") -> int:
        """The number of the entry that is served, 0 for none; all of its numbers are that one."""
        self.looks += 1
        entry = self.store.load(KEY, name)
        if entry is None:
            return 0
        weights = entry.state["weights"]["w"]
        assert weights.shape == (NUMBERS,) and bool((weights == entry.meta["number"]).all()), "a torn entry"
        return int(entry.meta["number"])

    def _saved(self) -> dict[str, int]:
        """The last number that was noted of each kind."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        kinds = ("lease", "epoch", "result", "discard")
        return dict.fromkeys(kinds, 0) | {line.split()[0]: int(line.split()[1]) for line in lines}


def _next(saved: dict[str, int], name: str) -> int:
    """What was being saved when the process died, if it was the one of this name."""
    return max(saved.values()) + 1


def _start(target: Any, *words: Any) -> BaseProcess:
    context = multiprocessing.get_context("forkserver")  # its server has torch already, and no threads
    context.set_forkserver_preload(["torch", __name__])
    process = context.Process(target=target, args=words, daemon=True)
    process.start()
    return process


def run(root: Path, kills: int, seed: int) -> dict[str, Any]:
    """What is to be reported of `kills` rounds. AssertionError where something torn was served or something lost."""
    dice, writers = random.Random(seed), Writers(root)
    begun = time.monotonic()
    rows = [writers.round(dice.uniform(0.0, LONGEST)) for _ in range(kills)]
    took = time.monotonic() - begun
    lease = writers.store.lease(KEY)
    assert lease.try_acquire(), "the last lease is not taken over"
    lease.release()
    left = len(list(writers.folder.iterdir()))
    assert left < WHOLE, f"{left} files are left of one stage"
    return {
        "kills": kills,
        "seed": seed,
        "bytes": 4 * NUMBERS,
        "seconds": round(took, 1),
        "saves": sum(row["saves"] for row in rows),
        "looks": writers.looks,
        "kills_that_left_a_temporary_file": sum(row["temporary"] > 0 for row in rows),
        "files_at_most": max(row["files"] for row in rows),
        "files_after_the_last_lease": left,
        "rounds": rows,
    }


def main() -> None:
    tell("torn_writes", __doc__, {"kills": 50, "seed": 0}, run, rows="rounds")


if __name__ == "__main__":
    main()
