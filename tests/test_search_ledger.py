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
from raymc.study.queue import Ledger, SeedQueue
from tests.search_fakes import FIRST, SPACE, FakeBody, Killed, make_ledger, new_study, run_here


def _states(study: optuna.Study) -> list[TrialState]:
    return [trial.state for trial in study.get_trials()]


def test_every_trial_runs_all_seeds_and_the_best_are_confirmed_on_fresh_ones(tmp_path: Path) -> None:
    study, body = new_study(), FakeBody()
    enqueue(study, [FIRST], SPACE)
    ledger = make_ledger(tmp_path, study)
    units = run_here(ledger, tmp_path, body)
    assert [unit.kind for unit in units] == ["search"] * 5 + ["confirm"] * 4
    assert dict(units[0].params) == FIRST
    assert ledger.counts() == {"finished": 5, "pruned": 0, "failed": 0}
    best = [trial.number for trial in ledger.best(2)]
    assert [(unit.trial, unit.seeds) for unit in units[5:]] == [(n, (seed,)) for seed in (1000, 1001) for n in best]
    for trial in study.get_trials():
        record = files.read_record(tmp_path, "search", trial.number)
        assert record is not None and record.state == "finished" and record.score == trial.value
        assert [run.seed for run in record.seeds] == [0, 1]
        assert record.params == trial.params
    confirmed = files.read_record(tmp_path, "confirm", best[0])
    assert confirmed is not None and confirmed.state == "finished" and confirmed.params == units[5].params
    assert confirmed.score == pytest.approx(sum(run.metrics["acc"] for run in confirmed.seeds) / 2)


def _killing(moment: int) -> tuple[FakeBody, list[int]]:
    passed = [0]

    def before(params: Mapping[str, Any], seed: int, epoch: int) -> None:
        if epoch == 2:  # in the middle of a training
            passed[0] += 1
            if passed[0] == moment:
                raise Killed

    return FakeBody(before), passed


def test_killed_in_the_middle_of_any_training_a_resume_runs_what_is_missing_and_nothing_else(tmp_path: Path) -> None:
    whole = new_study()
    enqueue(whole, [FIRST], SPACE)
    run_here(make_ledger(tmp_path / "whole", whole, trials=3), tmp_path / "whole", FakeBody())
    for moment in range(1, 11):  # 3 trials of 2 seeds, then 2 of 2
        folder, study = tmp_path / str(moment), new_study()
        enqueue(study, [FIRST], SPACE)
        body, _ = _killing(moment)
        with pytest.raises(Killed):
            run_here(make_ledger(folder, study, trials=3), folder, body)
        done = list(body.ended)
        again = FakeBody()
        units = run_here(make_ledger(folder, study, trials=3), folder, again)
        assert len(done) == moment - 1 and len(again.ended) == 10 - len(done)
        assert set(done).isdisjoint(again.ended), "a finished training was run again"
        if moment <= 6:  # the interrupted trial goes on first, under its own number
            assert (units[0].kind, units[0].trial) == ("search", (moment - 1) // 2)
        assert [t.params for t in study.get_trials()] == [t.params for t in whole.get_trials()]
        assert [t.value for t in study.get_trials()] == [t.value for t in whole.get_trials()]
        assert not [path for path in folder.rglob("*.tmp")]


def test_killed_between_the_record_and_optuna_it_is_told_on_resume(tmp_path: Path, monkeypatch: Any) -> None:
    study, body = new_study(), FakeBody()

    def killed(*args: Any, **kwargs: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(study, "tell", killed)
        with pytest.raises(Killed):
            run_here(make_ledger(tmp_path, study), tmp_path, body)
    assert _states(study) == [TrialState.RUNNING]
    again = FakeBody()
    units = run_here(make_ledger(tmp_path, study), tmp_path, again)
    assert [unit.trial for unit in units if unit.kind == "search"] == [1, 2, 3, 4]
    assert ("trials/0000", 0) not in again.ended


def test_killed_while_asking_the_same_parameters_come_again(tmp_path: Path, monkeypatch: Any) -> None:
    whole, study = new_study(), new_study()
    run_here(make_ledger(tmp_path / "a", whole), tmp_path / "a", FakeBody())
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
            run_here(make_ledger(tmp_path / "b", study), tmp_path / "b", FakeBody())
    assert len(study.get_trials()[3].params) == 1
    run_here(make_ledger(tmp_path / "b", study), tmp_path / "b", FakeBody())
    assert [t.params for t in study.get_trials()] == [t.params for t in whole.get_trials()]


def test_a_resume_with_more_trials_goes_on_as_a_longer_search_would_have(tmp_path: Path) -> None:
    short, long = new_study(), new_study()
    run_here(make_ledger(tmp_path / "short", short), tmp_path / "short", FakeBody())
    run_here(make_ledger(tmp_path / "short", short, trials=14), tmp_path / "short", FakeBody())
    run_here(make_ledger(tmp_path / "long", long, trials=14), tmp_path / "long", FakeBody())
    assert [t.params for t in short.get_trials()] == [t.params for t in long.get_trials()]
    nothing = make_ledger(tmp_path / "short", short, trials=14)
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

    study, body = new_study(), FakeBody(before)
    enqueue(study, [FIRST], SPACE)
    ledger = make_ledger(tmp_path, study, top=1)
    run_here(ledger, tmp_path, body)
    record = files.read_record(tmp_path, "search", 0)
    assert record is not None and record.state == state and record.score is None and record.metrics == {}
    assert str(error) in record.error
    assert study.get_trials()[0].user_attrs["state"] == state
    assert _states(study)[0] == TrialState.FAIL and TrialState.RUNNING not in _states(study)
    assert ledger.counts()["failed"] >= 1 and sum(ledger.counts().values()) == 5
    assert body.calls.count(("0000", 1)) == 0, "a bad seed ends the trial"


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_training_without_a_finite_objective_is_a_failed_trial(tmp_path: Path, value: Any) -> None:
    class Blind(FakeBody):
        def __call__(self, *args: Any) -> dict[str, Any]:
            result = super().__call__(*args)
            return result | {"metrics": {"nmi": 0.5} | ({} if value is None else {"acc": value})}

    study = new_study()
    ledger = make_ledger(tmp_path, study, trials=2)
    units = run_here(ledger, tmp_path, Blind())
    assert [unit.kind for unit in units] == ["search"] * 2, "nothing is there to confirm"
    assert _states(study) == [TrialState.FAIL] * 2
    record = files.read_record(tmp_path, "search", 0)
    assert record is not None and "no finite acc" in record.error and record.score is None


def test_one_bad_fresh_seed_is_named_and_leaves_no_score(tmp_path: Path) -> None:
    def before(params: Mapping[str, Any], seed: int, epoch: int) -> None:
        if seed == 1001:
            raise CollapsedError("one cluster")

    study = new_study()
    ledger = make_ledger(tmp_path, study, top=1, fresh=(1000, 1001, 1002))
    run_here(ledger, tmp_path, FakeBody(before))
    record = files.read_record(tmp_path, "confirm", ledger.best(1)[0].number)
    assert record is not None and record.state == "collapsed" and record.score is None
    assert [run.state for run in record.seeds] == ["finished", "collapsed", "finished"]


def test_a_lost_unit_is_a_failed_trial(tmp_path: Path) -> None:
    study = new_study()
    ledger = make_ledger(tmp_path, study, trials=1)
    unit = ledger.next()
    assert unit is not None and ledger.next() is None, "nothing is confirmed while a trial runs"
    record = ledger.ended(unit, "its worker died")
    assert (record.state, record.error) == ("failed", "its worker died")
    assert _states(study) == [TrialState.FAIL] and ledger.next() is None

    queue = SeedQueue(tmp_path, "stability", Objective("acc"), {0: {}}, (5, 6))
    first = queue.next()
    assert first is not None
    assert queue.ended(first).seeds[0].error == "its process was lost"


def test_minimising_confirms_the_smallest_and_ties_go_to_the_earlier(tmp_path: Path) -> None:
    study = new_study("minimize")
    ledger = make_ledger(tmp_path, study, trials=6, top=3, objective=Objective("acc", "min"))
    run_here(ledger, tmp_path, FakeBody())
    values = [trial.value for trial in ledger.best(6)]
    assert values == sorted(values)
    equal = new_study()
    for _ in range(3):
        equal.enqueue_trial(FIRST)
    ties = make_ledger(tmp_path / "ties", equal, trials=3)
    run_here(ties, tmp_path / "ties", FakeBody())
    assert [trial.number for trial in ties.best(2)] == [0, 1]


def test_a_space_without_parameters_is_one_trial_of_the_preset(tmp_path: Path) -> None:
    study = new_study()
    ledger = Ledger(
        tmp_path, study, {}, objective=Objective("acc"), trials=1, seeds=(0, 1), seed=0, top=1, fresh=(1000,)
    )  # fmt: skip
    units = run_here(ledger, tmp_path, FakeBody())
    assert [(unit.kind, dict(unit.params)) for unit in units] == [("search", {}), ("confirm", {})]


def test_a_sqlite_study_goes_on_in_another_process_s_hands(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    body, _ = _killing(4)
    study = new_study(storage=url)
    enqueue(study, [FIRST], SPACE)
    with pytest.raises(Killed):
        run_here(make_ledger(tmp_path, study, trials=3), tmp_path, body)
    reopened = optuna.load_study(study_name="s", storage=url)
    ledger = make_ledger(tmp_path, reopened, trials=3)
    run_here(ledger, tmp_path, FakeBody())
    assert ledger.counts() == {"finished": 3, "pruned": 0, "failed": 0}
