"""The benchmark of packed trials runs from end to end, on few steps, and tells what it leaves out of them."""

from __future__ import annotations

import json
import queue
import threading
from typing import Any

import pytest
import torch

from benchmarks.packed_heads import Case, _beside, main

WORDS = "--trials 1 2 --steps 1 --repeats 1 --beside 0 --threads 1 --precision float32 --evaluated 512".split()


def test_every_way_has_its_row_and_the_evaluations_have_theirs(capsys: pytest.CaptureFixture[str]) -> None:
    main([*WORDS, "--json"])
    *ways, evaluations = json.loads(capsys.readouterr().out)["rows"]
    assert [row["way"] for row in ways] == ["alone", "packed 1", "packed 2"]
    for row in ways:
        assert row["trial_step_s"] > 0 and row["ratio"] > 0
        assert row["trials_per_minute"] == pytest.approx(60 / (row["trial_step_s"] * 48 * 16))
    assert ways[2]["trial_step_s"] == pytest.approx(ways[2]["step_s"] / 2)
    assert evaluations.pop("seconds") > 0 and evaluations.pop("processor_seconds") > 0
    assert evaluations == {"way": "evaluations of a trial", "evaluations": 2, "samples": 512}


def test_there_is_an_evaluation_every_ten_epochs_and_after_the_last() -> None:
    case = Case(torch.device("cpu"), "float32", 1)
    assert [case.evaluations(epochs, 64)["evaluations"] for epochs in (1, 11, 100)] == [1, 2, 10]


def test_a_process_beside_others_tells_its_seconds() -> None:
    found: queue.Queue[list[float]] = queue.Queue()
    barrier: Any = threading.Barrier(1)
    _beside(barrier, "cpu", "float32", steps=1, repeats=2, threads=torch.get_num_threads(), found=found)
    assert len(times := found.get(timeout=0)) == 2 and min(times) > 0
