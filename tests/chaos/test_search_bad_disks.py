"""A disk that is full, read-only or forbidden, at any moment of a search: one line, exit code 2, nothing is lost."""

from __future__ import annotations

import gc
import os
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from raymc.errors import StorageError
from raymc.execution import session
from raymc.execution.driver import Slots
from raymc.execution.trial import run_task
from raymc.storage.stage_store import Store
from raymc.study.files import read_json
from raymc.study.request import Request
from raymc.training.outputs import write_arrays
from tests.chaos.bad_disks import MEGABYTES, TRIALS, in_the_middle
from tests.chaos.command import PATIENCE, short_folder
from tests.chaos.disks import FAULTS, Disk, Refused, small_disk
from tests.chaos.driver_kills import Search
from tests.search_fakes import FakeTrainable, tune
from tests.test_search_study import SPACE, Tracker

MOMENTS = {
    "second trial asked for": ("ask", 2),
    "second epoch of a seed": ("report trials-0001-1", 2),
    "end of a seed": ("result trials-0001-1", 1),
    "before Optuna is told": ("tell 1", 1),
    "second fresh seed": ("result confirm-", 2),
}
"""When it happens: at which of the search's moments of one kind."""


class Stages(FakeTrainable):
    """Leaves what a training leaves: a checkpoint at every epoch, a stage, labels."""

    def __init__(self, storage: Path, happen: Callable[[str], None]) -> None:
        super().__init__()
        self.storage, self.happen = storage, happen

    def __call__(self, params: Mapping[str, Any], seed: int, out: Path, report: Any) -> dict[str, Any]:
        store, key = Store(str(self.storage)), f"{out.parent.parent.name}-{out.parent.name}-{seed}"

        def saving(row: dict[str, Any]) -> None:
            report(row)
            if row["event"] == "epoch":
                self.happen(f"report {key}")
                store.save(key, {"w": torch.ones(20_000)}, {"epoch": row["epoch"]}, "epoch")

        result = super().__call__(params, seed, out, saving)
        self.happen(f"result {key}")
        write_arrays(out / "labels.npz", {"labels": torch.arange(20) % 4, "y": torch.arange(20) % 4})
        return result


def _mounted(folder: Path, megabytes: int) -> Iterator[Disk]:
    try:
        with small_disk(folder, megabytes) as found:
            yield found
    except Refused as error:
        pytest.skip(str(error))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    yield from _mounted(tmp_path, 16)


@pytest.fixture
def big(tmp_path: Path) -> Iterator[Disk]:
    yield from _mounted(tmp_path, MEGABYTES)


def searching(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Runs the study `s` in a storage with a training that does nothing; `happen` is told of every moment."""
    (folder / "mine.yaml").write_text(SPACE)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(session, "StudyTracker", Tracker)

    def run(storage: Path, happen: Callable[[str], None], trainable: Stages, resume: bool = False) -> dict[str, Any]:
        def here(work: Any, make: Any, place: Any, title: str, tick: Any) -> None:
            plan, _ = make(Slots(1, {}, 0.0, 1.0))[""]
            while (task := (happen("ask"), work.next())[1]) is not None:
                run_task(plan, task, trainable, lambda row: None)
                happen(f"tell {task.trial}")
                work.ended(task)
                tick()

        monkeypatch.setattr(session, "run_on_ray", here)
        request = Request("mine.yaml", {}, str(storage), "data", "s", concurrent=1, resume=resume)
        with warnings.catch_warnings():
            # A database that goes read-only under SQLAlchemy leaves a connection that the collector closes.
            warnings.simplefilter("ignore", ResourceWarning)
            return tune(request)

    return run


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    return searching(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What the search finds on a disk that stays well."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        whole = Stages(folder / "storage", lambda now: None)
        searching(folder, patch)(folder / "storage", whole.happen, whole)
    return _table(folder / "storage")


def _table(storage: Path) -> list[Any]:
    rows = [read_json(path) for path in sorted((storage / "studies" / "s").glob("*/*/record.json"))]
    kept = ("trial", "kind", "state", "params", "scores", "metrics")
    own = [row for row in rows if row and row["kind"] != "stage"]  # what is trained for a stage is stored by no fake
    return [{key: row[key] for key in kept} | {"seeds": len(row["per_seed"])} for row in own]


def _results(storage: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in storage.rglob("seed-*/result.json")}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("kind", FAULTS)
def test_it_ends_in_one_line_and_a_resume_finishes_with_nothing_lost(
    kind: str, moment: str, disk: Disk, search: Any, undisturbed: list[Any]
) -> None:
    storage, (which, count), seen = disk.place / "storage", MOMENTS[moment], []

    def happen(now: str) -> None:
        if now.startswith(which):
            seen.append(now)
            if len(seen) == count:
                disk.fault(kind)

    with pytest.raises(StorageError) as told:
        search(storage, happen, Stages(storage, happen))
    line, code = str(told.value), told.value.exit_code
    del told  # with it go the files that its frames hold open
    gc.collect()
    assert code == 2 and "\n" not in line
    assert os.strerror(FAULTS[kind]) in line or "disk is full" in line or "database" in line, line
    assert str(storage) in line and " -m raymc.tune " in line and "mine.yaml --name s --resume" in line

    disk.mend(kind)
    kept = _results(storage)
    again = Stages(storage, lambda now: None)
    result = search(storage, again.happen, again, resume=True)
    assert result["trials"] == {"finished": 4, "pruned": 0, "failed": 0}
    assert kept.items() <= _results(storage).items(), "a finished seed was run again"
    assert _table(storage) == undisturbed
    with closing(sqlite3.connect(storage / "studies" / "s" / "optuna.db")) as database:
        rows = database.execute("select number, state from trials order by number").fetchall()
    assert rows == [(number, "COMPLETE") for number in range(4)]
    if kind == "full":
        assert not list(storage.rglob("*.tmp")), "what did not fit is left half written"


@pytest.mark.slow
@pytest.mark.timeout(4 * PATIENCE)
def test_a_real_search_outlives_a_full_disk(tmp_path: Path, big: Disk) -> None:
    with short_folder() as temporary:
        search = Search(big.place, "struck", TRIALS, temporary)
        row = in_the_middle("full", big, search, (), 1.0)
    assert row["finished_seeds"] >= 1 and search.points()
