"""A real MLflow server, killed in the middle of a training and started again: every metric once."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from raymc.tracking import runs
from raymc.tracking.study import StudyTracker

pytest.importorskip("mlflow", reason="mlflow is not installed: no server to kill")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EPOCHS = 400

TRAINING = f"""
import math, sys, time
from pathlib import Path
from raymc.tracking import runs
with runs.open_trial(Path(sys.argv[1]), 0, params={{"heads.weight_decay": 1e-3}}) as trial:
    with runs.open_seed(Path(sys.argv[1]), 0, trial=0) as log:
        for epoch in range(1, {EPOCHS} + 1):
            row = {{f"term{{i}}": math.exp(-epoch / 50) + i / 7 for i in range(10)}}
            runs.log_event(log, {{"event": "epoch", "stage": "heads", "epoch": epoch, **row}})
            time.sleep(0.15)
"""


class Server:
    """`mlflow server` on a free port of this machine, in a process group of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.database = folder / "server.db"
        self.uri = f"http://127.0.0.1:{self.port}"
        self._log = (folder / "server.log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.database}"]
        settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self._process = subprocess.Popen(
            command,
            env=os.environ | settings,
            cwd=self.database.parent,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def kill(self) -> None:
        """End the server and the workers it started, which are all there is in its group, without notice."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        self.kill()
        self._log.close()

    def metrics(self) -> Counter[tuple[str, int, float]]:
        """How often each point of the seed's run is in the server's database."""
        if not self.database.exists():
            return Counter()
        sql = "select key, step, value from metrics join runs using (run_uuid) where name = 'trial-0000.seed-0'"
        with closing(sqlite3.connect(self.database, timeout=20)) as connection:
            try:
                return Counter(connection.execute(sql).fetchall())
            except sqlite3.OperationalError:  # the server is still making its tables
                return Counter()


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.2)


def spooled(folder: Path) -> list[tuple[str, int, float]]:
    lines = (folder / "spool" / "trial-0000.seed-0.jsonl").read_bytes().split(b"\n")[:-1]
    records = [json.loads(line) for line in lines]
    return [(k, r["step"], v) for r in records if r["kind"] == "metrics" for k, v in r["values"].items()]


def test_a_server_that_dies_in_the_middle_of_a_training_has_every_metric_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(tmp_path)
    server.start()
    study = tmp_path / "a study"
    training: subprocess.Popen[bytes] | None = None
    try:
        tracker = StudyTracker(study, study="a study", space="space", tracking_uri=server.uri)
        tracker.start()
        assert tracker.flush(300.0), "the server never answered"
        training = subprocess.Popen([sys.executable, "-c", TRAINING, str(study)])
        wait_for(lambda: len(server.metrics()) >= 50, 60)
        server.kill()
        before = len(spooled(study))
        assert before < EPOCHS * 10, "the training was over before the server died"
        wait_for(lambda: len(spooled(study)) >= before + 100, 60)
        assert training.poll() is None and len(server.metrics()) < len(spooled(study))
        server.start()
        assert training.wait(300) == 0
        assert tracker.flush(300.0)
        assert tracker.close(timeout=60.0)
        found = server.metrics()
    finally:
        if training is not None and training.poll() is None:
            training.kill()
            training.wait()
        server.close()
    expected = spooled(study)
    assert len(expected) == len(set(expected)) == EPOCHS * 10
    assert found == Counter(expected)
    assert tracker.run_ids().keys() == {"study", runs.run_name(0), runs.run_name(0, 0)}
    assert capsys.readouterr().out == ""  # MLflow's client would print links there
    outages = [r.getMessage() for r in caplog.records if "does not take metrics" in r.getMessage()]
    assert 1 <= len(outages) <= 2  # the second one: the server was not up when the tracker started
