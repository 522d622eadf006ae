"""What MLflow refuses for good is told at once and not waited for; an outage is waited for once, with a line."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from raymc.tracking import study
from raymc.tracking.client import Unusable, translated
from raymc.tracking.study import StudyTracker
from tests.mlflow_database import DEPRECATED, metrics, new_database, write_study
from tests.server_process import free_port

pytest.importorskip("mlflow", reason="mlflow is not installed: nothing to ship to")

pytestmark = pytest.mark.filterwarnings(DEPRECATED)

DELETE = "update experiments set lifecycle_stage = '{}' where name = 'space'"
SCHEMA = "update alembic_version set version_num = '{}'"


def _do(database: Path, sql: str) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(sql)
        connection.commit()


@pytest.mark.parametrize(
    ("sql", "remedy"),
    [
        (DELETE.format("deleted"), "experiment space is deleted there; mlflow experiments restore -x 1 brings it back"),
        (SCHEMA.format("451aebb31d03"), "the database's schema is another MLflow's; `mlflow db upgrade URI`"),
        (SCHEMA.format("of_tomorrow"), "for a newer one install that MLflow here"),
    ],
)
def test_a_refusal_is_told_with_its_remedy_and_not_waited_for(
    sql: str, remedy: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    database = new_database(tmp_path)
    expected = write_study(tmp_path)
    _do(database, sql)
    tracker = StudyTracker(tmp_path, study="a study", space="space", tracking_uri=f"sqlite:///{database}")
    tracker.start()
    begun = time.monotonic()
    assert not tracker.flush(300.0) and tracker.refusal is not None and remedy in tracker.refusal
    assert "deleted" not in sql or _mended(database, tracker, expected)
    assert tracker.close(timeout=300.0) == ("deleted" in sql) and time.monotonic() - begun < 200.0
    told = [record.getMessage() for record in caplog.records if "does not take metrics" in record.getMessage()]
    assert len(told) == 1 and remedy in told[0] and "Traceback" not in caplog.text


def _mended(database: Path, tracker: StudyTracker, expected: object) -> bool:
    _do(database, DELETE.format("active"))
    return tracker.flush(60.0) and tracker.refusal is None and metrics(database) == expected


def test_an_outage_is_waited_for_once_and_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(tmp_path)
    monkeypatch.setattr(study, "SILENT_SECONDS", 0.2)
    uri = f"http://me:secret@127.0.0.1:{free_port()}"
    tracker = StudyTracker(tmp_path, study="a study", space="space", tracking_uri=uri)
    tracker.start()
    assert not tracker.flush(1.0)
    begun = time.monotonic()
    assert not tracker.flush(60.0) and not tracker.close(timeout=60.0) and time.monotonic() - begun < 30.0
    assert capsys.readouterr().err == f"waiting up to 1 s for MLflow at {uri.replace('secret', '***')}\n"
    assert tracker.refusal is None


def test_missing_rights_are_a_refusal() -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

    with pytest.raises(Unusable, match="no entry; see MLFLOW_TRACKING_USERNAME"), translated():
        raise MlflowException("no entry", error_code=PERMISSION_DENIED)
