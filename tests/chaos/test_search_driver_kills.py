"""A search on the digits whose driver is killed twice ends as one that nobody disturbed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chaos import driver_kills
from tests.chaos.command import PATIENCE


@pytest.mark.slow
@pytest.mark.timeout(4 * PATIENCE)
@pytest.mark.filterwarnings("default")  # Ray's and MLflow's own
def test_two_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Any) -> None:
    """The first, of the driver alone, while it trains; the second, with all of its Ray, while it starts."""

    def unbroken(search: driver_kills.Search) -> dict[str, Any]:
        monkeypatch.chdir(search.work)
        return dict(command("tune", *(word for word in search.words() if word != "--json")))

    found = driver_kills.run(tmp_path, kills=2, trials=3, seed=40, unbroken=unbroken)
    assert [(kill["moment"], kill["alone"]) for kill in found["moments"]] == [("work", True), ("start", False)]
    # The winner on two fresh seeds, and beside it the default, which is trial 0.
    assert found["trainings"] == 1 + 3 * 2 + (2 if found["default_won"] else 4), "and the stage that they share"
