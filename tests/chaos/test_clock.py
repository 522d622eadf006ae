"""A clock that jumps by hours: no lease is taken from a holder at work."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from raymc.storage import lease as lease_module
from raymc.storage.stage_store import Store

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
