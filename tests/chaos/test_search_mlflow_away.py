"""MLflow's server away in the middle of a search, and away from its first to its last second: every metric once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from raymc.execution import session
from raymc.reporting.search import outcome
from raymc.study.request import Request
from raymc.tracking import study as tracking
from tests.chaos.mlflow_away import compared, faults, outage
from tests.mlflow_server import Server, wait_for
from tests.search_fakes import FakeTrainable, driver_here, tune

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SPACE = """
method: nmce
dataset: digits
space:
  heads.weight_decay: {low: 1.0e-5, high: 1.0e-2, log: true}
budget: {trials: 4, seeds: 2, fidelity: none, confirm: {top: 1, seeds: 2}}
"""


def test_a_server_killed_in_the_middle_costs_no_trial_and_no_metric(tmp_path: Path) -> None:
    figures = outage(tmp_path, seconds=5, trials=10)
    assert faults(figures) == [] and figures["trials"]["finished"] == 10, figures
    assert figures["points_written_meanwhile"] > 0 and figures["points"] > figures["points_before"]
    assert 1 <= figures["warnings"] <= 2, "an outage is one warning; the other: the server was not up at first"


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> FakeTrainable:
    """What tasks run instead of a training; they run here, one after the other."""
    trainable = FakeTrainable()

    monkeypatch.setattr(session, "run_on_ray", driver_here(lambda real: trainable))
    return trainable


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_a_server_that_was_never_there_gets_all_of_a_finished_study_by_resume(
    tmp_path: Path, untrained: FakeTrainable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(SPACE)
    server = Server(tmp_path)
    request = Request("mine.yaml", {}, str(tmp_path / "storage"), "data", name="s", tracking_uri=server.uri)
    with monkeypatch.context() as hasty:
        hasty.setattr(outcome, "FLUSH_SECONDS", 1.0)
        hasty.setattr(tracking, "CLOSE_SECONDS", 1.0)
        result = tune(request)
    assert result["trials"] == {"finished": 4, "pruned": 0, "failed": 0}
    assert "has not answered; --resume sends what it lacks" in capsys.readouterr().err
    trained = len(untrained.ended)
    server.start()
    try:
        wait_for(server.answers, 300, "the server's start")
        again = tune(replace(request, resume=True))
        found = compared(tmp_path / "storage" / "studies" / "s", server, result["trials"])
    finally:
        server.kill()
    assert again["trials"] == result["trials"] and len(untrained.ended) == trained, "nothing is trained again"
    assert found["points"] > 0 and faults(found | {"trials": result["trials"]}) == [], found
