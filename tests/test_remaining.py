"""What a study has still to do, by the files of studies that were never trained, at every step of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raymc.study.inventory import find_entry
from raymc.study.reader import read_study
from raymc.study.remaining import fresh_left, trials_left

ONE, TWO, DEFAULT = {"k": 1.0}, {"k": 2.0}, {"k": 3.0}


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A study of two trials, of which the best is run on two fresh seeds, and the default beside it."""
    write(tmp_path, "study.json", {
        "study": "s", "created": "2026-01-05T10:00:00+00:00", "seeds": [0], "default": DEFAULT,
        "objective": {"metric": "acc", "mode": "max"}, "budget": {"trials": 2, "seeds": 1},
        "confirm": {"top": 1, "seeds": [1000, 1001]},
    })  # fmt: skip
    return tmp_path


def write(storage: Path, name: str, content: dict[str, Any]) -> None:
    path = storage / "studies/s" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def record(
    storage: Path, kind: str, trial: int, params: dict[str, float], state: str = "finished", score: float = 0.5,
    seeds: int = 0, error: str | None = None,
) -> None:  # fmt: skip
    runs = [{"seed": 1000 + seed, "state": "finished", "metrics": {"acc": score}} for seed in range(seeds)]
    content = {"trial": trial, "state": state, "params": params, "score": score if state == "finished" else None}
    write(storage, f"{kind}/{trial:04d}/record.json", content | {"per_seed": runs, "error": error, "metrics": {}})


def stands(storage: Path) -> tuple[int, int, str]:
    study = read_study(storage / "studies/s")
    return trials_left(study), fresh_left(study), find_entry(str(storage), "s").state


def test_a_study_is_finished_when_the_default_has_been_run_too(storage: Path) -> None:
    assert stands(storage) == (2, 4, "interrupted")
    record(storage, "trials", 0, ONE)
    record(storage, "trials", 1, TWO, score=0.6)
    assert stands(storage) == (0, 4, "interrupted")
    record(storage, "confirm", 1, TWO, "running", seeds=1)
    assert stands(storage) == (0, 3, "interrupted")
    record(storage, "confirm", 1, TWO, seeds=2)
    assert stands(storage) == (0, 2, "interrupted"), "the default is still to be run"
    record(storage, "default", 0, {}, "running", seeds=1)
    assert stands(storage) == (0, 1, "interrupted")
    record(storage, "default", 0, {}, seeds=2)
    assert stands(storage) == (0, 0, "finished")


def test_a_trial_of_the_defaults_values_is_confirmed_beside_the_best(storage: Path) -> None:
    record(storage, "trials", 0, DEFAULT)
    record(storage, "trials", 1, TWO, score=0.6)
    record(storage, "confirm", 0, DEFAULT, seeds=2)
    assert stands(storage) == (0, 2, "interrupted"), "the default is none of the best one"
    record(storage, "confirm", 1, TWO, seeds=2)
    assert stands(storage) == (0, 0, "finished")


def test_a_trial_that_ran_again_counts_once(storage: Path) -> None:
    record(storage, "trials", 0, ONE, "failed", error="run again as trial 2; out of reach")
    record(storage, "trials", 1, TWO)
    record(storage, "trials", 2, ONE, "running")
    assert stands(storage)[::2] == (1, "interrupted")
    assert find_entry(str(storage), "s").facts["trials"]["failed"] == 0


def test_what_a_limit_kept_from_beginning_is_not_left(storage: Path) -> None:
    facts = json.loads((storage / "studies/s/study.json").read_text())
    write(storage, "study.json", facts | {"budget": {"trials": 9, "ended_early": "an hour is over"}, "default": None})
    record(storage, "trials", 0, ONE)
    record(storage, "confirm", 0, ONE, seeds=2)
    assert stands(storage) == (0, 0, "finished")
