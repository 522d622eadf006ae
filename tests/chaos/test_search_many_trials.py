"""Sixty short trials through a real Ray Tune: memory, open files and the files of a trial do not grow with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import many_trials
from tests.chaos.many_trials import SETTLED
from tests.mlflow_database import new_database

FILES = 6
"""Of a trial of two seeds: its record, and a result and the events of each, and one to spare."""


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's own
def test_nothing_grows_with_the_number_of_trials(tmp_path: Path) -> None:
    new_database(tmp_path)
    found = many_trials.run(tmp_path, 60)
    rows = found["rows"][SETTLED:]
    assert len({row["worker_pid"] for row in rows}) == 1, "one process serves all trials"
    for who in ("driver", "worker"):
        handles = [row[f"{who}_handles"] for row in rows]
        assert max(handles) <= handles[0] + 3, f"the {who} keeps files open: {handles}"
        assert found["growth_a_trial_kb"][who] < 200, f"the {who} keeps what trials have left"
    assert found["files_a_trial"] < FILES
    assert found["files"] < FILES * 60 + 20
