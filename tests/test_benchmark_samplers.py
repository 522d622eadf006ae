"""The benchmark of samplers and pruners, with a training that does nothing: what it counts, and that it goes on."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import samplers
from tests.search_fakes import FakeTrainable, Killed


def _main(monkeypatch: pytest.MonkeyPatch, trainable: FakeTrainable, *words: str) -> list[dict[str, Any]]:
    monkeypatch.setattr(samplers, "TrainSeed", lambda *_: trainable)
    monkeypatch.setattr(sys, "argv", ["samplers", *words])
    samplers.main()
    found: list[dict[str, Any]] = json.loads((Path(words[0]) / "samplers.json").read_text())["searches"]
    return found


def test_each_search_is_confirmed_after_its_steps_and_goes_on_where_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["random", "unpruned", "asha", "wilcoxon"]
    words = ("--trials", "12", "--repeats", "1", "--seeds", "1", "--fresh", "2", "--searches", *names)
    passed = [0]

    def before(params: Mapping[str, Any], seed: int, epoch: int) -> None:
        passed[0] += epoch == 2
        if passed[0] == 30:
            raise Killed

    with pytest.raises(Killed):
        _main(monkeypatch, FakeTrainable(before), str(tmp_path / "a"), *words)
    found = _main(monkeypatch, FakeTrainable(), str(tmp_path / "a"), *words)
    assert [one["name"] for one in found] == sorted(names)
    assert found == [one | {"seconds": mine["seconds"]} for one, mine in zip(
        _main(monkeypatch, FakeTrainable(), str(tmp_path / "b"), *words), found, strict=True
    )]  # fmt: skip
    by_name = {one["name"]: one for one in found}
    assert all(set(one["steps"]) == {"10", "12"} for one in found)
    assert by_name["random"]["trainings"] == 12 and by_name["unpruned"]["trainings"] == 12 * samplers.PAIRED
    for name in ("asha", "wilcoxon"):
        assert by_name[name]["pruned"] and by_name[name]["trainings"] < 12 * samplers.PAIRED
    shown = capsys.readouterr().out
    assert "| search | repeats | ACC after 10 | ACC after 12 | trainings | pruned |" in shown


def test_no_seed_serves_two_repeats() -> None:
    used = [
        {*range(one.seed, one.seed + samplers.PAIRED), *one.fresh_seeds}
        for one in (samplers.Search(Path(), "tpe", repeat, 40, 3, 5, "") for repeat in range(5))
    ]
    assert sum(map(len, used)) == len(set().union(*used)) and min(set().union(*used)) >= 20_000
