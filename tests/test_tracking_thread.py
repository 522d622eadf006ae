"""The shipper's thread: it follows writers at work, outlives outages, and never troubles its caller."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from raymc.tracking.shipper import Shipper

from raymc.tracking import runs
from raymc.tracking.sender import Sender
from raymc.tracking.study import StudyTracker
from tests.mlflow_database import DEPRECATED, metrics, new_database, query, write_study
from tests.server_process import free_port

pytest.importorskip("mlflow", reason="mlflow is not installed: nothing to ship to")

pytestmark = pytest.mark.filterwarnings(DEPRECATED)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return new_database(tmp_path)


WRITER = """
import sys, time
from pathlib import Path
from raymc.tracking import runs
for seed in range(2):
    with runs.open_seed(Path(sys.argv[1]), seed, trial=int(sys.argv[2])) as log:
        for epoch in range(1, 101):
            row = {f"m{i}": epoch + i / 10 for i in range(10)}
            runs.log_event(log, {"event": "epoch", "stage": "heads", "epoch": epoch, **row})
            time.sleep(0.002)
"""


def test_the_thread_follows_writers_at_work(tmp_path: Path, database: Path) -> None:
    with StudyTracker(
        tmp_path, study="a study", space="space", tracking_uri=f"sqlite:///{database}", params={"seed": 0}
    ) as tracker:
        writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(i)]) for i in range(3)]
        tracker.log_statistics({"acc": {"mean": 0.9}}, step=1)
        assert [process.wait() for process in writers] == [0, 0, 0]
        assert tracker.flush(60.0)
        assert tracker.run_id == tracker.run_ids()["study"] and tracker.experiment_id == "1"
    expected = {
        (runs.run_name(trial, seed), f"heads.m{i}", epoch, epoch + i / 10)
        for trial in range(3)
        for seed in range(2)
        for i in range(10)
        for epoch in range(1, 101)
    } | {("a study", "acc_mean", 1, 0.9)}
    assert metrics(database) == Counter(expected)
    assert set(query(database, "select status from runs where name like '%seed%' or name = 'a study'")) == {
        ("FINISHED",)
    }


def test_an_outage_is_one_warning_and_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_study(tmp_path)
    uri = f"http://me:secret@127.0.0.1:{free_port()}"
    with caplog.at_level(logging.INFO):
        shipper = Shipper(tmp_path / "spool", uri, "space", study="a study", interval=0.02)
        assert not shipper.flush(0.1)
        shipper.start()
        assert not shipper.flush(1.5)
        assert shipper.run_ids() == {} and shipper.experiment_id is None
        assert not shipper.close(0.2)
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
    shipper = Shipper(tmp_path / "spool", f"sqlite:///{database}", "space", study="a study", interval=0.02)
    shipper.start()
    assert shipper.close(60.0)
    assert metrics(database) == expected
    assert len([r for r in caplog.records if "does not take metrics" in r.getMessage()]) == 1


FIRST_USE = """
import sys
from raymc.tracking.store import Store, prepare
prepare()
store = Store(sys.argv[1], "space", {})
store.connect()
print(store.experiment_id)
"""


@pytest.mark.slow
def test_processes_that_meet_at_a_new_database_do_not_break_it(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/new folder/mlflow.db"
    command = [sys.executable, "-c", FIRST_USE, uri]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0] for process in processes] == ["1\n"] * 2
