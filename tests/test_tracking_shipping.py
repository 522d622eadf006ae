"""From the spools into MLflow: every point once, whatever breaks in between."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from raymc.tracking import runs
from raymc.tracking.spool import Spool
from raymc.tracking.store import SETTINGS, Away, prepare
from raymc.tracking.tail import Tail
from tests.mlflow_database import DEPRECATED, metrics, new_database, query, sender, table, write_study

pytest.importorskip("mlflow", reason="mlflow is not installed: nothing to ship to")

pytestmark = pytest.mark.filterwarnings(DEPRECATED)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return new_database(tmp_path)


def test_a_study_arrives_whole(tmp_path: Path, database: Path) -> None:
    expected = write_study(tmp_path)
    sender(tmp_path, database).send_all()
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
    states = dict(query(database, "select name, status from runs"))
    assert states == dict.fromkeys(ids, "FINISHED") | {"trial-0001": "KILLED"}
    assert query(database, "select name from experiments where experiment_id != 0") == [("space",)]
    later = sender(tmp_path, database)  # a sitting that never reaches MLflow still knows where the runs are
    assert later.run_ids().keys() == {"study", "trial-0001", "trial-0001.seed-0", "trial-0001.seed-1"}
    assert later.experiment_id() == "1"


def test_sending_again_from_the_first_byte_changes_nothing(tmp_path: Path, database: Path) -> None:
    expected = write_study(tmp_path)
    first = sender(tmp_path, database)
    first.send_all()
    shutil.rmtree(tmp_path / "spool" / "sent")
    second = sender(tmp_path, database)
    second.send_all()
    assert second.run_ids() == first.run_ids()
    assert metrics(database) == expected
    assert query(database, "select count(*) from runs") == [(4,)]
    assert dict(query(database, "select name, status from runs"))["trial-0001"] == "KILLED"


@pytest.mark.parametrize("method", ["commit", "attach"])
def test_a_crash_before_the_offset_is_kept_doubles_nothing(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    expected = write_study(tmp_path)

    def crash(*_: object) -> None:
        raise SystemExit("killed")

    for _ in range(2):
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(Tail, method, crash)
            sender(tmp_path, database).send_all()
    sender(tmp_path, database).send_all()
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


def test_a_resumed_run_goes_on_and_keeps_first_values(tmp_path: Path, database: Path) -> None:
    def sitting(loss: float, decay: float, epochs: range) -> None:
        with runs.open_trial(tmp_path, 1, params={"heads.weight_decay": decay}) as log:
            for epoch in epochs:
                runs.log_event(log, {"event": "epoch", "stage": "heads", "epoch": epoch, "loss": loss})
            sender(tmp_path, database).send_all()
            assert query(database, "select status from runs where name = 'trial-0001'") == [("RUNNING",)]
        sender(tmp_path, database).send_all()

    sitting(1.0, 0.1, range(1, 5))
    sitting(2.0, 0.2, range(3, 8))
    found = {step: value for (_, _, step, value), count in metrics(database).items() if count == 1}
    assert found == dict.fromkeys(range(1, 5), 1.0) | dict.fromkeys(range(5, 8), 2.0)
    assert table(database, "params")["trial-0001", "heads.weight_decay"] == "0.1"
    assert query(database, "select status from runs where name = 'trial-0001'") == [("FINISHED",)]


def test_what_mlflow_refuses_costs_nothing_else(
    tmp_path: Path, database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = runs.open_trial(tmp_path, 1)
    spool.metrics({f"m{i}": float(i) for i in range(100)} | {"bad|name": 1.0}, step=0)
    spool.params({f"p{i}": i for i in range(150)} | {"bad|param": 1})
    spool.metrics({f"m{i}": float(i) for i in range(1000)}, step=1)
    with caplog.at_level(logging.WARNING, "raymc.tracking"):
        sender(tmp_path, database).send_all()
    assert sum(metrics(database).values()) == 1100
    assert len([key for _, key in table(database, "params") if key.startswith("p")]) == 150
    assert sorted(r.getMessage().split(":")[0] for r in caplog.records) == [
        "MLflow does not take bad|name",
        "MLflow does not take bad|param",
    ]


def test_studies_of_one_name_are_not_mixed(tmp_path: Path, database: Path) -> None:
    for folder in ("one", "two"):
        write_study(tmp_path / folder)
        sender(tmp_path / folder, database, study='it\'s "mine"').send_all()
    assert query(database, "select count(*) from runs") == [(8,)]
    assert set(metrics(database).values()) == {2}


def test_a_store_that_lost_the_runs_gets_them_again(tmp_path: Path, database: Path) -> None:
    expected = write_study(tmp_path)
    sender(tmp_path, database).send_all()
    with closing(sqlite3.connect(database)) as connection:
        for name in ("metrics", "latest_metrics", "params", "tags", "runs"):
            connection.execute(f"delete from {name}")
        connection.commit()
    late = runs.open_seed(tmp_path, 5, trial=1)
    late.end()
    one = sender(tmp_path, database)
    with pytest.raises(Away, match="sent again"):
        one.send_all()
    one.send_all()
    assert metrics(database) == expected
    assert table(database, "tags")["trial-0001.seed-5", "mlflow.parentRunId"] == one.run_ids()["trial-0001"]


def test_each_store_gets_everything(tmp_path: Path, database: Path) -> None:
    other = Path(shutil.copy(database, tmp_path / "other.db"))
    expected = write_study(tmp_path)
    sender(tmp_path, database).send_all()
    sender(tmp_path, other).send_all()
    assert metrics(database) == metrics(other) == expected


def test_a_run_that_the_user_deletes_stays_so(tmp_path: Path, database: Path) -> None:
    from mlflow import MlflowClient

    expected = write_study(tmp_path)
    one = sender(tmp_path, database)
    one.send_all()
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    client.delete_run(one.run_ids()["trial-0001.seed-0"])
    with runs.open_seed(tmp_path, 0, trial=1) as log:
        log.metrics({f"late{i}": 1.0 for i in range(50)}, step=0)
    runs.open_seed(tmp_path, 2, trial=1).end()
    one.send_all()
    assert metrics(database) == expected
    assert "trial-0001.seed-2" in one.run_ids()


def test_a_deleted_experiment_is_named_with_its_remedy(tmp_path: Path, database: Path) -> None:
    write_study(tmp_path)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("update experiments set lifecycle_stage = 'deleted' where name = 'space'")
        connection.commit()
    with pytest.raises(Away, match="mlflow experiments restore -x 1 brings it back"):
        sender(tmp_path, database).send_all()


def test_files_are_kept_with_the_run(tmp_path: Path, database: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "report.html").write_text("<p>")
    spool = runs.open_trial(tmp_path, 1)
    spool.artifact(tmp_path / "report.html", "report")
    spool.artifact(tmp_path / "gone.html")
    spool.metrics({"behind": 1.0}, step=0)
    one = sender(tmp_path, database)
    with caplog.at_level(logging.WARNING, "raymc.tracking"):
        one.send_all()
    assert ["gone.html is not kept" in r.getMessage() for r in caplog.records] == [True]
    assert metrics(database) == {("trial-0001", "behind", 0, 1.0): 1}
    ((place,),) = query(database, "select artifact_uri from runs where name = 'trial-0001'")
    assert place.endswith(f"/{one.run_ids()['trial-0001']}/artifacts")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    assert [f.path for f in client.list_artifacts(one.run_ids()["trial-0001"], "report")] == ["report/report.html"]


def test_settings_of_the_user_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT")
    prepare()
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "5"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == SETTINGS["MLFLOW_HTTP_REQUEST_TIMEOUT"]


def test_a_spool_that_lost_its_end_is_sent_anew(tmp_path: Path) -> None:
    path = tmp_path / "trial-0000.jsonl"
    with Spool(path) as spool:
        spool.metrics({"loss": 1.0}, 0)
        first = path.stat().st_size
        spool.metrics({"loss": 2.0}, 1)
    tail = Tail(path, tmp_path / "sent.json")
    tail.commit(path.stat().st_size)
    assert not tail.pending()
    path.write_bytes(path.read_bytes()[:first])
    assert tail.pending()
    records, end = tail.read()
    assert [record["values"] for record in records] == [{"loss": 1.0}] and end == first
