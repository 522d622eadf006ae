"""What one trial does: done seeds stay done, reports carry what the scheduler needs, a stop unwinds cleanly."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raymc.errors import InputError, StorageError
from raymc.execution.trial import Plan, run_task
from raymc.study import files
from raymc.study.events import read_events
from raymc.study.objective import Objective
from raymc.study.records import Resources, Task, task_of, task_row
from tests.search_fakes import FIRST, FakeTrainable, accuracy

SEARCH = Task("search", 7, FIRST, (3, 4, 5), (3, 4, 5))


def _run(folder: Path, trainable: Any, fidelity: str = "none", task: Task = SEARCH) -> tuple[Any, list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    return run_task(Plan(folder, Objective("acc"), fidelity), task, trainable, rows.append), rows


def test_a_task_leaves_results_and_a_record_and_reports_them(tmp_path: Path) -> None:
    record, rows = _run(tmp_path, FakeTrainable())
    expected = [accuracy(FIRST, seed) for seed in (3, 4, 5)]
    assert record.state == "finished" and record.score == pytest.approx(sum(expected) / 3)
    kept = json.loads((tmp_path / "trials/0007/record.json").read_text())
    assert record.row == kept and record == files.read_record(tmp_path, "search", 7)
    assert set(kept) >= {"trial", "kind", "state", "params", "score", "metrics", "per_seed", "started", "seconds"}
    assert set(kept) >= {"error", "run_id"} and record.metrics["nmi"] == 0.5
    assert [run.metrics["acc"] for run in record.seeds] == expected
    assert rows[-1] == {"state": "finished", "score": record.score, "seeds_done": 3, "seconds": record.seconds}
    assert all(row["state"] == "running" and "resource" not in row for row in rows[:-1])


def test_a_result_says_what_its_training_had_and_a_mean_where_workers_came_and_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("raymc.execution.trial.time", SimpleNamespace(monotonic=lambda: next(clock)))

    class Elastic(FakeTrainable):
        def __call__(self, params: Mapping[str, Any], seed: int, out: Path, report: Any) -> dict[str, Any]:
            for workers in {3: (4, 2), 4: (2,), 5: ()}[seed]:
                report({"event": "other", "workers": workers})
            return super().__call__(params, seed, out, report)

    plan = Plan(tmp_path, Objective("acc"), resources=Resources(4, 0.5, 0.25))
    record = run_task(plan, SEARCH, Elastic(), lambda row: None)
    assert [run.resources for run in record.seeds] == [Resources(n, 0.5, 0.25) for n in (3, 2, 4)]
    kept = json.loads((tmp_path / "trials/0007/seed-3/result.json").read_text())
    assert kept["resources"] == {"workers": 3, "cpus_per_worker": 0.5, "gpus_per_worker": 0.25}


def test_the_record_of_a_running_trial_says_so(tmp_path: Path) -> None:
    seen = []

    def before(params: Mapping[str, Any], seed: int, epoch: int) -> None:
        seen.append(files.read_record(tmp_path, "search", 7))

    _run(tmp_path, FakeTrainable(before))
    assert {record.state for record in seen if record} == {"running"}
    assert [len(record.seeds) for record in seen if record] == [0] * 3 + [1] * 3 + [2] * 3


def test_seeds_with_a_result_are_not_run_again(tmp_path: Path) -> None:
    _run(tmp_path, FakeTrainable())
    (files.seed_folder(tmp_path, "search", 7, 4) / "result.json").write_text('{"seed": 4, "sta')
    (files.seed_folder(tmp_path, "search", 7, 5) / "result.json").unlink()
    trainable = FakeTrainable()
    record, _ = _run(tmp_path, trainable)
    assert [seed for _, seed in trainable.calls] == [4, 5]
    assert [run.seed for run in record.seeds] == [3, 4, 5]


def test_with_fidelity_seeds_the_running_mean_is_reported_after_each(tmp_path: Path) -> None:
    _, rows = _run(tmp_path, FakeTrainable(), "seeds")
    judged = [(row["resource"], row["running"]) for row in rows if "resource" in row]
    values = [accuracy(FIRST, seed) for seed in (3, 4)]
    assert judged == [(1, values[0]), (2, pytest.approx(sum(values) / 2))]
    assert "running" not in rows[-1], "the end of a trial is no rung"


def test_with_fidelity_epochs_the_resource_grows_over_stages_and_seeds(tmp_path: Path) -> None:
    _, rows = _run(tmp_path, FakeTrainable(), "epochs")
    judged = [row["resource"] for row in rows if "resource" in row]
    assert judged == list(range(1, 10)), "three seeds of three epochs, each once"

    class TwoStages(FakeTrainable):
        def epochs(self, params: Mapping[str, Any]) -> dict[str, int]:
            return {"before": 10, "heads": 3}

    _, rows = _run(tmp_path / "two", TwoStages(), "epochs")
    judged = [row["resource"] for row in rows if "resource" in row]
    assert judged == [11, 12, 13, 24, 25, 26, 37, 38, 39]


def test_a_stop_unwinds_the_training_and_is_recorded(tmp_path: Path) -> None:
    left = []

    class Careful(FakeTrainable):
        def __call__(self, *args: Any) -> dict[str, Any]:
            try:
                return super().__call__(*args)
            finally:
                left.append(args[1])  # as a lease is given back

    rows: list[dict[str, Any]] = []

    def report(row: dict[str, Any]) -> None:
        rows.append(row)
        if row.get("resource") == 5:
            files.stop_mark(tmp_path, 7).write_text("{}")

    record = run_task(Plan(tmp_path, Objective("acc"), "epochs"), SEARCH, Careful(), report)
    assert record.state == "pruned" and record.score is None and left == [3, 4]
    assert [run.seed for run in record.seeds] == [3], "the seed that was stopped has no result"
    assert rows[-1]["state"] == "pruned" and "resource" not in rows[-1]
    assert read_events(tmp_path / "trials/0007/seed-4/events.jsonl")[-1]["epoch"] == 2, "what it reported stays"


def test_only_trials_of_the_search_are_stopped(tmp_path: Path) -> None:
    task = Task("confirm", 7, FIRST, (1000,), (1000,))
    files.stop_mark(tmp_path, 7).parent.mkdir(parents=True)
    files.stop_mark(tmp_path, 7).write_text("{}")
    record, rows = _run(tmp_path, FakeTrainable(), "epochs", task)
    assert record.state == "finished" and not [row for row in rows if "resource" in row]


def test_a_fault_keeps_its_trace_and_a_user_s_mistake_its_line(tmp_path: Path) -> None:
    def fault(*_: Any) -> None:
        raise ZeroDivisionError("oh")

    record, _ = _run(tmp_path / "a", FakeTrainable(fault))
    assert record.error.startswith("Traceback") and record.error.endswith("ZeroDivisionError: oh")

    def mistake(*_: Any) -> None:
        raise InputError("no such file")

    record, _ = _run(tmp_path / "b", FakeTrainable(mistake))
    assert record.error == "no such file" and record.state == "failed"


def test_what_a_training_reports_is_beside_its_result(tmp_path: Path) -> None:
    _run(tmp_path, FakeTrainable())
    events = read_events(tmp_path / "trials/0007/seed-3/events.jsonl")
    assert [event["event"] for event in events] == ["begin", *["epoch"] * 3, "stage", "done"]
    assert [event["loss"] for event in events[1:4]] == [1, 1 / 2, 1 / 3]


def test_a_task_travels_as_plain_types() -> None:
    assert task_of(json.loads(json.dumps(task_row(SEARCH)))) == SEARCH
    assert SEARCH.name == "trial 7" and Task("confirm", 1, {}, (9,), (8, 9)).name == "confirm 1 seed 9"
    assert Task("stability", 0, {}, (9,), (8, 9)).name == "seed 9"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), StorageError("storage: full")])
def test_a_full_disk_is_no_end_of_a_trial(tmp_path: Path, error: Exception) -> None:
    def before(params: Mapping[str, Any], seed: int, epoch: int) -> None:
        if seed == 4:
            raise error

    with pytest.raises(StorageError, match="No space left|full") as told:
        _run(tmp_path, FakeTrainable(before))
    assert str(tmp_path) in str(told.value) or told.value is error
    assert not (tmp_path / "trials/0007/seed-4/result.json").exists()
    assert json.loads((tmp_path / "trials/0007/record.json").read_text())["state"] == "running"
    trainable = FakeTrainable()
    record, _ = _run(tmp_path, trainable)
    assert record.state == "finished" and [seed for _, seed in trainable.ended] == [4, 5]


def test_a_result_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    _run(tmp_path, FakeTrainable())
    path = files.seed_folder(tmp_path, "search", 7, 4) / "result.json"
    path.unlink()
    path.mkdir()  # as good as a file that may not be read, also for root
    trainable = FakeTrainable()
    with pytest.raises(IsADirectoryError):
        _run(tmp_path, trainable)
    assert trainable.calls == []
