"""A real MLflow server, killed in the middle of a training and started again: every metric once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from raymc.tracking import runs
from raymc.tracking.study import StudyTracker
from tests.mlflow_server import Server, wait_for

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


def of_the_seed(server: Server) -> Counter[tuple[str, int, float]]:
    """How often each point of the seed's run is in the server's database."""
    found = server.points().items()
    return Counter({(key, step, value): n for (name, key, step, value), n in found if name == "trial-0000.seed-0"})


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
        wait_for(lambda: len(of_the_seed(server)) >= 50, 60)
        server.kill()
        before = len(spooled(study))
        assert before < EPOCHS * 10, "the training was over before the server died"
        wait_for(lambda: len(spooled(study)) >= before + 100, 60)
        assert training.poll() is None and len(of_the_seed(server)) < len(spooled(study))
        server.start()
        assert training.wait(300) == 0
        assert tracker.flush(300.0)
        assert tracker.close(timeout=60.0)
        found = of_the_seed(server)
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
