"""A process that is killed while it writes a stage's result, twenty times: nothing torn is served, nothing piles up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from raymc.storage import lease as lease_module
from raymc.storage.stage_store import Store
from tests.chaos import torn_writes
from tests.chaos.torn_writes import KEY


@pytest.mark.slow
def test_twenty_kills_in_the_middle_of_a_write(tmp_path: Path) -> None:
    found = torn_writes.run(tmp_path, kills=20, seed=0)
    assert found["kills_that_left_a_temporary_file"] >= 4, "the kills have missed the writes"
    assert found["saves"] >= 20 and found["looks"] > 20


def test_who_takes_a_lease_over_clears_away_what_the_killed_holder_left(tmp_path: Path) -> None:
    store, folder = Store(str(tmp_path)), tmp_path / "stages" / KEY
    (folder / "held").mkdir(parents=True)
    (folder / "held" / f"dead.{lease_module._machine()}.{2**22 + 1}").touch()  # above all that Linux gives
    store.save(KEY, {"weights": {"w": torch.ones(3)}}, {}, "epoch")
    kept = {path.name for path in folder.iterdir()}
    for name in ("epoch-0123.pt", ".result.json.0123.tmp", "result-0123.pt.0123.tmp", "lease"):
        (folder / name).write_text("half")
    (folder / ".held.0123.tmp").mkdir()
    assert store.lease(KEY).try_acquire()
    assert {path.name for path in folder.iterdir()} == kept and store.load(KEY, "epoch") is not None


def test_a_holder_that_was_taken_for_dead_writes_again_what_was_swept_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    rename, swept = os.replace, []

    def late(path: Path, target: Path) -> None:
        if not swept:
            swept.append(path)
            path.unlink()
        rename(path, target)

    monkeypatch.setattr(os, "replace", late)
    store.save(KEY, {"weights": {"w": torch.ones(3)}}, {})
    assert swept and store.load(KEY) is not None
    assert not list((tmp_path / "stages" / KEY).glob("*.tmp"))
