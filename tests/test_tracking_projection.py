"""Records as runs of MLflow: their names, parents, points and states; and nothing of it needs MLflow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raymc.errors import Interrupted
from raymc.metrics.seeds import summary
from raymc.study.objective import Objective
from raymc.study.seed_queue import SeedQueue
from raymc.tracking.projection import TrialRuns, event_points, run_name, statistics_metrics, trial_places
from raymc.tracking.study import ending
from tests.mlflow_database import record, train
from tests.search_fakes import FIRST, FakeTrainable, accuracy, make_queue, new_study, run_here

INTERVALS = {f"{interval}_{end}" for interval in ("ci95", "ci95_bootstrap") for end in ("low", "high")}


def runs(folder: Path, **asked: Any) -> dict[str, Any]:
    places = [TrialRuns(folder, *place, **asked) for place in trial_places(folder)]
    return {name: trial.run(name, {}) for trial in places for name in trial.states}


def test_names_and_parents_of_runs(tmp_path: Path) -> None:
    names = [run_name(7), run_name(7, 3), run_name(7, 3, "confirm"), run_name(None, 3), run_name(None)]
    assert names == ["trial-0007", "trial-0007.seed-3", "confirm-0007.seed-3", "seed-3", "study"]
    trainable = FakeTrainable()
    run_here(make_queue(tmp_path, new_study(), trials=1, seeds=(3,), top=1, fresh=(1000,)), tmp_path, trainable)
    run_here(SeedQueue(tmp_path, "stability", Objective("acc"), {0: FIRST}, (3,)), tmp_path, trainable)
    found = runs(tmp_path)
    assert {name: run.parent for name, run in found.items()} == {
        "trial-0000": "study",
        "trial-0000.seed-3": "trial-0000",
        "confirm-0000": "study",
        "confirm-0000.seed-1000": "confirm-0000",
        "seed-3": "study",
    }
    assert found["trial-0000.seed-3"].tags == {
        "raymc.seed": "3", "raymc.trial": "0", "raymc.kind": "search", "raymc.stage.heads": "0"
    }  # fmt: skip
    assert found["seed-3"].tags.keys() == {"raymc.seed", "raymc.stage.heads"}
    assert {run.status for run in found.values()} == {"FINISHED"}
    ends = {name: run.ended - run.started for name, run in found.items()}
    assert all(seconds >= 0 for seconds in ends.values()), ends


def test_a_seed_has_its_epochs_stages_and_metrics(tmp_path: Path) -> None:
    run_here(make_queue(tmp_path, new_study(), trials=1, seeds=(3,), top=0), tmp_path, FakeTrainable())
    found = runs(tmp_path)["trial-0000.seed-3"].points
    values = {(key, step): value for key, value, _, step in found}
    params = runs(tmp_path)["trial-0000"].params
    epochs = int(params["heads.epochs"])
    assert [values["heads.loss", step] for step in range(1, epochs + 1)] == [1 / s for s in range(1, epochs + 1)]
    assert values["heads.cached", 0] == 0.0 and values["heads.epochs", 0] == epochs and values["nmi", 0] == 0.5
    times = [time for _, _, time, _ in found]
    assert times == sorted(times)


def test_events_and_statistics_become_metrics() -> None:
    event = {"event": "epoch", "time": 7, "stage": "heads", "epoch": 4, "epochs": 9, "loss": 1.5, "note": "text"}
    assert list(event_points(event | {"learning_rate.cluster": 0.5})) == [
        ("heads.loss", 1.5, 7, 4),
        ("heads.learning_rate.cluster", 0.5, 7, 4),
    ]
    stage = {"event": "stage", "time": 7, "name": "heads", "epochs": 9, "cached": True, "seconds": 2.5, "key": "k"}
    assert sorted(event_points(stage)) == [
        ("heads.cached", 1.0, 7, 0), ("heads.epochs", 9.0, 7, 0), ("heads.seconds", 2.5, 7, 0)
    ]  # fmt: skip
    assert list(event_points({"event": "done", "time": 7, "seconds": 1.0})) == []
    single = {"n", "mean", "std", "min", "max", "median", "iqm"}
    for values, expected in (([0.5], single), ([0.5, 0.7], single | INTERVALS)):
        found = statistics_metrics({"acc": summary(values), "pairwise_ari": {"mean": 1}})
        numbers = {key.removeprefix("acc_") for key, value in found.items() if isinstance(value, float | int)}
        assert numbers == expected | {"pairwise_ari_mean"}


def test_a_trial_has_the_statistics_after_each_of_its_seeds(tmp_path: Path) -> None:
    class WithLabels(FakeTrainable):
        def __call__(self, params: Any, seed: int, out: Path, report: Any) -> Any:
            result = super().__call__(params, seed, out, report)
            np.savez(out / "labels.npz", labels=np.arange(24) % (2 + seed))
            return result

    study = new_study()
    study.enqueue_trial(FIRST)
    queue = make_queue(tmp_path, study, trials=1, seeds=(3, 4, 5), top=1)
    run_here(queue, tmp_path, WithLabels())
    found = runs(tmp_path)
    values = {(key, step): value for key, value, _, step in found["trial-0000"].points}
    scores = [accuracy(FIRST, seed) for seed in (3, 4, 5)]
    assert [values["acc_mean", n] for n in (1, 2, 3)] == pytest.approx([np.mean(scores[:n]) for n in (1, 2, 3)])
    assert ("pairwise_ari_mean", 1) not in values and values["pairwise_ari_mean", 2] != values["pairwise_ari_mean", 3]
    fresh = [(key, step) for key, _, _, step in found["confirm-0000"].points if key.endswith("mean")]
    assert {step for _, step in fresh} == {2} and ("pairwise_ari_mean", 2) in fresh, "one statistic, of all seeds"
    (trial,) = (TrialRuns(tmp_path, *place) for place in trial_places(tmp_path) if place[0] == "search")
    late = {step for _, _, _, step in trial.run("trial-0000", {"acc_mean": 2}).points}
    assert late == {2, 3}, "a step that is there in part is whole again"


def test_times_of_a_run_never_go_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, hours = __import__("time").time, 6 * 3600
    for jump in (0, hours, -hours):
        monkeypatch.setattr("time.time", lambda jump=jump: real() + jump)
        row = train(tmp_path, 0, range(1, 4))
    record(tmp_path, [row], "finished", started="2100-01-01T00:00:00+00:00")
    found = runs(tmp_path)
    times = [time for _, _, time, _ in found["trial-0001.seed-0"].points]
    assert times == sorted(times) and times[-1] - times[0] >= hours * 1000
    assert all(run.ended >= run.started for run in found.values())


def test_what_has_not_ended_goes_on_until_nobody_works_at_it(tmp_path: Path) -> None:
    train(tmp_path, 0, range(1, 4))
    assert runs(tmp_path) == {}, "no run without its trial's record"
    record(tmp_path, [])
    for over, status in ((False, "RUNNING"), (True, "KILLED")):
        assert {name: run.status for name, run in runs(tmp_path, over=over).items()} == {
            "trial-0001": status, "trial-0001.seed-0": status
        }  # fmt: skip


def test_how_a_study_ends_follows_from_how_its_block_is_left() -> None:
    kinds = (None, KeyboardInterrupt, SystemExit, GeneratorExit, Interrupted, ValueError)
    assert [ending(kind) for kind in kinds] == ["finished", *["interrupted"] * 4, "failed"]


def test_what_is_no_folder_of_a_trial_is_passed_over(tmp_path: Path) -> None:
    for name in ("trials/0001/seed-x", "trials/../elsewhere", "trials/1.old", "confirm/.0002"):
        (tmp_path / name).mkdir(parents=True)
    assert list(trial_places(tmp_path)) == [("search", 1)] and runs(tmp_path) == {}


def test_a_training_needs_no_tracking_and_the_driver_imports_mlflow_late() -> None:
    code = "import sys, {}; print(*sys.modules)"
    for modules, absent in (
        (
            "raymc.execution.trial, raymc.execution.train_seed, raymc.study.events",
            {"mlflow", "optuna", "raymc.tracking.study"},
        ),
        ("raymc.study.events", {"torch", "numpy", "raymc.tracking.projection"}),
        ("raymc.tracking.study, raymc.tracking.uri", {"mlflow", "sqlalchemy", "ray"}),
    ):
        done = subprocess.run([sys.executable, "-c", code.format(modules)], capture_output=True, text=True, check=True)
        assert not absent & set(done.stdout.split()), modules
