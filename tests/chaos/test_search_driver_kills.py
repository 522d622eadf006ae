"""A search on the digits whose driver is killed three times ends as one that nobody disturbed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import driver_kills
from tests.chaos.command import PATIENCE


@pytest.mark.slow
@pytest.mark.timeout(4 * PATIENCE)
def test_three_kills(tmp_path: Path) -> None:
    found = driver_kills.run(tmp_path, kills=3, trials=3, seed=40)
    assert found["kills"] == 3 and 0 < found["while_starting"] < 3, "kills of both kinds are wanted"
    # The winner on two fresh seeds, and beside it the default, which is trial 0.
    assert found["trainings"] == 1 + 3 * 2 + (2 if found["default_won"] else 4), "and the stage that they share"
