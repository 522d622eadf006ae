"""How many trainings run at a time, what each gets, and what is shown meanwhile."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from raymc.search.driver import Needs, describe, plan_slots
from raymc.search.live import Board, duration
from raymc.search.records import Unit


@pytest.mark.parametrize(
    ("needs", "total", "concurrent", "fixed", "count", "reserved"),
    [
        (Needs(1, 0, 1), {"CPU": 2}, None, True, 2, {"CPU": 1}),
        (Needs(1, 0, 2), {"CPU": 2}, None, True, 1, {"CPU": 2}),
        (Needs(1, 0, 8), {"CPU": 2}, None, True, 1, {"CPU": 2}),
        (Needs(1, 0, 2), {"CPU": 2}, 4, True, 4, {"CPU": 0.5}),
        (Needs(1, 0.25, 2), {"CPU": 16, "GPU": 1}, None, True, 4, {"CPU": 2, "GPU": 0.25}),
        (Needs(1, 0.25, 8), {"CPU": 16, "GPU": 1}, None, True, 2, {"CPU": 8, "GPU": 0.25}),
        (Needs(1, 1, 2), {"CPU": 16, "GPU": 1}, 8, True, 8, {"CPU": 2, "GPU": 0.125}),
        (Needs(1, 1, 2), {"CPU": 4}, None, True, 2, {"CPU": 2}),
        (Needs(1, 1, 2), {"CPU": 4}, None, False, 1, {"CPU": 2, "GPU": 1}),
        (Needs(1, 0.1, 0.1), {"CPU": 1, "GPU": 1}, None, True, 10, {"CPU": 0.1, "GPU": 0.1}),
        (Needs(2, 0, 1), {"CPU": 4, "driver": 1000}, None, True, 2, {"driver": 1}),
        (Needs(2, 0, 1), {"CPU": 4}, None, False, 1, {"CPU": 0.01}),
        (Needs(2, 1, 1), {"CPU": 64, "GPU": 8, "driver": 1000}, None, False, 4, {"driver": 1}),
    ],
)
def test_slots(
    needs: Needs, total: dict[str, float], concurrent: int | None, fixed: bool, count: int, reserved: dict[str, float]
) -> None:
    slots = plan_slots(needs, total, concurrent, fixed)
    assert (slots.count, dict(slots.reserved)) == (count, reserved)


def test_the_slots_are_told_in_words() -> None:
    needs = Needs(1, 0.25, 2)
    assert describe(plan_slots(needs, {"CPU": 4, "GPU": 1}, None, True), needs) == "2 at a time, 2 CPU + 0.25 GPU each"
    assert describe(plan_slots(needs, {"CPU": 4}, None, True), needs) == "2 at a time, 2 CPU each (no GPU here)"


def _board(**settings: object) -> tuple[Board, io.StringIO]:
    stream = io.StringIO()
    return Board("study s", "acc", 3, stream=stream), stream


UNIT = Unit("search", 4, {"heads.weight_decay": 0.00123456, "heads.epochs": 3}, (0, 1), (0, 1))
DONE = {
    "state": "finished",
    "metrics": {"acc": 0.9},
    "error": None,
    "per_seed": [{"seed": 0, "state": "finished", "metrics": {}}, {"seed": 1, "state": "finished", "metrics": {}}],
}


def test_without_a_terminal_each_event_is_one_line() -> None:
    ticks = []
    stream = io.StringIO()
    with Board("study s", "acc", 3, tick=lambda: ticks.append(1), stream=stream) as board:
        board.started(UNIT)
        board.heard(UNIT, {"state": "running", "seeds_done": 0, "seed": 0, "stage": "heads", "epoch": 1, "epochs": 9})
        board.heard(UNIT, {"state": "running", "seeds_done": 1, "running": 0.8})
        board.ended(UNIT, DONE)
    lines = stream.getvalue().splitlines()
    assert lines[:3] == [
        "study s",
        "trial 4 started: heads.weight_decay=0.001235, heads.epochs=3",
        "trial 4: 1 of 2 seeds acc 0.8000",
    ]
    assert lines[3].startswith("trial 4 finished acc 0.9000 in ") and "1 of 3, about" in lines[3]
    assert len(lines) == 4 and ticks == [1]


def test_a_failure_says_why_in_its_line() -> None:
    board, stream = _board()
    board.started(UNIT)
    board.ended(
        UNIT, DONE | {"state": "failed", "metrics": {}, "error": "Traceback\n  …\nValueError: oh", "per_seed": []}
    )
    assert "trial 4 failed (ValueError: oh)" in stream.getvalue()


def test_on_a_terminal_a_table_shows_running_units_last() -> None:
    board, stream = _board()
    other = Unit("confirm", 1, {}, (1000,), (1000, 1001))
    board.started(other)
    board.started(UNIT)
    board.heard(other, {"state": "running", "seeds_done": 0, "seed": 0, "stage": "heads", "epoch": 2, "epochs": 9})
    board.ended(UNIT, DONE)
    screen = io.StringIO()
    Console(file=screen, width=120, force_terminal=True, no_color=True).print(board.table())
    text = screen.getvalue()
    assert text.index("trial 4") < text.index("confirm 1 seed 1000")
    assert "heads 2/9" in text and "0/1" in text and "2/2" in text and "0.9000" in text and "the preset" in text
    assert "1 of 3, about" in text.splitlines()[0]


def test_durations() -> None:
    assert [duration(s) for s in (3.4, 61, 3599.6, 7620)] == ["3 s", "1:01 min", "1:00 h", "2:07 h"]
