"""A study from its request to its outcome, with a training that does nothing: what is refused, left and told."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raymc.commands.stability import stability
from raymc.errors import CollapsedError, InputError, Interrupted, TrainingError
from raymc.execution import session
from raymc.space.space import load_space, space_names
from raymc.stability import queue, seed_group
from raymc.stability.configurations import configuration
from raymc.stability.request import StabilityRequest
from raymc.study import folder as study
from raymc.study.files import read_json
from raymc.study.manifest import fresh_seeds, plan_budget
from raymc.study.request import Request
from tests.search_fakes import FakeTracker, FakeTrainable, Killed, driver_here, tune

SPACE = """
method: nmce
dataset: digits
space:
  heads.weight_decay: {low: 1.0e-5, high: 1.0e-2, log: true}
  heads.epochs: {low: 2, high: 20}
first: [{heads.weight_decay: 1.0e-3, heads.epochs: 3}]
budget: {trials: 4, seeds: 2, confirm: {top: 2, seeds: 3}}
"""


class Tracker(FakeTracker):
    """Stands for MLflow, which is away."""

    experiment_id, run_id = "7", "abc"

    def __enter__(self) -> Tracker:
        return self

    def run_ids(self) -> dict[str, str]:
        return {"trial-0000": "r0"}

    def flush(self, timeout: float) -> bool:
        return False

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        assert step > 0 and all(isinstance(value, int | float) for value in values.values())

    def log_scores(self, trial: int, values: Mapping[str, float], step: int, *, kind: str) -> None:
        assert set(values) == {"search_score" if kind == "search" else "confirmed_score"}

    def tags(self, values: Mapping[str, object]) -> None:
        assert values["raymc.winner"] in range(6)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        assert path.exists()


class LeavesLabels(FakeTrainable):
    def __call__(self, params: Mapping[str, Any], seed: int, out: Path, report: Any) -> dict[str, Any]:
        result = super().__call__(params, seed, out, report)
        np.savez(out / "labels.npz", labels=np.arange(20) % 4, y=np.arange(20) % 4)
        return result


@pytest.fixture
def run_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeTrainable], None]:
    """Sets what tasks run instead of a training; they run here, one after the other."""
    (tmp_path / "mine.yaml").write_text(SPACE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def use(trainable: FakeTrainable) -> None:
        for module in (session, queue):
            monkeypatch.setattr(module, "run_on_ray", driver_here(lambda real: trainable))
        monkeypatch.setattr(session, "StudyTracker", Tracker)
        monkeypatch.setattr(seed_group, "StudyTracker", FakeTracker)
        monkeypatch.setattr(queue, "ray_session", lambda *_, **__: nullcontext())

    return use


def _request(**changes: Any) -> Request:
    settings: dict[str, Any] = {
        "space": "mine.yaml",
        "overrides": {},
        "storage": "storage",
        "data": "data",
        "name": "s",
    }
    return Request(**settings | changes)


def test_a_study_leaves_what_was_asked_and_tells_what_came_out(run_with: Any, capsys: Any) -> None:
    run_with(LeavesLabels())
    result = tune(_request(overrides={"pretrain.epochs": 5}))
    json.dumps(result, allow_nan=False)
    assert result["study"] == "s" and result["space"] == "mine" and Path(result["report"]).is_file()
    assert result["trials"] == {"finished": 4, "pruned": 0, "failed": 0}
    assert set(result["best"]) == {"trial", "params", "metrics"} and set(result["stages"]) == {"computed", "reused"}
    confirm = result["confirm"]
    assert confirm["seeds"] == [1000, 1001, 1002] and confirm["trial"] == result["best"]["trial"]
    assert confirm["acc"]["n"] == 3 and len(confirm["acc"]["values"]) == 3 and confirm["pairwise_ari"]["mean"] == 1
    assert confirm["drop"] == pytest.approx(confirm["search_score"] - confirm["acc"]["mean"])
    assert len(confirm["candidates"]) == 2
    best = max(confirm["candidates"], key=lambda one: one["score"])
    assert best["trial"] == confirm["trial"], "the winner is the best on fresh seeds"
    assert result["tracking_uri"].startswith("sqlite:///")

    folder = Path("storage/studies/s")
    manifest = read_json(folder / "study.json")
    assert manifest is not None
    assert manifest["fixed"]["pretrain.epochs"] == 5 and "heads.epochs" not in manifest["fixed"]
    assert manifest["searched"]["heads.epochs"]["high"] == 20 and manifest["seeds_from"] == "heads"
    assert manifest["data"]["n_classes"] == 10 and manifest["versions"]["torch"] and manifest["experiment_id"] == "7"
    asked = {"metric": "acc", "mode": "max", "aggregate": "mean", "second": None, "gates": None, "uses_labels": True}
    asked |= {"constraint": None}
    assert manifest["objective"] == asked
    assert manifest["first"] == [{"heads.weight_decay": 1e-3, "heads.epochs": 3}]
    record = read_json(folder / "trials/0000/record.json")
    assert record is not None and record["run_id"] == "r0" and record["params"] == manifest["first"][0]
    shown = capsys.readouterr()
    assert "winner: trial" in shown.out and "than the search's" in shown.out
    assert "has not answered" in shown.err


def test_resuming_a_complete_study_runs_nothing_and_says_the_same(run_with: Any) -> None:
    run_with(LeavesLabels())
    first = tune(_request())
    trainable = LeavesLabels()
    run_with(trainable)
    assert tune(_request(resume=True)) == first and trainable.calls == []
    longer = tune(_request(resume=True, trials=6))
    assert sum(longer["trials"].values()) == 6 and len([c for c in trainable.ended if c[0].startswith("trials")]) == 4
    assert tune(_request(resume=True, name=None))["study"] == "s", "without a name it is the space's newest"


def test_an_interrupted_study_says_what_resumes_it_and_keeps_its_count(run_with: Any) -> None:
    calls = [0]

    def stop(params: Any, seed: int, epoch: int) -> None:
        calls[0] += 1
        if calls[0] == 12:
            raise KeyboardInterrupt

    run_with(LeavesLabels(stop))
    with pytest.raises(Interrupted) as stopped:
        tune(_request(trials=3, concurrent=1, tracking_uri="sqlite:///my runs.db"))
    words = shlex.split(str(stopped.value))
    assert words[:3] == ["cd", str(Path.cwd()), "&&"]
    words = words[words.index(sys.executable) :]
    assert words[:3] == [sys.executable, "-m", "raymc.tune"], "whatever environment the shell has"
    assert words[3:6] == [str(Path("mine.yaml").resolve()), "--name", "s"] and "--resume" in words
    assert words[words.index("--tracking-uri") + 1] == "sqlite:///my runs.db"
    assert words[words.index("--trials") + 1] == "3" and words[words.index("--concurrent") + 1] == "1"
    trainable = LeavesLabels()
    run_with(trainable)
    assert sum(tune(_request(resume=True))["trials"].values()) == 3
    manifest = read_json(Path("storage/studies/s/study.json"))
    assert manifest is not None and len(manifest["sittings"]) == 2


def test_without_a_finished_trial_it_ends_with_3_and_says_why(run_with: Any) -> None:
    def bad(*_: Any) -> None:
        raise CollapsedError("all points fell into one cluster")

    run_with(LeavesLabels(bad))
    with pytest.raises(TrainingError, match=r"no trial finished \(4 collapsed\); the first error: all points") as ended:
        tune(_request())
    assert ended.value.exit_code == 3
    result = ended.value.result
    assert result is not None and result["best"] is None and result["confirm"] is None
    assert result["trials"] == {"finished": 0, "pruned": 0, "failed": 4} and Path(str(result["report"])).is_file()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "study s exists; go on with it by --resume"),
    ({"name": "t", "trials": 0}, "--trials 0: at least 1"),
    ({"name": "t", "seeds": -1}, "--seeds -1: at least 1"),
    ({"name": "t", "seed": -1}, "--seed -1: at least 0 is needed"),
    ({"name": "t", "overrides": {"seed": 3}}, "seed: there are several"),
    ({"name": "t", "overrides": {"heads.weight_decai": 3}}, "did you mean heads.weight_decay"),
    ({"name": "../t"}, "--name ../t: use letters"),
    ({"name": "t", "storage": "foo://bucket/x"}, "storage foo://bucket/x: Protocol not known"),
    ({"name": "t", "storage": "mine.yaml/x"}, "cannot be written: Not a directory"),
    ({"name": "t", "tracking_uri": "localhost:5000"}, "write http://localhost:5000"),
    ({"resume": True, "name": "t"}, "no study t in .*storage/studies"),
    ({"resume": True, "space": "nmce_digits"}, "study s searches mine, not nmce_digits"),
    ({"resume": True, "space": "nmce_digits", "name": None}, "no study of nmce_digits in .* to resume"),
    ({"resume": True, "trials": 3}, "asked for 4 trials; --trials 3 would take some away"),
    ({"resume": True, "seeds": 3}, "study s was begun with --seeds 2, not 3"),
    ({"resume": True, "seed": 1}, "study s was begun with --seed 0, not 1"),
    ({"resume": True, "overrides": {"heads.epochs": 3}}, "study s searches heads.epochs: heads.epochs=3 makes another"),
    ({"resume": True, "overrides": {"pretrain.epochs": 3}}, r"begun with pretrain.epochs=\d+, not pretrain.epochs=3"),
    ({"resume": True, "overrides": {"heads.eta": 3}}, "begun with no heads.eta, not heads.eta=3"),
    ({"name": "t" * 101}, "use letters"),
    ({"name": "я" * 99 + "🎉"}, "use letters"),
    ({"resume": True, "smoke": True}, "is no smoke run"),
]


def test_what_is_wrong_is_told_before_anything_is_made(run_with: Any) -> None:
    run_with(LeavesLabels())
    tune(_request())
    before = sorted(Path("storage").rglob("*"))
    for changes, told in WRONG:
        with pytest.raises(InputError, match=told):
            tune(_request(**changes))
    assert sorted(Path("storage").rglob("*")) == before


def test_a_study_that_is_being_run_is_left_alone(run_with: Any) -> None:
    run_with(LeavesLabels())
    tune(_request())
    with study.locked(Path("storage/studies/s").resolve()), pytest.raises(InputError, match="by another process"):
        tune(_request(resume=True))


def test_other_data_are_refused_on_resume(run_with: Any) -> None:
    run_with(LeavesLabels())
    tune(_request())
    path = Path("storage/studies/s/study.json")
    path.write_text(path.read_text().replace('"fingerprint": "', '"fingerprint": "0'))
    with pytest.raises(InputError, match="the samples of digits are not those"):
        tune(_request(resume=True))


def test_killed_while_it_is_made_a_study_does_not_exist(run_with: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise Killed

    run_with(LeavesLabels())
    monkeypatch.setattr(study, "enqueue", killed)
    with pytest.raises(Killed):
        tune(_request())
    assert study.study_names("storage") == [] and not Path("storage/studies/s").exists()


def test_budgets() -> None:
    space = load_space("nmce_digits")
    budget = plan_budget(space, 5, None, None, smoke=False)
    assert budget.trials == space.budget.trials and budget.seeds[0] == 5
    assert not set(budget.seeds) & set(budget.fresh)
    smoke = plan_budget(space, 0, None, None, smoke=True)
    assert (smoke.trials, smoke.seeds, smoke.top, len(smoke.fresh)) == (4, (0,), 1, 2)
    assert plan_budget(space, 0, 9, 2, smoke=True).trials == 9
    assert not set(range(3, 2003)) & set(fresh_seeds(3, 2000, 10))
    nothing = space.pinned({key: parameter.ends()[0] for key, parameter in space.params.items()})
    assert plan_budget(nothing, 0, None, None, smoke=False).trials == 1
    with pytest.raises(InputError, match="searches nothing: there is one trial, not 5"):
        plan_budget(nothing, 0, 5, None, smoke=False)


@pytest.mark.parametrize("name", space_names())
def test_smoke_never_lengthens_a_budget(name: str) -> None:
    space = load_space(name)
    for trials, seeds in ((1, 1), (2, 2), (3, 1), (50, 9)):
        confirm = space.budget.confirm and space.budget.confirm.model_copy(update={"top": trials, "seeds": 2})
        budget = space.budget.model_copy(update={"trials": trials, "seeds": max(seeds, 2), "confirm": confirm})
        one = replace(space, budget=budget)
        whole, short = (plan_budget(one, 0, None, None, smoke=smoke) for smoke in (False, True))
        assert short.trials <= whole.trials and short.top <= whole.top and short.epochs <= whole.epochs
        assert len(short.seeds) <= len(whole.seeds) and len(short.fresh) <= len(whole.fresh)
        asked = plan_budget(one, 0, None, 3, smoke=True)
        assert len(asked.seeds) == 3, "what is asked for is taken"


def _stability(**changes: Any) -> StabilityRequest:
    settings: dict[str, Any] = {"target": "mine.yaml", "overrides": {}, "storage": "storage", "data": "data"}
    return StabilityRequest(**settings | changes)


def test_stability_of_a_space_runs_its_preset_on_ten_seeds(run_with: Any) -> None:
    trainable = LeavesLabels()
    run_with(trainable)
    result = stability(_stability(overrides={"heads.epochs": 4}))
    json.dumps(result, allow_nan=False)
    assert [seed for _, seed in trainable.calls] == result["seeds"] == list(range(10))
    assert set(result["acc"]) >= {"mean", "std", "min", "max", "ci95", "values"} and len(result["acc"]["values"]) == 10
    assert result["pairwise_ari"] == {"mean": 1.0, "min": 1.0} and result["states"] == {"finished": 10}
    assert "ari" not in result, "what no seed has is absent"
    page = Path(result["report"])
    assert page.name == "stability.html" and "over 10 seeds" in page.with_suffix(".md").read_text()
    rows = (page.parent / "stability.csv").read_text().splitlines()
    assert rows[0] == "seed,state,acc,nmi,seconds" and len(rows) == 11
    assert read_json(page.parent / "stability.json")["acc"] == result["acc"]  # type: ignore[index]


def test_stability_of_a_study_runs_its_winner_on_seeds_that_it_has_not_used(run_with: Any) -> None:
    run_with(LeavesLabels())
    best = tune(_request())["best"]
    chosen = configuration("s", {}, "storage")
    assert chosen.params == best["params"] and chosen.seeds_from == "heads"
    result = stability(_stability(target="s", seeds=2))
    assert result["seeds"] == [1003, 1004] and result["params"] == best["params"]
    pinned = configuration("s", {"heads.epochs": 9}, "storage")
    assert "heads.epochs" not in pinned.params and pinned.space.config().stages["heads"].epochs == 9


def test_seeds_that_went_wrong_are_counted_and_not_averaged(run_with: Any) -> None:
    def bad(params: Any, seed: int, epoch: int) -> None:
        if seed < failing:
            raise CollapsedError("one cluster")

    failing = 1
    run_with(LeavesLabels(bad))
    result = stability(_stability(seeds=3))
    assert result["states"] == {"collapsed": 1, "finished": 2} and result["acc"]["n"] == 2 and len(result["seeds"]) == 3
    assert "1 of 3 seeds collapsed" in Path(result["report"]).read_text()
    failing = 3
    with pytest.raises(TrainingError, match="no seed finished; the first error: one cluster"):
        stability(_stability(target="nmce_digits", seeds=3))


def test_links_to_runs_are_those_of_before_where_mlflow_is_not_reached(run_with: Any, monkeypatch: Any) -> None:
    run_with(LeavesLabels())
    tune(_request())
    monkeypatch.setattr(Tracker, "experiment_id", None)
    monkeypatch.setattr(Tracker, "run_id", None)
    for uri, expected in ((None, "7"), ("http://127.0.0.1:9", None)):  # at the same address, and at another
        tune(_request(resume=True, tracking_uri=uri))
        manifest = read_json(Path("storage/studies/s/study.json"))
        assert manifest is not None and manifest["experiment_id"] == expected
