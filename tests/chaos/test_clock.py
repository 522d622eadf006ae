"""A clock that jumps by hours: no lease is taken from a holder at work, and no time that is written goes back."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from raymc.storage import lease as lease_module
from raymc.storage.stage_store import Store
from raymc.tracking import runs
from raymc.tracking.spool import Spool

HOURS = 6 * 3600
KEY = "0123456789abcdef"


class Clock:
    """What `time.time` says: the real time, and what the clock has jumped by."""

    def __init__(self) -> None:
        self.jump, self._real = 0.0, time.time

    def __call__(self) -> float:
        return self._real() + self.jump


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(time, "time", found)
    return found


@pytest.mark.parametrize("jump", [HOURS, -HOURS])
def test_a_lease_at_work_stays_and_a_silent_one_goes(
    jump: int, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(lease_module, "STALE_SECONDS", 30.0)
    holder, waiter = Store(str(tmp_path)).lease(KEY), Store(str(tmp_path)).lease(KEY)
    assert holder.try_acquire()
    with holder:
        for _ in range(4):
            assert not waiter.try_acquire()
            clock.jump += jump
            time.sleep(0.1)
    Path(waiter.path).mkdir()
    (Path(waiter.path) / "far.elsewhere.1").touch()
    monkeypatch.setattr(lease_module, "STALE_SECONDS", 0.3)
    assert not waiter.try_acquire(), "what is seen for the first time is not stale yet"
    clock.jump = -clock.jump
    time.sleep(0.5)
    assert waiter.try_acquire()


def _times(path: Path) -> list[int]:
    return [json.loads(line)["time"] for line in path.read_text().splitlines()]


def test_the_times_of_a_run_never_go_back_in_one_sitting_or_the_next(tmp_path: Path, clock: Clock) -> None:
    for jump in (0, HOURS, -HOURS):
        with runs.open_seed(tmp_path, 0, trial=1) as log:
            for step in range(3):
                clock.jump = jump * (step == 1)
                log.metrics({"heads.loss": 1 / (step + 1)}, step + 3 * jump)
    times = _times(tmp_path / "spool" / "trial-0001.seed-0.jsonl")
    assert times == sorted(times) and times[-1] - times[0] >= HOURS * 1000


def test_a_time_in_a_value_is_no_time_of_the_run(tmp_path: Path) -> None:
    late = {"note": 'he said "kind":"start","time":99999999999999999'}
    for _ in range(2):
        with Spool(tmp_path / "a.jsonl") as log:
            log.start(tags=late)
    assert max(_times(tmp_path / "a.jsonl")) < 4e12
