"""A second metric that the winner must keep to: what breaks it is known to the sampler and never wins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from raymc.errors import InputError, TrainingError
from raymc.execution import session
from raymc.space import sampler
from raymc.space.space import load_space
from raymc.study.objective import Constraint, Objective
from raymc.study.reader import read_study, winner
from tests.search_fakes import FakeTrainable, make_queue, new_study, run_here, tune
from tests.test_search_study import SPACE, Tracker, _request, driver_here


class Traded(FakeTrainable):
    """The higher the accuracy the lower `nmi`, which a constraint asks for."""

    def __call__(self, *args: Any) -> dict[str, Any]:
        result = super().__call__(*args)
        return result | {"metrics": result["metrics"] | {"nmi": 1.8 - 2 * result["metrics"]["acc"]}}


@pytest.mark.parametrize(
    ("bounds", "value", "violation"),
    [({"at_least": 0.5}, 0.4, 0.1), ({"at_most": 0.5}, 0.4, -0.1), ({"at_least": 0.1, "at_most": 0.3}, 0.4, 0.1)],
)
def test_a_violation_is_the_distance_to_the_bound(bounds: dict[str, float], value: float, violation: float) -> None:
    constraint = Constraint("nmi", **bounds)
    assert constraint.violation({"nmi": value}) == pytest.approx(violation)
    assert constraint.violation({}) == math.inf and str(constraint).startswith("nmi at ")


@pytest.mark.parametrize("options", [sampler.TPE(n_startup_trials=4), sampler.GP(n_startup_trials=4)])
def test_the_sampler_knows_of_it_and_what_breaks_it_is_not_confirmed(options: Any, tmp_path: Path) -> None:
    study, bound = new_study(), Constraint("nmi", at_least=0.2)
    queue = make_queue(tmp_path, study, trials=10, top=3, objective=Objective("acc", constraint=bound), sampler=options)
    tasks = run_here(queue, tmp_path, Traded(), objective=queue.objective)
    trials = {trial.number: trial for trial in study.get_trials()}
    feasible = {number for number, trial in trials.items() if trial.user_attrs["metrics"]["nmi"] >= 0.2}
    assert 0 < len(feasible) < 10
    assert {n for n, trial in trials.items() if trial.constraints["nmi"] <= 0} == feasible
    assert {task.trial for task in tasks if task.kind == "confirm"} <= feasible
    best = max(feasible, key=lambda number: trials[number].value or 0.0)
    assert queue.best(1)[0].number == best == study.best_trial.number


def _study(folder: Path, monkeypatch: pytest.MonkeyPatch, bound: Mapping[str, Any]) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    content = yaml.safe_load(SPACE) | {"objective": {"metric": "acc", "constraint": dict(bound)}}
    (folder / "mine.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(session, "run_on_ray", driver_here(lambda real: Traded()))
    monkeypatch.setattr(session, "StudyTracker", Tracker)
    return tune(_request(trials=6))


def test_the_winner_keeps_to_it_and_the_report_shows_what_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = _study(tmp_path, monkeypatch, {"metric": "nmi", "at_least": -0.07})
    study = read_study(Path("storage/studies/s"))
    broken = [trial for trial in study.finished if trial.metrics["nmi"] < -0.07]
    best = winner(study)
    assert broken and best is not None and best.metrics["nmi"] >= -0.07 and result["best"]["trial"] == best.trial
    page = Path(result["report"]).read_text()
    assert "infeasible" in page and "without nmi at least -0.07" in page


def test_without_a_trial_that_keeps_to_it_there_is_no_winner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError, match="of 6 finished trials none has nmi at least 0.99"):
        _study(tmp_path, monkeypatch, {"metric": "nmi", "at_least": 0.99})


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        ({"constraint": {"metric": "nmj", "at_least": 0.5}}, "unknown metric nmj; did you mean nmi"),
        ({"constraint": {"metric": "nmi"}}, "at_most or at_least is missing"),
        ({"constraint": {"metric": "nmi", "at_least": 0.5, "at_most": 0.1}}, "at_least 0.5 is above at_most 0.1"),
        ({"constraint": {"metric": "nmi", "atleast": 0.5}}, "unknown key atleast; did you mean at_least"),
        (
            {"metric": "probe", "constraint": {"metric": "nmi", "at_least": 0.5}, "uses_labels": False},
            "uses_labels: true",
        ),
    ],
)
def test_a_constraint_that_says_nothing_is_refused(tmp_path: Path, objective: dict[str, Any], words: str) -> None:
    content = {"method": "nmce", "dataset": "digits", "objective": objective}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(InputError) as error:
        load_space(tmp_path / "mine.yaml")
    assert words in str(error.value)
