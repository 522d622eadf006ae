"""From the records into MLflow: every point once, whatever breaks in between."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from raymc.study.events import EVENTS, EventLog
from raymc.study.files import seed_folder
from raymc.tracking.client import SETTINGS, Away, Client, prepare
from raymc.tracking.projection import points_of, texts
from tests.mlflow_database import DEPRECATED, metrics, new_database, query, record, sender, table, train, write_study

pytest.importorskip("mlflow", reason="mlflow is not installed: nothing to ship to")

pytestmark = pytest.mark.filterwarnings(DEPRECATED)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return new_database(tmp_path)


def statuses(database: Path) -> dict[str, str]:
    return dict(query(database, "select name, status from runs"))


def test_a_study_arrives_whole_and_once(tmp_path: Path, database: Path) -> None:
    expected = write_study(tmp_path)
    first = sender(tmp_path, database)
    first.send_all()
    assert metrics(database) == expected
    tags, params = table(database, "tags"), table(database, "params")
    ids = {name: run for run, name in query(database, "select run_uuid, name from runs")}
    assert ids.keys() == {"a study", "trial-0001", "trial-0001.seed-0", "trial-0001.seed-1"}
    assert tags["trial-0001", "mlflow.parentRunId"] == ids["a study"]
    assert tags["trial-0001.seed-1", "mlflow.parentRunId"] == ids["trial-0001"]
    assert tags["trial-0001.seed-1", "raymc.seed"] == "1" and tags["trial-0001", "raymc.trial"] == "1"
    assert all(tags[name, "raymc.study"] == "a study" for name in ids)
    assert tags["trial-0001", "raymc.state"] == "pruned"
    assert params["trial-0001", "heads.weight_decay"] == "0.001" and params["a study", "heads.epochs"] == "30"
    ended = dict.fromkeys(ids, "FINISHED") | {"trial-0001": "KILLED"}
    assert statuses(database) == ended
    assert query(database, "select name from experiments where experiment_id != 0") == [("space",)]
    again = sender(tmp_path, database)  # nothing but MLflow says what was sent
    again.send_all()
    assert again.run_ids() == first.run_ids() and again.client.experiment_id == "1"
    assert metrics(database) == expected and statuses(database) == ended


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_driver_killed_at_any_call_doubles_and_loses_nothing(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A new driver each time, that is killed at its first, second, … call before or after MLflow has answered."""
    expected, calls = write_study(tmp_path), 0
    for number in range(1, 50):
        calls = 0

        def killed_at(name: str, number: int = number) -> Callable[..., object]:
            real = getattr(Client, name)

            def call(*args: object) -> object:
                nonlocal calls
                calls += 1
                if calls == number and when == "before":
                    raise SystemExit
                answer = real(*args)
                if calls == number:
                    raise SystemExit
                return answer

            return call

        with monkeypatch.context() as patch:
            for name in ("create_run", "_log", "set_status"):
                patch.setattr(Client, name, killed_at(name))
            try:
                sender(tmp_path, database).send_all()
                break
            except SystemExit:
                continue
    assert number > 3
    assert metrics(database) == expected
    assert query(database, "select count(*) from runs") == [(4,)]


def test_an_answer_that_is_lost_on_the_way_doubles_nothing(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    expected = write_study(tmp_path)
    calls = Counter[str]()

    def lossy(name: str) -> Callable[..., object]:
        real = getattr(MlflowClient, name)

        def call(*args: object, **kwargs: object) -> object:
            calls[name] += 1
            answer = real(*args, **kwargs)
            if calls[name] % 2:
                raise ConnectionError("reset by peer")
            return answer

        return call

    for name in ("create_run", "log_batch", "set_terminated"):
        monkeypatch.setattr(MlflowClient, name, lossy(name))
    one = sender(tmp_path, database)
    outages = 0
    while True:
        try:
            one.send_all()
            break
        except Away:
            outages += 1
    assert outages >= 6
    assert metrics(database) == expected
    assert query(database, "select count(*) from runs") == [(4,)]


def test_a_call_that_mlflow_answers_late_is_the_same_when_it_is_made_again(tmp_path: Path, database: Path) -> None:
    expected = write_study(tmp_path)
    one = sender(tmp_path, database)
    one.send_all()
    for known in one._known.values():  # as it was asked what it has before it had it
        known.steps = {}
    one._complete, one._stamps = set(), {}
    for known in one._known.values():
        known.tags.pop("raymc.state", None)
    one.send_all()
    assert metrics(database) == expected


def test_a_trial_taken_up_again_goes_on_and_keeps_first_values(tmp_path: Path, database: Path) -> None:
    trial = "select status from runs where name = 'trial-0001.seed-0'"
    one = sender(tmp_path, database)
    for loss, decay, epochs in ((1.0, 0.1, range(1, 5)), (2.0, 0.2, range(3, 8))):
        row = train(tmp_path, 0, epochs, loss)
        record(tmp_path, [], params={"heads.weight_decay": decay})
        one.over = False
        one.send_all()
        assert query(database, trial) == [("RUNNING",)]
        one.over = True
        one.send_all()
        assert query(database, trial) == [("KILLED",)], "a driver that ends leaves none running"
        one = sender(tmp_path, database)
    record(tmp_path, [row], "finished")
    one.send_all()
    losses = {step: value for (_, key, step, value) in metrics(database) if key == "heads.loss"}
    assert losses == {step: (1.0 if step < 5 else 2.0) / step for step in range(1, 8)}
    assert set(metrics(database).values()) == {1}
    assert table(database, "params")["trial-0001", "heads.weight_decay"] == "0.1"
    assert query(database, trial) == [("FINISHED",)]


def test_how_a_trial_ended_is_how_its_seeds_without_a_result_did(tmp_path: Path, database: Path) -> None:
    for trial, state in enumerate(("pruned", "failed", "running")):
        row = train(tmp_path, 0, range(1, 3), trial=trial)
        train(tmp_path, 1, range(1, 2), trial=trial)
        record(tmp_path, [row], state, trial)
    sender(tmp_path, database).send_all()
    found = {name: status for name, status in statuses(database).items() if name != "a study"}
    assert found == {
        f"trial-000{trial}{run}": status if run != ".seed-0" else "FINISHED"
        for trial, status in enumerate(("KILLED", "FAILED", "RUNNING"))
        for run in ("", ".seed-0", ".seed-1")
    }


@pytest.mark.parametrize("sent", ["nothing", "half", "all"])
def test_a_study_of_an_older_version_is_sent_from_its_curves(tmp_path: Path, database: Path, sent: str) -> None:
    """It has a spool that nobody reads, no events, and MLflow may have any part of it, with other times."""
    expected = write_study(tmp_path)
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "id").write_text("an older study")
    for seed in (0, 1):
        place = seed_folder(tmp_path, "search", 1, seed)
        events = [json.loads(line) for line in (place / EVENTS).read_text().splitlines()[1:]]
        (place / EVENTS).unlink()
        rows = [{key: row[key] for key in ("stage", "epoch", "loss", "rate")} | {"cached": False} for row in events]
        rows.insert(0, {"stage": "pretrain", "epoch": 1, "loss": 9.0, "cached": True})  # of the run that computed it
        (place / "curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = sender(tmp_path, database)
    if sent == "half":
        before.client.connect()
        parents = [None]
        for name, shown in (
            ("study", "a study"),
            ("trial-0001", "trial-0001"),
            ("trial-0001.seed-0", "trial-0001.seed-0"),
        ):
            parents.append(before.client.create_run(shown, {"raymc.run": name}, parents[-1], 1).run_id)
        early = [
            p
            for epoch in range(1, 9)
            for p in points_of({"heads.loss": 1 / epoch, "heads.rate": 1e-9 * epoch / 3}, epoch, epoch)
        ]
        before.client.deliver(str(parents[-1]), early, {}, {})
    elif sent == "all":
        before.send_all()
    sender(tmp_path, database).send_all()
    assert metrics(database) == expected
    assert query(database, "select count(*) from runs") == [(4,)]
    assert {value for (_, key), value in table(database, "tags").items() if key == "raymc.spool"} == {"an older study"}


def test_what_mlflow_refuses_costs_nothing_else(
    tmp_path: Path, database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with EventLog(seed_folder(tmp_path, "search", 1, 0) / EVENTS) as log:
        for epoch, count, bad in ((1, 100, {"bad|name": 1.0}), (2, 1000, {})):
            values = {f"m{i}": float(i) for i in range(count)}
            log.append({"event": "epoch", "stage": "heads", "epoch": epoch, **values, **bad})
    record(tmp_path, [], params={f"p{i}": i for i in range(150)} | {"bad|param": 1})
    with caplog.at_level(logging.WARNING, "raymc.tracking"):
        sender(tmp_path, database).send_all()
    assert sum(metrics(database).values()) == 1100
    assert len([key for _, key in table(database, "params") if key.startswith("p")]) == 150
    assert sorted(r.getMessage().split(":")[0] for r in caplog.records) == [
        "MLflow does not take bad|param",
        "MLflow does not take heads.bad|name",
    ]


def test_studies_of_one_name_are_not_mixed(tmp_path: Path, database: Path) -> None:
    for folder in ("one", "two"):
        write_study(tmp_path / folder)
        sender(tmp_path / folder, database, study='it\'s "mine"').send_all()
    assert query(database, "select count(*) from runs") == [(8,)]
    assert set(metrics(database).values()) == {2}


def test_a_store_that_lost_the_runs_gets_them_again(tmp_path: Path, database: Path) -> None:
    expected = write_study(tmp_path)
    one = sender(tmp_path, database)
    one.send_all()
    with closing(sqlite3.connect(database)) as connection:
        for name in ("metrics", "latest_metrics", "params", "tags", "runs"):
            connection.execute(f"delete from {name}")
        connection.commit()
    record(tmp_path, [train(tmp_path, 0, range(1, 2), trial=2)], "finished", 2)
    one.late = [("study", ("drop", 0.5, 5, 1))]
    expected["a study", "drop", 1, 0.5] += 1
    with pytest.raises(Away, match="sent again"):  # the driver at work
        one.send_all()
    one.send_all()
    found = metrics(database)
    assert Counter({point: n for point, n in found.items() if not point[0].startswith("trial-0002")}) == expected
    assert table(database, "tags")["trial-0002.seed-0", "mlflow.parentRunId"] == one.run_ids()["trial-0002"]


def test_each_store_gets_everything(tmp_path: Path, database: Path) -> None:
    other = Path(shutil.copy(database, tmp_path / "other.db"))
    expected = write_study(tmp_path)
    sender(tmp_path, database).send_all()
    sender(tmp_path, other).send_all()
    assert metrics(database) == metrics(other) == expected


def test_a_run_that_the_user_deletes_stays_so(tmp_path: Path, database: Path) -> None:
    from mlflow import MlflowClient

    rows = [train(tmp_path, 0, range(1, 5))]
    record(tmp_path, [])
    one = sender(tmp_path, database)
    one.send_all()
    before = metrics(database)
    MlflowClient(tracking_uri=f"sqlite:///{database}").delete_run(one.run_ids()["trial-0001.seed-0"])
    train(tmp_path, 0, range(5, 50))
    one.send_all()
    rows.append(train(tmp_path, 1, range(1, 3)))
    record(tmp_path, rows, "finished")
    for each in (one, sender(tmp_path, database)):  # the second one finds it deleted
        each.send_all()
    new = {run for run, *_ in metrics(database) - before}
    assert new == {"trial-0001", "trial-0001.seed-1"}
    assert query(database, "select count(*) from runs") == [(4,)]


def test_a_deleted_experiment_is_named_with_its_remedy(tmp_path: Path, database: Path) -> None:
    write_study(tmp_path)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("update experiments set lifecycle_stage = 'deleted' where name = 'space'")
        connection.commit()
    with pytest.raises(Away, match="mlflow experiments restore -x 1 brings it back"):
        sender(tmp_path, database).send_all()


def test_files_are_kept_with_the_run(tmp_path: Path, database: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "report.html").write_text("<p>")
    one = sender(tmp_path, database)
    one.artifacts = [(tmp_path / "report.html", "report"), (tmp_path / "gone.html", None)]
    one.late = [("study", ("behind", 1.0, 5, 0))]
    with caplog.at_level(logging.WARNING, "raymc.tracking"):
        one.send_all()
    assert ["gone.html is not kept" in r.getMessage() for r in caplog.records] == [True]
    assert metrics(database) == {("a study", "behind", 0, 1.0): 1} and one.artifacts == []
    ((place,),) = query(database, "select artifact_uri from runs where name = 'a study'")
    assert place.endswith(f"/{one.run_ids()['study']}/artifacts")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    assert [f.path for f in client.list_artifacts(one.run_ids()["study"], "report")] == ["report/report.html"]


def test_settings_of_the_user_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT")
    prepare()
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "5"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == SETTINGS["MLFLOW_HTTP_REQUEST_TIMEOUT"]


def test_values_are_written_as_on_the_command_line() -> None:
    values = {"a": None, "b": False, "c": 1e-5, "d": "relu", "e": [1, 2], "f": Path("x")}
    assert texts(values) == {"a": "null", "b": "false", "c": "1e-05", "d": "relu", "e": "[1, 2]", "f": '"x"'}
