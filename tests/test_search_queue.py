"""The search's bookkeeping, without Ray: every trial once, in a named state, under one number, killed at any moment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from raymc.errors import CollapsedError, DeviceMemoryError, DivergedError
from raymc.study import files
from raymc.study.distributions import enqueue
from raymc.study.objective import Objective
from raymc.study.queue import TrialQueue
from raymc.study.seed_queue import SeedQueue
from tests.search_fakes import FIRST, SPACE, FakeTrainable, Killed, make_queue, new_study, run_here


def _states(study: optuna.Study) -> list[TrialState]:
    return [trial.state for trial in study.get_trials()]


def test_every_trial_runs_all_seeds_and_the_best_are_confirmed_on_fresh_ones(tmp_path: Path) -> None:
    study, trainable = new_study(), FakeTrainable()
    enqueue(study, [FIRST], SPACE)
    queue = make_queue(tmp_path, study)
    tasks = run_here(queue, tmp_path, trainable)
    assert [task.kind for task in tasks] == ["search"] * 5 + ["confirm"] * 4
    assert dict(tasks[0].params) == FIRST
    assert queue.counts() == {"finished": 5, "pruned": 0, "failed": 0}
    best = [trial.number for trial in queue.best(2)]
    assert [(task.trial, task.seeds) for task in tasks[5:]] == [(n, (seed,)) for seed in (1000, 1001) for n in best]
    for trial in study.get_trials():
        record = files.read_record(tmp_path, "search", trial.number)
        assert record is not None and record.state == "finished" and record.score == trial.value
        assert [run.seed for run in record.seeds] == [0, 1]
        assert record.params == trial.params
    confirmed = files.read_record(tmp_path, "confirm", best[0])
    assert confirmed is not None and confirmed.state == "finished" and confirmed.params == tasks[5].params
    assert confirmed.score == pytest.approx(sum(run.metrics["acc"] for run in confirmed.seeds) / 2)


def _killing(moment: int) -> tuple[FakeTrainable, list[int]]:
    passed = [0]

    def before(params: Mapping[str, Any], seed: int, epoch: int) -> None:
        if epoch == 2:  # in the middle of a training
            passed[0] += 1
            if passed[0] == moment:
                raise Killed

    return FakeTrainable(before), passed


def test_killed_in_the_middle_of_any_training_a_resume_runs_what_is_missing_and_nothing_else(tmp_path: Path) -> None:
    whole = new_study()
    enqueue(whole, [FIRST], SPACE)
    run_here(make_queue(tmp_path / "whole", whole, trials=3), tmp_path / "whole", FakeTrainable())
    for moment in range(1, 11):  # 3 trials of 2 seeds, then 2 of 2
        folder, study = tmp_path / str(moment), new_study()
        enqueue(study, [FIRST], SPACE)
        trainable, _ = _killing(moment)
        with pytest.raises(Killed):
            run_here(make_queue(folder, study, trials=3), folder, trainable)
        done = list(trainable.ended)
        again = FakeTrainable()
        tasks = run_here(make_queue(folder, study, trials=3), folder, again)
        assert len(done) == moment - 1 and len(again.ended) == 10 - len(done)
        assert set(done).isdisjoint(again.ended), "a finished training was run again"
        if moment <= 6:  # the interrupted trial goes on first, under its own number
            assert (tasks[0].kind, tasks[0].trial) == ("search", (moment - 1) // 2)
        assert [t.params for t in study.get_trials()] == [t.params for t in whole.get_trials()]
        assert [t.value for t in study.get_trials()] == [t.value for t in whole.get_trials()]
        assert not [path for path in folder.rglob("*.tmp")]


def test_killed_between_the_record_and_optuna_it_is_told_on_resume(tmp_path: Path, monkeypatch: Any) -> None:
    study, trainable = new_study(), FakeTrainable()

    def killed(*args: Any, **kwargs: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(study, "tell", killed)
        with pytest.raises(Killed):
            run_here(make_queue(tmp_path, study), tmp_path, trainable)
    assert _states(study) == [TrialState.RUNNING]
    again = FakeTrainable()
    tasks = run_here(make_queue(tmp_path, study), tmp_path, again)
    assert [task.trial for task in tasks if task.kind == "search"] == [1, 2, 3, 4]
    assert ("trials/0000", 0) not in again.ended


def test_killed_while_asking_the_same_parameters_come_again(tmp_path: Path, monkeypatch: Any) -> None:
    whole, study = new_study(), new_study()
    run_here(make_queue(tmp_path / "a", whole), tmp_path / "a", FakeTrainable())
    asked: list[str] = []
    suggest = optuna.trial.Trial._suggest

    def killed(self: Any, name: str, distribution: Any) -> Any:
        asked.append(name)
        if len(asked) == 8:  # the second key of the fourth trial
            raise Killed
        return suggest(self, name, distribution)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.trial.Trial, "_suggest", killed)
        with pytest.raises(Killed):
            run_here(make_queue(tmp_path / "b", study), tmp_path / "b", FakeTrainable())
    assert len(study.get_trials()[3].params) == 1
    run_here(make_queue(tmp_path / "b", study), tmp_path / "b", FakeTrainable())
    assert [t.params for t in study.get_trials()] == [t.params for t in whole.get_trials()]


def test_a_resume_with_more_trials_goes_on_as_a_longer_search_would_have(tmp_path: Path) -> None:
    short, long = new_study(), new_study()
    run_here(make_queue(tmp_path / "short", short), tmp_path / "short", FakeTrainable())
    run_here(make_queue(tmp_path / "short", short, trials=14), tmp_path / "short", FakeTrainable())
    run_here(make_queue(tmp_path / "long", long, trials=14), tmp_path / "long", FakeTrainable())
    assert [t.params for t in short.get_trials()] == [t.params for t in long.get_trials()]
    nothing = make_queue(tmp_path / "short", short, trials=14)
    assert nothing.left == 0 and nothing.next() is None


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (DivergedError("the loss is not finite"), "diverged"),
        (CollapsedError("one cluster"), "collapsed"),
        (DeviceMemoryError("no memory"), "out_of_memory"),
        (ValueError("a fault"), "failed"),
    ],
)
def test_a_trial_that_went_wrong_has_a_named_state_and_no_score(tmp_path: Path, error: Exception, state: str) -> None:
    def before(params: Mapping[str, Any], seed: int, epoch: int) -> None:
        if params["heads.epochs"] == 3:
            raise error

    study, trainable = new_study(), FakeTrainable(before)
    enqueue(study, [FIRST], SPACE)
    queue = make_queue(tmp_path, study, top=1)
    run_here(queue, tmp_path, trainable)
    record = files.read_record(tmp_path, "search", 0)
    assert record is not None and record.state == state and record.score is None and record.metrics == {}
    assert str(error) in record.error
    assert study.get_trials()[0].user_attrs["state"] == state
    assert _states(study)[0] == TrialState.FAIL and TrialState.RUNNING not in _states(study)
    assert queue.counts()["failed"] >= 1 and sum(queue.counts().values()) == 5
    assert trainable.calls.count(("0000", 1)) == 0, "a bad seed ends the trial"


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_training_without_a_finite_objective_is_a_failed_trial(tmp_path: Path, value: Any) -> None:
    class Blind(FakeTrainable):
        def __call__(self, *args: Any) -> dict[str, Any]:
            result = super().__call__(*args)
            return result | {"metrics": {"nmi": 0.5} | ({} if value is None else {"acc": value})}

    study = new_study()
    queue = make_queue(tmp_path, study, trials=2)
    tasks = run_here(queue, tmp_path, Blind())
    assert [task.kind for task in tasks] == ["search"] * 2, "nothing is there to confirm"
    assert _states(study) == [TrialState.FAIL] * 2
    record = files.read_record(tmp_path, "search", 0)
    assert record is not None and "no finite acc" in record.error and record.score is None


def test_one_bad_fresh_seed_is_named_and_leaves_no_score(tmp_path: Path) -> None:
    def before(params: Mapping[str, Any], seed: int, epoch: int) -> None:
        if seed == 1001:
            raise CollapsedError("one cluster")

    study = new_study()
    queue = make_queue(tmp_path, study, top=1, fresh=(1000, 1001, 1002))
    run_here(queue, tmp_path, FakeTrainable(before))
    record = files.read_record(tmp_path, "confirm", queue.best(1)[0].number)
    assert record is not None and record.state == "collapsed" and record.score is None
    assert [run.state for run in record.seeds] == ["finished", "collapsed", "finished"]


def test_a_lost_task_is_a_failed_trial(tmp_path: Path) -> None:
    study = new_study()
    queue = make_queue(tmp_path, study, trials=1)
    task = queue.next()
    assert task is not None and queue.next() is None, "nothing is confirmed while a trial runs"
    record = queue.ended(task, "its worker died")
    assert (record.state, record.error) == ("failed", "its worker died")
    assert _states(study) == [TrialState.FAIL] and queue.next() is None

    queue = SeedQueue(tmp_path, "stability", Objective("acc"), {0: {}}, (5, 6))
    first = queue.next()
    assert first is not None
    assert queue.ended(first).seeds[0].error == "its process was lost"


def test_minimising_confirms_the_smallest_and_ties_go_to_the_earlier(tmp_path: Path) -> None:
    study = new_study("minimize")
    queue = make_queue(tmp_path, study, trials=6, top=3, objective=Objective("acc", "min"))
    run_here(queue, tmp_path, FakeTrainable())
    values = [trial.value for trial in queue.best(6)]
    assert values == sorted(values)
    equal = new_study()
    for _ in range(3):
        equal.enqueue_trial(FIRST)
    ties = make_queue(tmp_path / "ties", equal, trials=3)
    run_here(ties, tmp_path / "ties", FakeTrainable())
    assert [trial.number for trial in ties.best(2)] == [0, 1]


def test_a_space_without_parameters_is_one_trial_of_the_preset(tmp_path: Path) -> None:
    study = new_study()
    queue = TrialQueue(
        tmp_path, study, {}, objective=Objective("acc"), trials=1, seeds=(0, 1), seed=0, top=1, fresh=(1000,)
    )  # fmt: skip
    tasks = run_here(queue, tmp_path, FakeTrainable())
    assert [(task.kind, dict(task.params)) for task in tasks] == [("search", {}), ("confirm", {})]


def test_a_sqlite_study_goes_on_in_another_process_s_hands(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    trainable, _ = _killing(4)
    study = new_study(storage=url)
    enqueue(study, [FIRST], SPACE)
    with pytest.raises(Killed):
        run_here(make_queue(tmp_path, study, trials=3), tmp_path, trainable)
    reopened = optuna.load_study(study_name="s", storage=url)
    queue = make_queue(tmp_path, reopened, trials=3)
    run_here(queue, tmp_path, FakeTrainable())
    assert queue.counts() == {"finished": 3, "pruned": 0, "failed": 0}


def test_a_seed_that_is_tried_again_reopens_its_record(tmp_path: Path) -> None:
    """What follows the record, such as MLflow, must not take the seed's earlier end for its last."""

    def before(params: Mapping[str, Any], seed: int, epoch: int) -> None:
        if seed == 1:
            raise ValueError("lost")

    trainable, fails = FakeTrainable(), FakeTrainable(before)
    for each, states in ((fails, ["finished", "failed"]), (trainable, ["finished", "finished"])):
        queue = SeedQueue(tmp_path, "stability", Objective("acc"), {0: FIRST}, (0, 1))
        assert files.read_record(tmp_path, "stability", 0).state == "running"  # type: ignore[union-attr]
        run_here(queue, tmp_path, each)
        record = files.read_record(tmp_path, "stability", 0)
        assert record is not None and [run.state for run in record.seeds] == states
        (record.seeds[1].folder / "result.json").unlink()
    assert [seed for _, seed in trainable.calls] == [1]
