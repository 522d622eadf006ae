"""What `studies clean` takes from a store: all that no study needs, and nothing else."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from raymc.cli import execute
from raymc.commands import studies
from raymc.storage.cleaning import Plan, clean, plan_cleaning
from raymc.storage.stage_store import Store
from raymc.study.abandoned import abandoned_folders, remove_folders
from raymc.study.events import EVENTS, EventLog
from raymc.study.inventory import running
from raymc.study.needs import CurrentNeeds, needs_of_storage

OLD = time.time() - 90 * 86400


def key(number: int) -> str:
    return f"{number:032x}"


USED, BANK, GOING, LEFT, OTHER, OTHER_BANK, HELD, YOUNG = map(key, range(8))


def age(*paths: Path) -> None:
    for path in paths:
        for one in (path, *path.rglob("*")):
            os.utime(one, (OLD, OLD))


def seed_files(folder: Path, *events: dict[str, object], state: str | None = None, record: str | None = None) -> None:
    """What a training leaves: its events, its result where it has ended, and its trial's record."""
    log = EventLog(folder / EVENTS)
    for event in events:
        log.append(event)
    log.close()
    if state:
        (folder / "result.json").write_text(json.dumps({"seed": 0, "state": state, "stages": []}))
    if record:
        (folder.parent / "record.json").write_text(json.dumps({"trial": 0, "state": record}))


def begin(stage: str, reads: str = "") -> dict[str, object]:
    return {"event": "stage_begin", "stage": "heads", "key": stage, "reads": reads}


def end(stage: str) -> dict[str, object]:
    return {"event": "stage", "name": "heads", "key": stage, "cached": False}


@pytest.fixture
def storage(tmp_path: Path) -> str:
    """A store with what one study uses, what an interrupted one goes on from, and what nobody needs."""
    store = Store(str(tmp_path))
    tensors = {"x": torch.arange(8)}
    for name in (USED, OTHER, HELD, YOUNG):
        store.save(name, tensors, {})
    for name in (BANK, OTHER_BANK):
        store.save(name, tensors, {}, "view0")
    for name in (GOING, LEFT, USED):
        store.save(name, tensors, {}, "epoch")
    stages = tmp_path / "stages"
    (stages / key(99)).mkdir()
    for foreign in ("notes.txt", f"{OTHER}/mine.txt", f"{key(99)}/README.md"):
        (stages / foreign).write_text("a user's own")
    for torn in (f"{USED}/result-{'0' * 16}.pt", f"{USED}/.result.json.{'a' * 32}.tmp", f".{'b' * 32}"):
        (stages / torn).write_bytes(b"torn")
    done, going = tmp_path / "studies/a/trials/0000", tmp_path / "stability/b/runs/0000"
    seed_files(done / "seed-0", begin(USED, BANK), end(USED), state="finished", record="finished")
    seed_files(done.parent / "0001/seed-0", begin(USED, BANK), end(USED), begin(LEFT, BANK), record="pruned")
    seed_files(going / "seed-3", begin(GOING), record="running")
    age(stages)
    store.save(YOUNG, tensors, {})
    return str(tmp_path)


def cleaned(storage: str, older: float | None = 0.0) -> Plan:
    needs = CurrentNeeds(storage)
    return clean(storage, plan_cleaning(storage, needs(), older), needs)


def files(storage: str) -> set[str]:
    return {path.relative_to(storage).as_posix() for path in Path(storage).rglob("*") if path.is_file()}


def test_clean_takes_what_no_study_needs_and_nothing_else(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raymc.storage.cleaning.STALE_SECONDS", 0.0)
    before, store = files(storage), Store(storage)
    with_needs, silent = needs_of_storage(storage)
    assert with_needs.results == {USED, BANK} and with_needs.checkpoints == {GOING} and silent == []
    plan = plan_cleaning(storage, with_needs, older=86400.0)
    assert files(storage) == before, "a plan touches nothing"
    lease = store.lease(HELD)
    assert lease.try_acquire()
    with lease:
        done = clean(storage, plan, lambda: with_needs)
    assert done.at_work == {HELD} and plan.young == {YOUNG}
    found = {kind: {item.key for item in done.items if item.kind == kind} for kind in ("results", "banks", "torn")}
    assert found == {"results": {OTHER}, "banks": {OTHER_BANK}, "torn": {USED, ""}}
    assert {item.key for item in done.items if item.kind == "checkpoints"} == {LEFT, USED}
    assert done.bytes == sum(item.bytes for item in done.items) > 0
    for name, entry in ((USED, "result"), (BANK, "view0"), (GOING, "epoch"), (HELD, "result"), (YOUNG, "result")):
        assert store.load(name, entry) is not None
    foreign = {"stages/notes.txt", f"stages/{OTHER}/mine.txt", f"stages/{key(99)}/README.md"}
    gone = before - files(storage)
    assert not gone & foreign and all(name.startswith("stages/") for name in gone)
    assert not (Path(storage) / "stages" / OTHER_BANK).exists(), "an empty folder goes too"
    again = cleaned(storage, older=86400.0)
    assert {item.key for item in again.items} == {HELD}, "once its lease is given back it goes"
    assert cleaned(storage, older=86400.0).items == [] and {i.key for i in cleaned(storage).items} == {YOUNG}


def test_features_of_a_study_that_has_not_begun_are_needed(storage: str) -> None:
    for place, facts in (
        ("studies/new/study.json", {"data": {"stored": [OTHER_BANK]}}),
        ("stability/new/stability.json", {"manifest": {"data": {"stored": [OTHER]}}}),
        ("tables/gcml1/gcml/usps/x/cell.json", {"data": {"stored": [HELD]}}),
    ):
        path = Path(storage, place)
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(facts))
    assert needs_of_storage(storage)[0].results == {USED, BANK, OTHER_BANK, OTHER, HELD}


def test_what_an_earlier_version_does_not_say_keeps_everything_it_could_use(storage: str) -> None:
    folder = Path(storage, "studies/old/trials/0000/seed-0")
    seed_files(folder, {"event": "epoch", "stage": "heads", "epoch": 1}, record="running")
    needs, silent = needs_of_storage(storage)
    assert needs.every_bank and needs.every_checkpoint and silent == ["old"]
    plan = plan_cleaning(storage, needs, 0.0)
    assert {item.key for item in plan.items if item.kind in ("results", "banks")} == {OTHER, HELD, YOUNG}
    assert {item.key for item in plan.items if item.kind == "checkpoints"} == {USED}, "the one with a result"


def test_the_lease_of_one_who_died_elsewhere_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raymc.storage.cleaning.STALE_SECONDS", 0.0)
    monkeypatch.setattr("raymc.storage.lease.STALE_SECONDS", 0.5)
    held = tmp_path / "stages" / USED / "held"
    held.mkdir(parents=True)
    (held / f"{'c' * 32}.elsewhere.1").write_bytes(b"7")
    assert plan_cleaning(str(tmp_path), needs_of_storage(str(tmp_path))[0]).at_work == {USED}
    age(tmp_path / "stages")
    assert [item.kind for item in cleaned(str(tmp_path)).items] == ["torn"]
    assert not (tmp_path / "stages" / USED).exists()


def test_what_was_begun_since_the_plan_keeps_what_it_needs(storage: str) -> None:
    needs = CurrentNeeds(storage)
    plan = plan_cleaning(storage, needs(), 0.0)
    assert {OTHER, OTHER_BANK, HELD} <= {item.key for item in plan.items}
    Store(storage).save(HELD, {"x": torch.arange(9)}, {})  # computed anew while nobody answered
    begun = Path(storage, "studies/new/trials/0000/seed-0")
    seed_files(begun, begin(OTHER, OTHER_BANK), end(OTHER), record="running")
    (begun.parents[2] / "study.json").write_text("{}")
    done = clean(storage, plan, needs)
    assert {OTHER, OTHER_BANK, HELD}.isdisjoint(item.key for item in done.items)
    assert {LEFT, USED} <= {item.key for item in done.items}, "the rest goes"
    for name, entry in ((OTHER, "result"), (OTHER_BANK, "view0"), (HELD, "result")):
        assert Store(storage).load(name, entry) is not None


def test_unless_it_is_asked_for_nothing_young_goes(storage: str) -> None:
    """What `train` was interrupted at is gone on with in the next days, and no study knows of it."""
    alone, store = key(50), Store(storage)
    store.save(alone, {"x": torch.arange(8)}, {}, "epoch")
    store.save(LEFT, {"x": torch.arange(8)}, {}, "epoch")
    store.save(OTHER_BANK, {"x": torch.arange(8)}, {}, "view1")  # of a training that is about to read it
    plan = plan_cleaning(storage, needs_of_storage(storage)[0])
    assert {alone, LEFT, OTHER_BANK, YOUNG} <= plan.young
    assert not {alone, LEFT, OTHER_BANK, YOUNG} & {item.key for item in plan.items}
    two_hours = time.time() - 7200
    for folder in (alone, LEFT):
        for path in Path(storage, "stages", folder).iterdir():
            os.utime(path, (two_hours, two_hours))
    items = {item.key for item in plan_cleaning(storage, needs_of_storage(storage)[0]).items}
    assert LEFT in items and alone not in items, "that of a trial that was stopped goes"
    assert alone in {item.key for item in plan_cleaning(storage, needs_of_storage(storage)[0], 3600.0).items}
    age(Path(storage, "stages", alone))
    assert alone in {item.key for item in plan_cleaning(storage, needs_of_storage(storage)[0]).items}


def test_after_the_answer_it_is_looked_again(
    storage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever is asked may answer tomorrow: by then a study has begun, and a table is being filled."""
    cell = Path(storage, "tables/t/gcml/usps/0123")
    cell.mkdir(parents=True)
    lock = FileLock(cell / "driver.lock")

    def answered_late(*_: object) -> bool:
        begun = Path(storage, "studies/new/trials/0000/seed-0")
        seed_files(begun, begin(OTHER, OTHER_BANK), record="running")
        lock.acquire()
        return True

    monkeypatch.setattr(studies, "_agreed", answered_late)
    words = ["clean", "--older", "0s", "--storage", storage, "--json"]
    assert execute(studies.parser(), studies.run, words) == 0
    lock.release()
    done = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert Store(storage).load(OTHER_BANK, "view0") and Store(storage).load(YOUNG), "the table may read it"
    assert done["cleaned"] and Store(storage).load(HELD) is None
    lock.acquire()
    assert running(storage) == ["t"]


def test_a_study_that_was_only_half_made_is_abandoned_after_an_hour(tmp_path: Path) -> None:
    old, new, real = (tmp_path / "studies" / name for name in (f".s.{'a' * 32}.tmp", f".t.{'b' * 32}.tmp", "u"))
    for folder in (old, new, real):
        folder.mkdir(parents=True)
        (folder / "study.json").write_text("{}")
    age(old, real)
    assert [folder for folder, _ in abandoned_folders(str(tmp_path))] == [old]
    remove_folders(abandoned_folders(str(tmp_path)))
    assert not old.exists() and new.exists() and real.exists()


@pytest.mark.parametrize("make", [lambda p: p / "nothing", lambda p: p])
def test_a_storage_without_stages_has_nothing_to_clean(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    plan = plan_cleaning(str(make(tmp_path)), needs_of_storage(str(make(tmp_path)))[0])
    assert plan.items == [] and plan.bytes == 0
