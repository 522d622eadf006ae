"""How many trainings run at a time, what each gets, and what is shown meanwhile."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from raymc.execution.driver import UNKNOWN, describe, plan_slots
from raymc.execution.live import Board
from raymc.execution.needs import Needs
from raymc.study.records import Record, Resources, Task

HEAD = {"node:__internal_head__": 0.001}


@pytest.mark.parametrize(
    ("needs", "here", "concurrent", "count", "reserved"),
    [
        (Needs(1, 0, 1), {"CPU": 2}, None, 2, {"CPU": 1}),
        (Needs(1, 0, 2), {"CPU": 2}, None, 1, {"CPU": 2}),
        (Needs(1, 0, 8), {"CPU": 2}, None, 1, {"CPU": 2}),
        (Needs(1, 0, 2), {"CPU": 2}, 4, 4, {"CPU": 0.5}),
        (Needs(1, 0.25, 2), {"CPU": 16, "GPU": 1}, None, 4, {"CPU": 2, "GPU": 0.25}),
        (Needs(1, 0.25, 8), {"CPU": 16, "GPU": 1}, None, 2, {"CPU": 8, "GPU": 0.25}),
        (Needs(1, 1, 2), {"CPU": 16, "GPU": 1}, 8, 8, {"CPU": 2, "GPU": 0.125}),
        (Needs(1, 1, 2), {"CPU": 4}, None, 2, {"CPU": 2}),
        (Needs(1, 0.1, 0.1), {"CPU": 1, "GPU": 1}, None, 10, {"CPU": 0.1, "GPU": 0.1}),
        (Needs(2, 0, 1), {"CPU": 4}, None, 2, HEAD),
        (Needs(3, 0, 1), {"CPU": 2}, None, 1, HEAD),
    ],
)
def test_slots_of_one_machine(
    needs: Needs, here: dict[str, float], concurrent: int | None, count: int, reserved: dict[str, float]
) -> None:
    slots = plan_slots(needs, [here], concurrent, fixed=True)
    assert (slots.count, dict(slots.reserved), slots.assumed) == (count, reserved, False)


@pytest.mark.parametrize(
    ("needs", "nodes", "concurrent", "count", "reserved", "assumed"),
    [
        (Needs(1, 1, 2), [{"CPU": 4}], None, UNKNOWN, {"CPU": 2, "GPU": 1}, True),
        (Needs(1, 1, 2), [{}], 3, 3, {"CPU": 2, "GPU": 1}, False),
        (Needs(1, 0, 4), [{"CPU": 2}] * 4, None, UNKNOWN, {"CPU": 4}, True),
        (Needs(1, 0, 2), [{"CPU": 3}] * 4, None, 4, {"CPU": 2}, False),
        (Needs(1, 0.25, 2), [{}, {"CPU": 8, "GPU": 1}, {"CPU": 4, "GPU": 1}], None, 6, {"CPU": 2, "GPU": 0.25}, False),
        (Needs(2, 0, 1), [{"CPU": 4}], None, 2, HEAD, False),
        (Needs(2, 0, 1), [{"CPU": 1}] * 2, None, 1, HEAD, False),
        (Needs(2, 1, 1), [{}, {"CPU": 64, "GPU": 8}], None, 4, HEAD, False),
        (Needs(4, 1, 1), [{"CPU": 8, "GPU": 2}] * 3, None, 1, HEAD, False),
        (Needs(2, 0, 1), [{}], None, UNKNOWN, HEAD, True),
        (Needs(4, 0, 1, min_workers=1), [{"CPU": 3}], None, 3, HEAD, False),
        (Needs(4, 0, 1, min_workers=1), [{"CPU": 5}], None, 1, HEAD, False),
    ],
)
def test_slots_of_a_cluster_are_counted_machine_by_machine(
    needs: Needs,
    nodes: list[dict[str, float]],
    concurrent: int | None,
    count: int,
    reserved: dict[str, float],
    assumed: bool,
) -> None:
    slots = plan_slots(needs, nodes, concurrent, fixed=False)
    assert (slots.count, dict(slots.reserved), slots.assumed) == (count, reserved, assumed)
    assert (slots.gpus_per_worker, slots.cpus_per_worker) == (needs.gpus_per_worker, needs.cpus_per_worker)


@pytest.mark.parametrize("workers", [2, 3, 8])
@pytest.mark.parametrize("gpus", [0, 0.5, 1, 2])
def test_a_trial_that_waits_takes_nothing_that_its_workers_need(workers: int, gpus: float) -> None:
    needs = Needs(workers, gpus, 1)
    slots = plan_slots(needs, [{"CPU": 1, "GPU": 2, **HEAD}] * workers, 100, fixed=False)
    assert not slots.reserved.keys() & needs.each.keys()


def test_workers_meet_by_nccl_on_whole_gpus_only() -> None:
    assert [Needs(2, gpus).backend for gpus in (0, 0.5, 1, 2)] == ["gloo", "gloo", "nccl", "nccl"]


def test_without_min_workers_all_are_needed() -> None:
    assert [Needs(3, min_workers=least).least for least in (None, 1, 3, 5)] == [3, 1, 3, 3]


def test_a_single_machine_takes_as_many_workers_as_it_holds_where_fewer_will_do() -> None:
    needs = Needs(stages=(("pretrain", Needs(4, 1.0, 8.0, min_workers=1)),))
    for gpus, cpus in ((1, 4), (4, 64), (0, 2)):
        own = plan_slots(needs, [{"CPU": cpus, "GPU": gpus}], 16, fixed=True).stages["pretrain"]
        assert (own.gpus_per_worker, own.cpus_per_worker) == (min(1, gpus), min(8, cpus)), "a whole GPU, not a part"


def test_the_slots_are_told_in_words() -> None:
    needs = Needs(1, 0.25, 2)
    here = {"CPU": 4, "GPU": 1}
    assert describe(plan_slots(needs, [here], None, True), needs) == "2 at a time, 2 CPU + 0.25 GPU each"
    assert describe(plan_slots(needs, [{"CPU": 4}], None, True), needs) == "2 at a time, 2 CPU each (no GPU here)"
    assert describe(plan_slots(needs, [{"CPU": 4}], None, False), needs) == (
        "8 at a time, 2 CPU + 0.25 GPU each (no machine holds one yet; --concurrent says how many to start)"
    )


def _board(**settings: object) -> tuple[Board, io.StringIO]:
    stream = io.StringIO()
    return Board("study s", "acc", 3, stream=stream), stream


UNIT = Task("search", 4, {"heads.weight_decay": 0.00123456, "heads.epochs": 3}, (0, 1), (0, 1))
DONE = {
    "trial": 4,
    "state": "finished",
    "score": 0.9,
    "seconds": 19.9,
    "per_seed": [{"seed": 0, "state": "finished"}, {"seed": 1, "state": "finished"}],
}


def _record(**changed: object) -> Record:
    return Record.of(DONE | changed, Path(), "search")


def test_without_a_terminal_each_event_is_one_line() -> None:
    ticks = []
    stream = io.StringIO()
    with Board("study s", "acc", 3, tick=lambda: ticks.append(1), stream=stream) as board:
        board.started(UNIT)
        board.on_report(
            UNIT, {"state": "running", "seeds_done": 0, "seed": 0, "stage": "heads", "epoch": 1, "epochs": 9}
        )
        board.on_report(UNIT, {"state": "running", "seeds_done": 1, "running": 0.8})
        board.ended(UNIT, _record(), left=2)
    lines = stream.getvalue().splitlines()
    assert lines[:3] == [
        "study s",
        "trial 4 started: heads.weight_decay=0.00123456, heads.epochs=3",
        "trial 4: 1 of 2 seeds acc 0.8000",
    ]
    # The seconds of `record.json` and `trials.csv`: of training, however long the task's process took to start.
    assert lines[3].startswith("trial 4 finished acc 0.9000 after 19.9 s of training, 1 of 3, about ")
    assert len(lines) == 4 and ticks == [1]


def test_what_is_left_follows_what_the_queue_knows() -> None:
    """A default that is among the best is confirmed once, which is known when the search has ended."""
    board, stream = _board()
    for seed, left in ((1000, 9), (1001, 1)):
        task = Task("confirm", 4, {}, (seed,), (1000, 1001))
        board.started(task)
        board.ended(task, _record(per_seed=[{"seed": seed, "state": "finished"}]), left)
    ends = [line for line in stream.getvalue().splitlines() if " finished " in line]
    assert [re.findall(r"\d+ of \d+", line) for line in ends] == [["1 of 10"], ["2 of 3"]]


def test_a_failure_says_why_in_its_line() -> None:
    board, stream = _board()
    board.started(UNIT)
    board.ended(UNIT, _record(state="failed", error="Traceback\n  …\nValueError: oh", per_seed=[]), left=0)
    assert "trial 4 failed (ValueError: oh)" in stream.getvalue()


def test_on_a_terminal_a_table_shows_running_tasks_last() -> None:
    board, stream = _board()
    other = Task("confirm", 1, {}, (1000,), (1000, 1001))
    board.started(other)
    board.started(UNIT)
    board.on_report(other, {"state": "running", "seeds_done": 0, "seed": 0, "stage": "heads", "epoch": 2, "epochs": 9})
    board.ended(UNIT, _record(), left=1)
    screen = io.StringIO()
    Console(file=screen, width=120, force_terminal=True, no_color=True).print(board.table())
    text = screen.getvalue()
    assert text.index("trial 4") < text.index("confirm 1 seed 1000")
    assert "heads 2/9" in text and "0/1" in text and "2/2" in text and "0.9000" in text and "the preset" in text
    assert "1 of 3, about" in text.splitlines()[0] and "training" in text.splitlines()[1] and "19.9 s" in text


def test_a_training_is_given_what_its_slot_has() -> None:
    slots = plan_slots(Needs(2, 1.0, 4.0), [{"CPU": 2, "GPU": 1}], 2, fixed=True)
    assert slots.resources(2) == Resources(2, cpus_per_worker=0.5, gpus_per_worker=0.25)
