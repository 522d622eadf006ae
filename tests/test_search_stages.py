"""Stages that several trials need: trained once, before them, and never on a GPU that a waiting trial holds."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from raymc.datasets import Dataset
from raymc.errors import InputError, TrainingError
from raymc.execution.live import Board
from raymc.execution.needs import Needs, needs_of
from raymc.execution.searcher import TaskSearcher
from raymc.execution.train_seed import TrainSeed
from raymc.execution.trial import Plan, run_task
from raymc.space.shared import shared_stages
from raymc.space.space import Space, make_space
from raymc.study import files
from raymc.study.manifest import load_data
from raymc.study.objective import Objective
from raymc.study.records import BEGUN, FINISHED, PLACED, UNFIT, Record, Task
from raymc.study.stage_keys import Needed, StageKeys
from raymc.study.stage_queue import StageQueue
from tests.search_fakes import FakeTrainable, make_queue, new_study

ACC = Objective("acc")


def pretrain(task: Task, common: bool = True) -> list[list[Needed]]:
    """Stage `pretrain` of each seed; of a trial with many epochs also the stage after it."""
    names = [("pretrain", "p"), *([("heads", "h")] if task.params.get("heads.epochs", 0) > 3 else [])]
    return [[Needed(name, f"{key}{seed}", {}, seed, common) for name, key in names] for seed in task.seeds]


class Slots:
    """Runs a queue's tasks as Tune does: `count` at a time, `end` says which of the running ones ends."""

    def __init__(self, queue: StageQueue, folder: Path, count: int, trainable: FakeTrainable | None = None) -> None:
        self.queue, self.count, self.plan = queue, count, Plan(folder, ACC)
        self.trainable = trainable or FakeTrainable()
        self.running: list[Task] = []
        self.begun: list[Task] = []
        queue.ahead = count

    def fill(self) -> list[str]:
        """Begin what can; the names of the tasks that run."""
        while len(self.running) < self.count and (task := self.queue.next()) is not None:
            self.running.append(task)
            self.begun.append(task)
        return [task.name for task in self.running]

    def end(self, which: int = 0) -> Record:
        task = self.running.pop(which)
        run_task(self.plan, task, self.trainable, lambda row: self.queue.on_report(task, row))
        return self.queue.ended(task)

    def lose(self, error: str) -> Record:
        return self.queue.ended(self.running.pop(0), error)

    def through(self) -> None:
        while self.fill():
            assert len(self.running) <= self.count
            self.end()
        assert self.queue.left == 0


def stages(folder: Path, work: Any, **changes: Any) -> StageQueue:
    settings: dict[str, Any] = {"needs": pretrain, "stored": lambda key: False} | changes
    return StageQueue(work, lambda task: folder, ACC, **settings)


@pytest.mark.parametrize("count", [1, 3, 16])
def test_a_shared_stage_is_trained_once_and_the_search_is_the_same(tmp_path: Path, count: int) -> None:
    alone, with_stages = make_queue(tmp_path / "a", new_study()), make_queue(tmp_path / "b", new_study())
    plain = Slots(stages(tmp_path / "a", alone, needs=lambda task: []), tmp_path / "a", count)
    plain.through()
    slots = Slots(stages(tmp_path / "b", with_stages), tmp_path / "b", count)
    first = slots.fill()
    assert first == ["stage pretrain 0", "stage pretrain 1"][:count], "a trial waits for both seeds, and holds nothing"
    slots.through()
    assert all(task.group == (task.seeds[0],) for task in slots.begun if task.stage)
    keys = [(task.stage, task.seeds[0]) for task in slots.begun if task.stage]
    assert len(keys) == len(set(keys)) and {("pretrain", seed) for seed in (0, 1, 1000, 1001)} <= set(keys)
    if count == 1:  # then it is the same draw for draw
        assert [task for task in slots.begun if not task.stage] == plain.begun
    assert with_stages.counts() == alone.counts() == {"finished": 5, "pruned": 0, "failed": 0}
    for number, (stage, seed) in enumerate(keys):
        record = files.read_record(tmp_path / "b", "stage", number)
        assert record is not None and (record.state, record.seeds[0].seed) == (FINISHED, seed)
        assert slots.trainable.stages.count(stage) == [name for name, _ in keys].count(stage)


def test_what_is_stored_is_not_trained(tmp_path: Path) -> None:
    slots = Slots(stages(tmp_path, make_queue(tmp_path, new_study()), stored=lambda key: True), tmp_path, 4)
    slots.through()
    assert not any(task.stage for task in slots.begun) and not (tmp_path / "stages").exists()


class Handed:
    """A queue of tasks that are given, whose ends are noted."""

    def __init__(self, *params: dict[str, Any]) -> None:
        self.tasks = [Task("stability", i, one, (0,), (0,)) for i, one in enumerate(params)]
        self.ends: list[int] = []

    def next(self) -> Task | None:
        return self.tasks.pop(0) if self.tasks else None

    def on_report(self, task: Task, row: Mapping[str, Any]) -> None:
        assert not task.stage

    def ended(self, task: Task, error: str | None = None) -> Record:
        self.ends.append(task.trial)
        return Record.of({"trial": task.trial, "state": FINISHED}, Path(), task.kind)

    @property
    def left(self) -> int:
        return len(self.tasks)


def by_letter(task: Task) -> list[list[Needed]]:
    """Stages named by the letters of a task, in that order; the same letter is the same stage."""
    return [[Needed("pretrain", key, {}, 0, False) for key in task.params["needs"]]]


def test_tasks_that_wait_for_nothing_go_on(tmp_path: Path) -> None:
    work = Handed({"needs": "a"}, {"needs": ""}, {"needs": "a"}, {"needs": "bc"}, {"needs": ""})
    slots = Slots(stages(tmp_path, work, needs=by_letter), tmp_path, 5)
    assert slots.fill() == ["stage pretrain 0", "seed 0", "stage pretrain 1", "seed 0"]
    slots.end(2)  # b is there, and c can begin; the trial that needs both still waits
    assert slots.fill() == ["stage pretrain 0", "seed 0", "seed 0", "stage pretrain 2"]
    slots.through()
    assert sorted(work.ends) == [0, 1, 2, 3, 4]


def test_nothing_takes_the_place_that_a_stage_waits_for(tmp_path: Path) -> None:
    """Until it reports that it has it; quarters of GPUs would else be taken as they become free."""
    work = Handed({"needs": "a"}, {"needs": ""}, {"needs": ""})
    slots = Slots(stages(tmp_path, work, needs=by_letter, own=frozenset(["pretrain"])), tmp_path, 3)
    assert slots.fill() == slots.fill() == ["stage pretrain 0"]
    slots.queue.on_report(slots.running[0], {"state": "running"})
    assert slots.fill() == ["stage pretrain 0", "seed 0", "seed 0"]


def test_a_lost_stage_that_all_need_ends_the_search_and_is_charged_to_no_trial(tmp_path: Path) -> None:
    study = new_study()
    slots = Slots(stages(tmp_path, make_queue(tmp_path, study)), tmp_path, 4)
    slots.fill()
    with pytest.raises(TrainingError, match=r"^stage pretrain, which all trials need, failed: the machine burnt$"):
        slots.lose("the machine burnt")
    assert make_queue(tmp_path, study).counts() == {"finished": 0, "pruned": 0, "failed": 0}
    again = Slots(stages(tmp_path, make_queue(tmp_path, study)), tmp_path, 4)
    again.through()
    assert make_queue(tmp_path, study).counts() == {"finished": 5, "pruned": 0, "failed": 0}
    assert [task.trial for task in again.begun if task.stage][:2] == [1, 2], "what was lost keeps its record"


def test_a_lost_stage_that_some_need_leaves_each_of_them_to_its_own_end(tmp_path: Path) -> None:
    work = Handed({"needs": "a"}, {"needs": "a"})
    slots = Slots(stages(tmp_path, work, needs=by_letter), tmp_path, 2)
    slots.fill()
    assert slots.lose("gone").error == "gone"
    assert slots.fill() == ["seed 0", "seed 0"], "they train it themselves, and end as that does"


@pytest.mark.parametrize(
    ("space", "trials", "found"),
    [
        ({"heads.weight_decay": {"low": 1e-4, "high": 1.0}}, 4, {"pretrain": 0}),
        ({"finetune.epochs": [1, 100]}, 4, {"pretrain": 0, "heads": 0}),
        ({"finetune.epochs": [1, 100]}, 1, {}),
        ({"pretrain.epochs": [5, 600], "heads.weight_decay": {"low": 1e-4, "high": 0.1}}, 3, {"pretrain": 1}),
        ({"pretrain.epochs": [5, 600], "heads.epochs": [5, 100]}, 4, {"pretrain": 1}),
        ({"pretrain.epochs": [5, 600], "heads.epochs": [5, 100]}, 5, {"pretrain": 1, "heads": 2}),
        ({"pretrain.weight_decay": {"low": 1e-5, "high": 0.1}}, 99, {}),
        ({"feature_dim": [64, 128]}, 2, {}),
        ({"clustering": ["head", "ensc"]}, 4, {"pretrain": 0, "heads": 1}),
    ],
)
def test_a_stage_is_shared_where_there_are_fewer_than_trials(
    space: dict[str, Any], trials: int, found: dict[str, int]
) -> None:
    content = {"method": "nmce", "dataset": "cifar20", "space": space}
    shared = shared_stages(make_space(Path("s.yaml"), content), trials)
    assert {one.name: len(one.keys) for one in shared} == found
    own = make_space(Path("s.yaml"), content | {"resources": {"pretrain": {"workers": 2}}})
    assert "pretrain" in [one.name for one in shared_stages(own, trials)], "one with resources of its own always is"


@pytest.fixture
def digits() -> Space:
    content = {
        "method": "nmce",
        "dataset": "digits",
        "space": {"heads.weight_decay": {"low": 1e-5, "high": 1e-2, "log": True}, "pretrain.batch_size": [128, 256]},
        "resources": {"pretrain": {"workers": 1, "cpus_per_worker": 2}},
    }
    return make_space(Path("s.yaml"), content)


def test_the_driver_knows_the_key_under_which_the_stage_is_stored(tmp_path: Path, digits: Space) -> None:
    manifest = {"seed": 0, "seeds_from": "pretrain", "smoke": True}
    loads: list[int] = []

    def load(params: Mapping[str, Any]) -> Dataset:
        loads.append(1)
        return load_data(digits, "", str(tmp_path), True, params)

    keys = StageKeys(digits, manifest, shared_stages(digits, 4), load)
    params = {"heads.weight_decay": 1e-3, "pretrain.batch_size": 128}
    task = Task("search", 0, params, (0, 1), (0, 1))
    (first,), (second,) = keys(task)
    assert first.key != second.key and first.params == {"pretrain.batch_size": 128} and not first.common
    other = Task("search", 1, params | {"heads.weight_decay": 1e-4}, (1,), (1,))
    assert keys(other) == [[second]] and len(loads) == 1
    training = TrainSeed(digits, str(tmp_path), "", 0, "pretrain", smoke=True)
    stage = training.stage("pretrain", first.params, 0, tmp_path / "stage", lambda row: None)
    assert [(one["name"], one["key"], one["cached"]) for one in stage["stages"]] == [("pretrain", first.key, False)]
    assert not (tmp_path / "stage").exists(), "it leaves nothing but its result"
    trial = training(params, 0, tmp_path / "trial", lambda row: None)
    assert [one["name"] for one in trial["stages"] if one["cached"]] == ["pretrain"]
    assert trial["stages"][0]["key"] == first.key


def test_what_a_stage_takes_is_a_trials_where_it_is_left_out(digits: Space) -> None:
    content = dict(digits.content)
    content["resources"] = {"gpus_per_worker": 0.25, "cpus_per_worker": 2, "pretrain": {"workers": 4}}
    needs = needs_of(make_space(Path("s.yaml"), content))
    assert dict(needs.stages) == {"pretrain": Needs(4, 0.25, 2.0)} and needs.several and not needs_of(digits).several


def own_resources(space: dict[str, Any]) -> Space:
    return make_space(Path("s.yaml"), {"method": "nmce", "dataset": "cifar20", "resources": space})


@pytest.mark.parametrize(
    ("resources", "told"),
    [
        ({"pretrian": {"workers": 2}}, "resources.pretrian: unknown; did you mean pretrain? (known: pretrain, heads)"),
        ({"finetune": {"workers": 2}}, "resources.finetune: it is the last one, which every trial trains (known: "),
        ({"pretrain": 4}, "resources: unknown key pretrain; what a stage takes is a mapping"),
        ({"gpu_per_worker": 1}, "resources: unknown key gpu_per_worker; did you mean gpus_per_worker?"),
        ({"pretrain": {"gpus": 1}}, "resources.pretrain: unknown key gpus"),
        ({"pretrain": {"workers": 0}}, "resources.pretrain.workers: 0 is below 1"),
        ({"pretrain": {"workers": 2, "min_workers": 3}}, "resources.pretrain: min_workers 3 is above workers 2"),
        ({"pretrain": {"cpus_per_worker": "2"}}, "resources.pretrain.cpus_per_worker: '2' is a text, not a number"),
        ({"pretrain": {"gpus_per_worker": -1}}, "resources.pretrain.gpus_per_worker: -1 is below 0"),
        ({"pretrain": {"gpus_per_worker": 1}}, "resources.pretrain.gpus_per_worker 1, and trials have 0: under "),
    ],
)
def test_a_bad_section_of_resources_is_told_in_one_line(resources: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError) as error:
        own_resources(resources)
    assert str(error.value).startswith(told) and "\n" not in str(error.value)


def test_a_machine_fails_a_stage_as_it_fails_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot train is kept out, a lost one costs nothing, and what fails on one that lives on is counted."""
    monkeypatch.setattr("raymc.execution.searcher.alive_nodes", lambda: {"sick": {"CPU": 1.0}, "well": {"CPU": 1.0}})
    dead = {"before"}
    monkeypatch.setattr("raymc.execution.searcher.dead_nodes", lambda: set(dead))
    monkeypatch.setattr("raymc.execution.failures.LIMIT", 1)
    queue = stages(tmp_path, make_queue(tmp_path, new_study()), own=frozenset(["pretrain"]))
    queue.ahead = 2
    board = Board("test", "acc", queue.left, stream=io.StringIO())
    search = TaskSearcher(queue, board, {"": tmp_path}, lambda nodes, stage: bool(nodes), 0.0)
    first = search.suggest("0")
    assert first["task"]["stage"] == "pretrain" and first["nodes"] == ""
    search.on_trial_result("0", {"state": PLACED, "node": "sick"})
    assert search.suggest("other") is None, "its process has begun, and its workers may still wait for their place"
    search.on_trial_result("0", {"state": UNFIT, "node": "sick", "machine": "here", "error": "no data there"})
    search.on_trial_complete("0")
    nodes = ("gone", "lost", None, None, None, "well", "well")
    for number, node in enumerate(nodes, 1):
        assert search.stages and search.unable is None
        assert search.suggest(str(number)) == {"task": first["task"], "nodes": "!in(sick)"}
        if node is None:  # its machine was lost before it began: Ray cancels it
            dead.add(f"lost {number}")
        else:
            search.on_trial_result(str(number), {"state": BEGUN, "node": node})
        search.failed(str(number), None, "died")
    with pytest.raises(TrainingError, match="^stage pretrain, which all trials need, failed: .* again and again: died"):
        search.suggest("last")
