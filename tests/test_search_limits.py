"""What ends a search before its last trial, and that a study of several sessions counts them all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from raymc.atomic import write_json
from raymc.errors import InputError
from raymc.execution import session
from raymc.space.space import load_space
from raymc.study.files import read_json
from raymc.study.limits import Limits, gpu_seconds, plan_limits, without_gain
from raymc.study.reader import read_study
from raymc.study.records import Record, Resources
from tests import search_fakes
from tests.search_fakes import FakeTrainable, Killed, make_queue, new_study, run_here, tune
from tests.test_search_study import SPACE, Tracker, _request, driver_here

FOUR = Limits(hours=1.0, gpu_hours=2.0, patience=3)


@pytest.mark.parametrize(
    ("seconds", "gpus", "scores", "words"),
    [
        (3599.0, 7199.0, [0.1, 0.2, 0.1, 0.1], ""),
        (3600.0, 0.0, [], "the 1 hours were over"),
        (0.0, 7200.0, [], "the 2 GPU-hours were used"),
        (0.0, 0.0, [0.1, 0.2, 0.1, 0.2, 0.1], "3 trials in a row improved nothing"),
    ],
)
def test_each_limit_is_told_by_its_name(seconds: float, gpus: float, scores: list[float], words: str) -> None:
    assert FOUR.reached(seconds, gpus, scores, "max") == words
    assert Limits().reached(1e9, 1e9, [1.0] * 99, "max") == ""


def test_a_gain_is_one_in_the_objectives_direction() -> None:
    assert without_gain([], "max") == 0 and without_gain([1.0, 2.0, 3.0], "max") == 0
    assert without_gain([1.0, 2.0, 3.0], "min") == 2 and without_gain([2.0, 2.0], "max") == 1, "equal is no gain"


def test_gpu_hours_are_those_that_trainings_held(tmp_path: Path) -> None:
    seeds = [
        {"seed": 0, "seconds": 100.0, "resources": {"workers": 2, "gpus_per_worker": 0.5}},
        {"seed": 1, "seconds": 40.0},
    ]
    record = Record.of({"trial": 0, "seconds": 150.0, "per_seed": seeds}, tmp_path, "search")
    assert gpu_seconds([record], Resources(1, 1, 0.25)) == 100.0 + 40 * 0.25 + 10 * 0.25


def test_patience_ends_the_search_and_what_is_best_is_confirmed(tmp_path: Path) -> None:
    study, limits = new_study(), Limits(patience=2)
    over: Any = lambda queue: limits.reached(0, 0, queue.scores(), "max")  # noqa: E731
    queue = make_queue(tmp_path, study, trials=40, over=over)
    tasks = run_here(queue, tmp_path, FakeTrainable())
    scores = queue.scores()
    assert len(scores) < 40 and without_gain(scores, "max") == 2 and queue.ended_early
    assert [task.kind for task in tasks[len(scores) :]] == ["confirm"] * 4
    again = make_queue(tmp_path, study, trials=40, over=over)
    assert again.left == 0 and again.next() is None, "a resume begins no trial either"
    more = make_queue(tmp_path, study, trials=40)
    assert more.left > 30


def _working(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainable: FakeTrainable, slots: int = 1) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(session, "StudyTracker", Tracker)
    monkeypatch.setattr(session, "run_on_ray", driver_here(lambda real: trainable, slots))


def test_patience_counts_anew_where_more_trials_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _working(tmp_path, monkeypatch, FakeTrainable())
    monkeypatch.setattr(search_fakes, "accuracy", lambda params, seed: 0.5)
    (tmp_path / "mine.yaml").write_text(SPACE.replace("budget: {", "budget: {patience: 2, "))
    assert tune(_request(trials=9))["trials"]["finished"] == 3
    assert tune(_request(trials=9, resume=True))["trials"]["finished"] == 3, "no more were asked for"
    assert tune(_request(trials=12, resume=True))["trials"]["finished"] == 3 + 2
    manifest = read_json(Path("storage/studies/s/study.json"))
    assert manifest is not None and manifest["budget"]["patience_from"] == 3


def test_gpu_hours_of_a_running_trial_have_those_of_sessions_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(params: Any, seed: int, epoch: int) -> None:
        if seed == 1:
            raise Killed

    _working(tmp_path, monkeypatch, FakeTrainable(dies))
    (tmp_path / "mine.yaml").write_text(SPACE + "resources: {gpus_per_worker: 1}\n")
    with pytest.raises(Killed):
        tune(_request(gpu_hours=0.5))
    folder = Path("storage/studies/s/trials/0000")
    for path in (folder / "record.json", folder / "seed-0/result.json"):
        content = read_json(path)
        assert content is not None
        rows = [content, *content.get("per_seed", ())]
        for row in rows:
            row["seconds"] = 3600.0
            row.pop("resources", None)  # what the driver in its place gives has no GPU
        write_json(path, content)
    _working(tmp_path, monkeypatch, FakeTrainable(), slots=2)
    assert sum(tune(_request(resume=True))["trials"].values()) == 1, "the hour is used: none begins beside it"


def test_hours_count_over_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mine.yaml").write_text(SPACE)
    monkeypatch.setattr(session, "run_on_ray", driver_here(lambda real: FakeTrainable()))
    monkeypatch.setattr(session, "StudyTracker", Tracker)
    clock = [0.0]

    class Clock:
        @staticmethod
        def monotonic() -> float:
            clock[0] += 100.0
            return clock[0]

    monkeypatch.setattr(session, "time", Clock)
    first = tune(_request(hours=0.1))
    manifest = read_json(Path("storage/studies/s/study.json"))
    assert manifest is not None and manifest["budget"]["ended_early"] == "the 0.1 hours were over"
    begun = sum(first["trials"].values())
    assert 0 < begun < 4 and first["confirm"] is not None, "what ran is confirmed"
    assert sum(tune(_request(resume=True))["trials"].values()) == begun
    assert "since the 0.1 hours were over" in (Path(first["report"]).read_text())
    with pytest.raises(InputError, match=r"was given --hours 0.1; 0.05 would take some away"):
        tune(_request(resume=True, hours=0.05))
    assert sum(tune(_request(resume=True, hours=10.0))["trials"].values()) == 4
    manifest = read_json(Path("storage/studies/s/study.json"))
    assert manifest is not None and manifest["budget"]["ended_early"] == "" and manifest["budget"]["hours"] == 10


def test_limits_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    space = load_space("nmce_digits")
    with pytest.raises(InputError, match="--hours 0: more than 0"):
        plan_limits(space, 0.0, None)
    with pytest.raises(InputError, match="takes no GPU"):
        plan_limits(space, None, 1.0)
    content = {"method": "nmce", "dataset": "digits", "budget": {"patience": 3, "confirm": None}}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(content | {"objective": {"metric": "acc", "second": "nmi"}}))
    with pytest.raises(InputError, match="a front has no best score"):
        plan_limits(load_space(tmp_path / "two.yaml"), None, None)


def test_the_default_stands_beside_the_best_and_takes_no_part_in_the_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On fresh seeds it is the better one by far; it wins only where the search put it among the best."""
    first = "first: [{heads.weight_decay: 1.0e-3, heads.epochs: 3}]"
    default = {"heads.weight_decay": 1e-3, "heads.epochs": 20}

    def scored(params: Mapping[str, Any], seed: int) -> float:
        return (0.9 if seed >= 1000 else 0.5) if dict(params) in ({}, default) else 0.6 + 0.01 * (seed % 7)

    _working(tmp_path, monkeypatch, FakeTrainable())
    monkeypatch.setattr(search_fakes, "accuracy", scored)
    one = SPACE.replace("top: 2", "top: 1")
    (tmp_path / "trial.yaml").write_text(one.replace(first, ""))  # the default is tried first
    (tmp_path / "none.yaml").write_text(one)
    (tmp_path / "all.yaml").write_text(one.replace(first, "").replace("top: 1", "top: 4"))
    for name, trial, beside in (("trial", 0, True), ("none", None, True), ("all", 0, False)):
        result = tune(_request(space=f"{name}.yaml", name=name))
        found, folder = result["default"], Path("storage/studies") / name
        assert found["seeds"] == [1000, 1001, 1002] and found["trial"] == trial
        assert (folder / "default").exists() == beside and (result["best"]["trial"] == trial) != beside
        page, shown = Path(result["report"]).read_text(), capsys.readouterr().out
        if beside:
            gap = result["confirm"]["acc"]["mean"] - found["statistics"]["mean"]
            assert found["advantage"]["mean"] == pytest.approx(gap) and gap < 0
            assert "It is worse by" in shown and "figures are therefore unbiased" in page
        else:
            assert "It is the default configuration" in shown
        manifest = read_json(folder / "study.json")
        assert manifest is not None and set(manifest["default"]) == set(manifest["searched"])


def test_a_study_of_before_has_its_default_among_the_confirmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scored(params: Mapping[str, Any], seed: int) -> float:
        return (0.9 if seed >= 1000 else 0.5) if params.get("heads.epochs") == 20 else 0.6

    trainable = FakeTrainable()
    _working(tmp_path, monkeypatch, trainable)
    monkeypatch.setattr(search_fakes, "accuracy", scored)
    space = SPACE.replace("top: 2", "top: 1").replace("heads.epochs: 3}", "heads.epochs: 20}")
    (tmp_path / "mine.yaml").write_text(space)
    tune(_request())
    folder = Path("storage/studies/s")
    (folder / "default/0000").rename(folder / "confirm/0000")
    (folder / "default").rmdir()
    record = read_json(folder / "confirm/0000/record.json")
    assert record is not None
    write_json(
        folder / "confirm/0000/record.json", record | {"kind": "confirm", "params": read_study(folder).trials[0].params}
    )
    trainable.calls.clear()
    result = tune(_request(resume=True))
    assert not trainable.calls and result["best"]["trial"] != 0
    assert result["default"]["trial"] == 0 and result["default"]["seeds"] == [1000, 1001, 1002]


def test_a_space_without_a_section_space_is_one_trial_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.yaml").write_text("method: nmce\ndataset: digits\nbudget: {confirm: {top: 3, seeds: 2}}\n")
    monkeypatch.setattr(session, "StudyTracker", Tracker)
    lefts: list[int] = []

    def run(work: Any, *rest: Any) -> None:
        lefts.append(work.left)
        driver_here(lambda real: FakeTrainable())(work, *rest)

    monkeypatch.setattr(session, "run_on_ray", run)
    result = tune(_request(space="one.yaml"))
    assert lefts == [1 + 2] and result["trials"]["finished"] == 1
    assert "one searches nothing (no section space): one trial, of the preset" in capsys.readouterr().err
