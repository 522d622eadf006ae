"""A lease: one of many holds it, whoever else reaches for it at the same moment, and however the one before it died."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fsspec import AbstractFileSystem

from raymc.storage import lease as lease_module
from raymc.storage.lease import STALE_SECONDS, Lease, lease_at
from raymc.storage.objects import filesystem, write

GONE = 2**22 + 1  # a process number above all that Linux gives
PLACES = ("folder", "objects")


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[AbstractFileSystem, str]:
    """File system and path of a lease, in a folder and in an object store."""
    fs, root = filesystem(str(tmp_path) if request.param == "folder" else f"memory://{tmp_path.name}")
    return fs, f"{root}/a/held"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the leases take for the time: `now`, in seconds."""
    found = SimpleNamespace(now=0.0, sleep=lambda seconds: None)
    found.monotonic = lambda: found.now
    monkeypatch.setattr(lease_module, "time", found)
    return found


def dead_name() -> str:
    """Of a holder on this machine whose process is gone."""
    return f"dead.{lease_module._machine()}.{GONE}"


def plant(place: tuple[AbstractFileSystem, str], name: str, beat: int = 0) -> None:
    """A holder that is no process of this test."""
    fs, path = place
    fs.makedirs(path, exist_ok=True)
    write(fs, f"{path}/{name}", b"%d" % beat)


def names(place: tuple[AbstractFileSystem, str]) -> set[str]:
    return set(lease_at(*place)._holders())


def once(inject: Callable[[], object], do: Callable[[], Any], at: int = 1) -> Callable[[], Any]:
    """`do`, before whose call number `at` something else happens."""
    calls = []

    def call() -> Any:
        calls.append(1)
        if len(calls) == at:
            inject()
        return do()

    return call


def _hold(path: str, ready: Any) -> None:
    lease = lease_at(filesystem(path)[0], path)
    assert lease.try_acquire()
    with lease:
        ready.set()
        time.sleep(120)


def test_one_of_two_processes_holds_the_lease_and_a_killed_one_loses_it(tmp_path: Path) -> None:
    context, path = multiprocessing.get_context("spawn"), str(tmp_path / "a" / "held")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(path, ready))
    holder.start()
    try:
        assert ready.wait(60)
        waiter = lease_at(filesystem(path)[0], path)
        assert not waiter.try_acquire()
        holder.kill()
        holder.join()
        assert waiter.try_acquire()
    finally:
        holder.kill()


def test_a_silent_holder_elsewhere_is_taken_over_and_a_beating_one_is_not(place: Any, clock: Any) -> None:
    waiter = lease_at(*place)
    for beat in range(5):
        plant(place, "far.elsewhere.1", beat)
        assert not waiter.try_acquire()
        clock.now += STALE_SECONDS
    assert not waiter.try_acquire()
    clock.now += 1
    assert waiter.try_acquire() and names(place) == {waiter.name}


def test_a_lease_is_given_back_once_and_only_by_its_owner(place: Any) -> None:
    first, second = lease_at(*place), lease_at(*place)
    assert first.try_acquire() and first.try_acquire(), "an answer that was lost is asked for again"
    with first:
        second.release()
        assert not second.try_acquire()
    assert second.try_acquire()
    second.release()
    assert names(place) == set() and not place[0].exists(place[1])


def test_who_waits_gets_what_another_publishes_or_the_lease(place: Any, clock: Any) -> None:
    first, second, published = lease_at(*place), lease_at(*place), iter([None, None, "result"])
    assert first.try_acquire()
    assert second.acquire_unless(lambda: next(published)) == "result"
    first.release()
    published = iter([None, "published between the question and the lease"])
    assert second.acquire_unless(lambda: next(published)) is not None and first.try_acquire()
    first.release()
    assert second.acquire_unless(lambda: None) is None and not first.try_acquire()


@pytest.mark.parametrize("before", ["nobody", "dead"])
@pytest.mark.parametrize("moment", ["look and move", "move and second look"])
def test_of_two_that_reach_for_it_at_once_one_holds_it(place: Any, before: str, moment: str, clock: Any) -> None:
    first, second, swept = lease_at(*place), lease_at(*place, lambda: swept.append(1)), list[int]()
    first.taken_over = second.taken_over
    if before == "dead":
        plant(place, dead_name())
    held: list[bool] = []

    def reach() -> None:
        held.append(second.try_acquire())

    if moment == "look and move":
        first._claim = once(reach, first._claim)  # type: ignore[method-assign]
    else:
        first._survey = once(reach, first._survey, at=2)  # type: ignore[method-assign]
    held.append(first.try_acquire())
    if len(held) == 1:  # a folder's lease moves by one step
        reach()
        held.reverse()
    assert held.count(True) == 1
    assert len(swept) == (before == "dead")
    winner, loser = (second, first) if held[0] else (first, second)
    loser.release()
    winner._renew()
    assert not winner.lost and names(place) == {winner.name} and not lease_at(*place).try_acquire()


def test_a_holder_that_stood_still_learns_that_it_lost_the_lease_and_disturbs_no_one(place: Any, clock: Any) -> None:
    first, second = lease_at(*place), lease_at(*place)
    assert first.try_acquire() and not second.try_acquire()
    clock.now += STALE_SECONDS + 1
    assert second.try_acquire()
    first._renew()
    assert first.lost
    if isinstance(second, lease_module.ObjectLease):
        plant(place, first.name, 7)  # a request of its own that comes late
        first.lost = False
        first._renew()
        assert first.lost, "it sees who holds it now"
    second._renew()
    first.release()
    assert not second.lost and names(place) == {second.name}


def race(lease: Callable[[], Lease], rounds: int, inside: Callable[[bool], None]) -> None:
    """Take the lease over from a dead holder and die, again and again; `inside` says whether one holds it."""
    for _ in range(rounds):
        one = lease()
        while not one.try_acquire():
            pass
        inside(True)
        one._beat += 1
        one._renew()
        assert not one.lost
        inside(False)
        dead = f"{one.path}/{one.name.partition('.')[0]}.{lease_module._machine()}.{GONE}"
        one.fs.mv(one._file, dead)


def _race(path: str, rounds: int) -> None:
    def inside(held: bool) -> None:
        if held:
            os.close(os.open(f"{path}.inside", os.O_CREAT | os.O_EXCL))
        else:
            os.unlink(f"{path}.inside")

    race(lambda: lease_at(filesystem(path)[0], path), rounds, inside)


def test_never_do_two_of_many_processes_hold_it(tmp_path: Path) -> None:
    context, path = multiprocessing.get_context("spawn"), str(tmp_path / "held")
    processes = [context.Process(target=_race, args=(path, 100)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert lease_at(filesystem(path)[0], path).try_acquire(), "400 times it went from one to the next"


def test_never_do_two_of_many_threads_hold_it(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "POLL_SECONDS", 0.001)
    busy, errors = threading.Lock(), list[BaseException]()

    def inside(held: bool) -> None:
        if held:
            assert busy.acquire(blocking=False), "two hold it"
        else:
            busy.release()

    def run() -> None:
        try:
            race(lambda: lease_at(*place), 50, inside)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
