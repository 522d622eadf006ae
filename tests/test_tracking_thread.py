"""The tracker's thread: it follows writers at work, outlives outages, and never troubles its caller."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from raymc.tracking import study
from raymc.tracking.projection import run_name
from raymc.tracking.sender import Sender
from raymc.tracking.study import StudyTracker
from tests.mlflow_database import DEPRECATED, metrics, new_database, query, record, write_study
from tests.server_process import free_port

pytest.importorskip("mlflow", reason="mlflow is not installed: nothing to ship to")

pytestmark = pytest.mark.filterwarnings(DEPRECATED)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return new_database(tmp_path)


WRITER = """
import sys, time
from pathlib import Path
from raymc.study.events import EVENTS, EventLog
for seed in range(2):
    with EventLog(Path(sys.argv[1], "trials", f"000{sys.argv[2]}", f"seed-{seed}", EVENTS)) as log:
        for epoch in range(1, 101):
            row = {f"m{i}": epoch + i / 10 for i in range(10)}
            log.append({"event": "epoch", "stage": "heads", "epoch": epoch, **row})
            time.sleep(0.002)
"""


def test_the_thread_follows_writers_at_work(tmp_path: Path, database: Path) -> None:
    for trial in range(3):
        record(tmp_path, [], trial=trial)
    with StudyTracker(
        tmp_path, study="a study", space="space", tracking_uri=f"sqlite:///{database}", params={"seed": 0}
    ) as tracker:
        writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(i)]) for i in range(3)]
        tracker.log_statistics({"acc": {"mean": 0.9}}, step=1)
        assert [process.wait() for process in writers] == [0, 0, 0]
        assert tracker.flush(60.0)
        assert tracker.run_id == tracker.run_ids()["study"] and tracker.experiment_id == "1"
        assert set(query(database, "select status from runs")) == {("RUNNING",)}
    expected = {
        (run_name(trial, seed), f"heads.m{i}", epoch, epoch + i / 10)
        for trial in range(3)
        for seed in range(2)
        for i in range(10)
        for epoch in range(1, 101)
    } | {("a study", "acc_mean", 1, 0.9)}
    assert metrics(database) == Counter(expected)
    ended = dict(query(database, "select name, status from runs"))
    assert ended.pop("a study") == "FINISHED" and set(ended.values()) == {"KILLED"}, "no record says that they ended"


def test_an_outage_is_one_warning_and_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tmp_path)
    monkeypatch.setattr(study, "INTERVAL", 0.02)
    uri = f"http://me:secret@127.0.0.1:{free_port()}"
    with caplog.at_level(logging.INFO):
        tracker = StudyTracker(tmp_path, study="a study", space="space", tracking_uri=uri)
        assert not tracker.flush(0.1)
        tracker.start()
        assert not tracker.flush(1.5)
        assert tracker.run_ids() == {} and tracker.run_id is None and tracker.experiment_id is None
        assert not tracker.close(timeout=0.2)
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(said) == 2
    assert "does not take metrics" in said[0] and "goes with --resume" in said[1]
    assert "secret" not in caplog.text


def test_the_thread_outlives_what_nobody_foresaw(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = write_study(tmp_path)
    faults = iter([KeyError("unforeseen"), RecursionError(), None, None, None, None])
    real = Sender.send_all

    def faulty(self: Sender) -> None:
        fault = next(faults, None)
        if fault is not None:
            raise fault
        real(self)

    monkeypatch.setattr(Sender, "send_all", faulty)
    monkeypatch.setattr(study, "INTERVAL", 0.02)
    tracker = StudyTracker(tmp_path, study="a study", space="space", tracking_uri=f"sqlite:///{database}")
    tracker.start()
    assert tracker.close(timeout=60.0)
    assert metrics(database) == expected
    assert len([r for r in caplog.records if "does not take metrics" in r.getMessage()]) == 1


FIRST_USE = """
import sys
from raymc.tracking.client import Client, prepare
prepare()
client = Client(sys.argv[1], "space", {})
client.connect()
print(client.experiment_id)
"""


@pytest.mark.slow
def test_processes_that_meet_at_a_new_database_do_not_break_it(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/new folder/mlflow.db"
    command = [sys.executable, "-c", FIRST_USE, uri]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0] for process in processes] == ["1\n"] * 2
