"""Trials of an earlier study that a new one knows, and failed trials that run again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from raymc.commands import tune as command
from raymc.errors import CollapsedError, DeviceMemoryError, InputError
from raymc.execution import session
from raymc.study import earlier
from raymc.study.files import read_json
from raymc.study.folder import open_database, read_manifest, read_space
from raymc.study.manifest import load_data
from raymc.study.reader import read_study
from tests.search_fakes import SPACE as KEYS
from tests.search_fakes import FakeTrainable, make_queue, new_study, run_here, tune
from tests.test_search_study import SPACE, Tracker, _request, driver_here


@pytest.fixture
def working(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "StudyTracker", Tracker)
    monkeypatch.setattr(session, "run_on_ray", driver_here(lambda real: FakeTrainable()))
    (tmp_path / "mine.yaml").write_text(SPACE)
    return tmp_path


def _space(folder: Path, name: str, **changes: Any) -> str:
    (folder / name).write_text(yaml.safe_dump(yaml.safe_load(SPACE) | changes))
    return name


def test_the_sampler_knows_them_and_the_budget_does_not(
    working: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {"heads": "0"}  # of a training that does nothing
    monkeypatch.setattr(earlier, "stage_keys", lambda *_: keys)
    tune(_request(name="old", trials=6))
    narrow = {
        "heads.weight_decay": {"low": 1e-5, "high": 1e-2, "log": True},
        "heads.epochs": {"low": 8, "high": 20},
    }
    old = read_study(Path("storage/studies/old"))
    inside = [trial for trial in old.trials if trial.params["heads.epochs"] >= 8]
    space = _space(working, "narrow.yaml", space=narrow, first=[{"heads.weight_decay": 1e-3, "heads.epochs": 9}])
    capsys.readouterr()
    result = tune(_request(name="new", space=space, source="old", trials=3))
    assert result["trials"] == {"finished": 3, "pruned": 0, "failed": 0}
    told = f"{len(inside)} trials of old taken over; left out: {6 - len(inside)} outside of what is searched"
    assert 0 < len(inside) < 6 and told in capsys.readouterr().err
    folder = Path("storage/studies/new")
    with open_database(folder) as database:
        trials = database.get_trials()
    assert [trial.params for trial in trials[: len(inside)]] == [dict(trial.params) for trial in inside]
    assert [trial.value for trial in trials[: len(inside)]] == [trial.score for trial in inside]
    numbers = {int(path.name) for path in (folder / "trials").iterdir()}
    assert numbers == set(range(len(inside), len(inside) + 3)), "they keep their numbers free of those taken over"
    assert result["best"]["trial"] in numbers
    assert f"The sampler knew {len(inside)} trials of old" in Path(result["report"]).read_text()
    assert tune(_request(name="new", space=space, resume=True))["trials"]["finished"] == 3
    keys["heads"] = "1"
    tune(_request(name="none", space=space, source="old", trials=2))
    manifest = read_json(Path("storage/studies/none/study.json"))
    assert manifest is not None and manifest["taken"]["trials"] == 0
    assert manifest["taken"]["left"]["with stages of another key"] == len(inside)


def test_studies_that_do_not_agree_are_named_with_what_differs(working: Path) -> None:
    tune(_request(name="old"))
    finite = {"heads.epochs": {"choices": [10, 20]}}
    bad: list[tuple[dict[str, Any], str]] = [
        ({"seeds": 3}, "--from old: it has other seeds, so none"),
        ({"seed": 7}, "--from old: it has other seeds"),
        ({"space": _space(working, "nmi.yaml", objective={"metric": "nmi"})}, r"it has other objective \(acc\)"),
        (
            {"space": _space(working, "lower.yaml", objective={"metric": "acc", "aggregate": "lower"})},
            "other objective",
        ),
        ({"overrides": {"n_samples": 500}}, "it has other samples"),
        ({"source": "odl"}, "no study odl in .*; did you mean old"),
        ({"smoke": True, "seeds": 2}, "it has other lengths|it has other samples"),
        ({"space": _space(working, "grid.yaml", space=finite, first=None), "sampler": "grid"}, "learns from no trial"),
        ({"retry": "failed"}, "--retry: a new study has no failed trials"),
        ({"name": "old", "resume": True}, "begun with no --from, not old"),
    ]
    for changes, words in bad:
        with pytest.raises(InputError, match=words):
            tune(_request(**{"name": "new", "source": "old"} | changes))
    assert not Path("storage/studies/new").exists()


def test_a_trial_with_other_fixed_values_is_left_out(working: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(earlier, "stage_keys", lambda *_: {"heads": "0"})
    tune(_request(name="old"))
    tune(_request(name="new", source="old", overrides={"pretrain.epochs": 5}))
    manifest = read_json(Path("storage/studies/new/study.json"))
    assert manifest is not None and manifest["taken"]["left"] == {"with another pretrain.epochs": 4}


def test_the_keys_are_those_that_trainings_store_their_stages_under(working: Path, data_root: Path) -> None:
    real = "method: nmce\ndataset: digits\nspace: {heads.epochs: {low: 2, high: 200}}\nbudget: {confirm: null}\n"
    (working / "real.yaml").write_text(real)

    session.run_on_ray = driver_here(lambda real: real)  # type: ignore[attr-defined]
    tune(_request(space="real.yaml", smoke=True, trials=1, data=str(data_root)))
    folder = Path("storage/studies/s")
    manifest, record = read_manifest(folder), read_study(folder).trials[0]
    space = read_space(folder, manifest)
    dataset = load_data(space, str(data_root), "storage", smoke=True)
    found = earlier.stage_keys(space, manifest, record.params, 0, dataset)
    assert found == {stage.name: stage.key for stage in record.seeds[0].stages}


def test_what_failed_runs_again_under_a_number_of_its_own_and_counts_once(tmp_path: Path) -> None:
    broken = [True]

    def before(params: Mapping[str, Any], seed: int, epoch: int) -> None:
        if broken[0] and params["heads.epochs"] == 3:
            raise DeviceMemoryError("no memory")
        if params["heads.epochs"] == 2:
            raise CollapsedError("one cluster")

    study = new_study()
    queue = make_queue(tmp_path, study, trials=12, top=1)
    run_here(queue, tmp_path, FakeTrainable(before))
    counts = queue.counts()
    failed = [t.number for t in study.get_trials() if t.user_attrs["state"] == "out_of_memory"]
    collapsed = [t.number for t in study.get_trials() if t.user_attrs["state"] == "collapsed"]
    assert failed and collapsed and sum(counts.values()) == 12
    broken[0] = False
    again = make_queue(tmp_path, study, trials=12, top=1, retry=True)
    tasks = run_here(again, tmp_path, FakeTrainable(before))
    rerun = [task for task in tasks if task.kind == "search"]
    assert [task.trial for task in rerun] == list(range(12, 12 + len(failed)))
    assert [dict(task.params) for task in rerun] == [study.get_trials()[n].params for n in failed]
    assert again.counts() == {"finished": 12 - len(collapsed), "pruned": 0, "failed": len(collapsed)}
    error = json.loads((tmp_path / f"trials/{failed[0]:04d}/record.json").read_text())["error"]
    assert error.startswith("run again as trial 12; no memory")
    quiet = make_queue(tmp_path, study, trials=12, top=1, retry=True)
    assert quiet.left == 0, "what has run again and finished is no failure"
    assert Counter(t.state.name for t in study.get_trials())["WAITING"] == 0 and set(KEYS) == set(rerun[0].params)


def test_what_failed_stays_a_failure_where_a_limit_lets_nothing_run_again(tmp_path: Path) -> None:
    def before(params: Mapping[str, Any], seed: int, epoch: int) -> None:
        raise DeviceMemoryError("no memory")

    study = new_study()
    run_here(make_queue(tmp_path, study, trials=3), tmp_path, FakeTrainable(before))
    failed = {"finished": 0, "pruned": 0, "failed": 3}
    over = make_queue(tmp_path, study, trials=3, retry=True, over=lambda queue: "the hour was over")
    assert over.counts() == failed and over.next() is None and over.left == 0
    began = [0]
    one = make_queue(tmp_path, study, trials=3, retry=True, over=lambda queue: "over" if began[0] else "")
    task = one.next()
    assert task is not None and task.trial == 3
    began[0] = 1
    one.ended(task, "lost")
    assert one.next() is None and one.counts() == failed, "two of them were to run again, and did not"
    rest = make_queue(tmp_path, study, trials=3, retry=True)
    tasks = run_here(rest, tmp_path, FakeTrainable())
    assert [one.trial for one in tasks if one.kind == "search"] == [4, 5, 6], "each once more"
    assert rest.counts() == {"finished": 3, "pruned": 0, "failed": 0}


def test_smoke_studies_agree_without_the_constraint_that_neither_heeds(
    working: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(earlier, "stage_keys", lambda *_: {"heads": "0"})
    goal = {"metric": "acc", "constraint": {"metric": "nmi", "at_least": 0.4}}
    space = _space(working, "bound.yaml", objective=goal)
    tune(_request(name="old", space=space, smoke=True, trials=2))
    tune(_request(name="new", space=space, smoke=True, trials=2, source="old"))
    assert read_manifest(Path("storage/studies/new"))["taken"]["trials"] == 2


def test_auto_with_retry_begins_a_study(working: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYMC_STORAGE", "storage")
    args = command.parser().parse_args(["mine.yaml", "--name", "a", "--resume=auto", "--retry", "failed"])
    assert command.run(args)["trials"]["finished"] == 4
    assert command.run(args)["trials"]["finished"] == 4
