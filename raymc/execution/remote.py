"""A study in an object store: what the driver and the processes of its trials give each other through it."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from raymc.errors import InputError, StorageLostError
from raymc.execution.trial import Plan
from raymc.masking import masked
from raymc.storage.exclusive_lease import driver_lease
from raymc.storage.lease import STALE_SECONDS, Lease
from raymc.storage.mirror import Mirror, mirror_of
from raymc.storage.objects import filesystem
from raymc.study.files import FOLDERS
from raymc.study.folder import Busy
from raymc.study.records import Record, Task
from raymc.study.seed_queue import Work


class RemoteWork:
    """A `Work` whose folder stands for one in an object store.

    What the driver decided is there before a task begins by it, and what a task left is here before its end is judged.
    """

    def __init__(self, work: Work, mirror: Mirror) -> None:
        self.work, self.mirror = work, mirror
        self.running: dict[tuple[str, int, tuple[int, ...]], str] = {}

    def next(self) -> Task | None:
        self.mirror.check_ours()  # before a database that is not in the store is written
        task = self.work.next()
        if task is not None:
            self.mirror.push()
            self.running[task.kind, task.trial, task.seeds] = trial_part(task)
        return task

    def on_report(self, task: Task, row: Mapping[str, Any]) -> None:
        self.work.on_report(task, row)
        if "resource" in row:  # the pruner may have left its verdict, for which the task looks next
            self.mirror.push(whole=False)

    def ended(self, task: Task, error: str | None = None) -> Record:
        self.mirror.pull(trial_part(task))
        self.running.pop((task.kind, task.trial, task.seeds), None)
        record = self.work.ended(task, error)
        self.mirror.push(whole=False)  # what is missing of the database, a resume reads in the record
        return record

    @property
    def left(self) -> int:
        return self.work.left


@contextmanager
def shared(work: Work, mirror: Mirror | None) -> Iterator[Work]:
    """The work as its driver does it; what running tasks write is followed where it goes to an object store."""
    if mirror is None:
        yield work
        return
    ours = RemoteWork(work, mirror)
    with mirror.pulling(lambda: {*ours.running.values()}):
        yield ours


@contextmanager
def at_work(plan: Plan, task: Task) -> Iterator[Plan]:
    """The plan as the process of a task has it: with a folder of its own where the study is in an object store."""
    if plan.uri is None:
        yield plan
        return
    with tempfile.TemporaryDirectory(prefix="raymc-", ignore_cleanup_errors=True) as scratch:
        mirror = Mirror(plan.uri, Path(scratch) / plan.folder.name)
        mirror.folder.mkdir()
        mirror.pull(trial_part(task))
        with mirror.pushing():
            yield replace(plan, folder=mirror.folder, mirror=mirror)


@contextmanager
def driving(storage: str, folder: Path) -> Iterator[Mirror | None]:
    """Keep other drivers, on whatever machine, off a study in an object store, and bring its folder up to date.

    None where the storage is a folder. Raises Busy where another driver is at work.
    """
    mirror = mirror_of(storage, folder)
    if mirror is None:
        yield None
        return
    fs, root = filesystem(mirror.uri)
    lease = driver_lease(fs, f"{root}/driver.lease")
    _take(lease, folder.name)
    with lease:
        _clear(folder)
        mirror.pull()
        mirror.is_lost = lambda: not lease.is_ours()
        try:
            yield mirror
        except StorageLostError:  # there is no place for what was decided
            raise
        except BaseException:
            _push_last(mirror)
            raise
        _push_last(mirror)


def _push_last(mirror: Mirror) -> None:
    try:
        mirror.push()
    except (InputError, StorageLostError) as error:
        print(masked(f"raymc: {error}; what the driver decided last is not there"), file=sys.stderr)


def _clear(folder: Path) -> None:
    """Remove what an earlier session left here: it may be ahead of the store, or of another study of that name."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "driver.lock":
            path.unlink()


def trial_part(task: Task) -> str:
    """Where the files of a task's trial are in its study."""
    return f"{FOLDERS[task.kind]}/{task.trial:04d}/"


def _take(lease: Lease, name: str) -> None:
    began = time.monotonic()
    while not lease.try_acquire():
        # A driver that was killed on another machine is known by its silence.
        if time.monotonic() - began > STALE_SECONDS + 5:
            raise Busy(f"{name} is being run by another process")
        time.sleep(1.0)
