"""The winner's search score flatters it, its confirmation does not: many small searches over trials of known truth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raymc.study import files
from tests.search_fakes import FakeBody, accuracy, make_ledger, new_study, run_here

SEARCHES, TRIALS = 40, 6
SEEDS, FRESH = (0, 1), (1000, 1001, 1002)
NOISE = 0.2
"""Standard deviation between seeds; configurations differ by about 0.1."""


class Noisy(FakeBody):
    """`truth` plus a draw that depends on the search, the configuration and the seed alone."""

    def __init__(self, search: int) -> None:
        super().__init__()
        self.search = search

    def __call__(
        self, params: Mapping[str, Any], seed: int, out: Path, report: Callable[[Any], None]
    ) -> dict[str, Any]:
        self.calls.append((out.parent.name, seed))
        key = hashlib.sha256(json.dumps([self.search, dict(params), seed], sort_keys=True).encode()).digest()
        noise = np.random.default_rng(int.from_bytes(key[:8], "big")).normal(0, NOISE)
        return {"metrics": {"acc": truth(params) + noise}, "stages": []}


def truth(params: Mapping[str, Any]) -> float:
    return accuracy(params, seed=0)


@pytest.fixture(scope="module")
def winners(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[float, float, float]]:
    """For each search its winner's truth, search score and score on fresh seeds."""
    found = []
    for search in range(SEARCHES):
        folder, body = tmp_path_factory.mktemp("search"), Noisy(search)
        ledger = make_ledger(folder, new_study(), trials=TRIALS, seeds=SEEDS, seed=search, top=1, fresh=FRESH)
        run_here(ledger, folder, body)
        (best,) = ledger.best(1)
        confirmed = files.read_record(folder, "confirm", best.number)
        assert confirmed is not None and [run.seed for run in confirmed.seeds] == list(FRESH)
        assert len(body.calls) == TRIALS * len(SEEDS) + len(FRESH)
        assert best.value is not None
        found.append((truth(best.params), best.value, confirmed.score))
    return found


def test_the_search_score_of_the_winner_is_too_high(winners: list[tuple[float, float, float]]) -> None:
    mean, error = _off([score - true for true, score, _ in winners])
    assert mean > 4 * error, f"{mean:+.4f} ± {error:.4f}"


def test_its_confirmation_is_neither_too_high_nor_too_low(winners: list[tuple[float, float, float]]) -> None:
    mean, error = _off([score - true for true, _, score in winners])
    assert abs(mean) < 4 * error, f"{mean:+.4f} ± {error:.4f}"
    # As precise as three seeds' noise allows: a check that passes by being vague would be none.
    assert error == pytest.approx(NOISE / np.sqrt(len(FRESH) * SEARCHES), rel=0.3)


def _off(gaps: list[float]) -> tuple[float, float]:
    return float(np.mean(gaps)), float(np.std(gaps, ddof=1) / np.sqrt(len(gaps)))
