"""How long a training will take yet: all of its remaining stages, by the pace of their epochs."""

from __future__ import annotations

import time
from collections.abc import Callable

from raymc.training.loop import Row


class TimeLeft:
    """Follows a training by what it reports (see `raymc.training.run.run`).

    The present stage's other epochs are counted at its mean pace since its first epoch, whose own time has the first
    centres or the compiler in it; epochs of later stages at the mean pace of the stages that were trained, for nothing
    is known of them. What follows the last epoch (evaluation, files) is not counted.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._epochs: dict[str, int] = {}  # of the stages that are not over
        self._trained: list[tuple[int, float]] = []  # of those that were trained: epochs, seconds an epoch
        self._start("")

    def note(self, row: Row) -> None:
        """Take in a row that the training reports."""
        if row["event"] == "plan":
            self._epochs = {name: count for name, count in row["epochs"].items() if count}
        elif row["event"] in ("epoch", "resumed"):
            self._advance(row["stage"], row["epoch"])
            if "epochs" in row:
                self._epochs[row["stage"]] = row["epochs"]
        elif row["event"] == "stage":
            if row["name"] == self._stage and self._pace is not None:
                self._trained.append((self._done, self._pace))
            self._epochs.pop(row["name"], None)
            self._start("")

    def seconds(self) -> float | None:
        """Seconds from the last report on; None while no epoch was timed."""
        if not self._epochs:
            return 0.0
        known = self._trained + ([] if self._pace is None else [(self._done, self._pace)])
        if not known:
            return None
        mean = sum(epochs * pace for epochs, pace in known) / sum(epochs for epochs, _ in known)
        present = self._epochs.get(self._stage, self._done) - self._done
        later = sum(count for name, count in self._epochs.items() if name != self._stage)
        return present * (mean if self._pace is None else self._pace) + later * mean

    def _start(self, stage: str) -> None:
        """Nothing is known of this stage yet; empty: between two."""
        self._stage = stage
        self._done = 0
        self._first: tuple[int, float] | None = None  # epochs that were done when the stage first told, and the time
        self._pace: float | None = None  # seconds an epoch
        if not stage:
            self._began = self._clock()

    def _advance(self, stage: str, epoch: int) -> None:
        if stage != self._stage:
            self._start(stage)
        now = self._clock()
        if self._first is None:
            self._first = epoch, now
            if epoch == 1 and not self._trained:
                self._pace = now - self._began  # better than nothing
        elif epoch > self._first[0]:
            self._pace = (now - self._first[1]) / (epoch - self._first[0])
        self._done = epoch


def duration(seconds: float | None) -> str:
    """`2 h 05 min`, `3 min 20 s`, `4.2 s`; a dash where absent."""
    if seconds is None:
        return "–"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} min"
