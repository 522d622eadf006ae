"""Whether a worker that others wait for is at work: one that hangs is found, and one that computes for hours is not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Protocol

BEAT = timedelta(seconds=30)
SILENT = timedelta(minutes=20)
"""How long a worker that others wait for may use no CPU."""
LONGEST_WORK = timedelta(hours=12)
"""How long they wait for one that does."""


class Store(Protocol):
    """What all workers see, as `torch.distributed.Store`."""

    def add(self, key: str, amount: int, /) -> int:
        """Add to a counter, which begins at 0, and return it."""


class Pulse:
    """Counts in a store, in a thread, how often this worker's thread has used CPU since the last look.

    A thread that is blocked for good, by a lock, a folder that is gone or a stopped process, uses none at all; one that
    computes, or asks again and again for something, uses some. Where the system does not tell a thread's CPU time
    (macOS) every look counts. Begin it in the thread that trains.

    Args:
        store: of this one alone, since it is asked from two threads.
    """

    def __init__(self, store: Store, rank: int, size: int) -> None:
        self._store, self._rank, self._others = store, rank, [one for one in range(size) if one != rank]
        self._meetings = 0
        threading.Thread(target=self._beat, args=(_cpu_clock(),), daemon=True).start()

    def meet(self) -> None:
        """Wait until every worker is here. Raises RuntimeError for one that is not, and hangs."""
        self._meetings += 1
        self._store.add(f"raymc/here/{self._rank}", 1)
        seen: dict[int, tuple[int, float]] = {}
        begun, pause = time.monotonic(), 0.001
        while absent := self._absent():
            self._check(absent, seen)
            if time.monotonic() - begun > LONGEST_WORK.total_seconds():
                raise RuntimeError(f"worker {absent[0]} has been at work alone for {LONGEST_WORK}")
            time.sleep(pause)
            pause = min(1.0, 2 * pause)

    def _absent(self) -> list[int]:
        return [one for one in self._others if self._store.add(f"raymc/here/{one}", 0) < self._meetings]

    def _check(self, absent: Iterable[int], seen: dict[int, tuple[int, float]]) -> None:
        now = time.monotonic()
        for one in absent:
            beats = self._store.add(f"raymc/pulse/{one}", 0)
            if one not in seen or seen[one][0] != beats:
                seen[one] = (beats, now)
            if now - seen[one][1] > SILENT.total_seconds():
                raise RuntimeError(f"worker {one} hangs: it has used no CPU for {SILENT}")

    def _beat(self, cpu: Callable[[], float]) -> None:
        before = cpu()
        while True:
            time.sleep(BEAT.total_seconds())
            try:
                if (now := cpu()) != before:
                    self._store.add(f"raymc/pulse/{self._rank}", 1)
            except (RuntimeError, OSError):  # the thread, or the store, is gone: the training has ended
                return
            before = now


def _cpu_clock() -> Callable[[], float]:
    """The seconds of CPU that the thread that calls this has used, for any thread to ask."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.monotonic
    clock = time.pthread_getcpuclockid(threading.get_ident())
    return lambda: time.clock_gettime(clock)
