"""The time that a training says it will take yet: over all stages, by a clock that the test moves."""

from __future__ import annotations

from typing import Any

import pytest

from raymc.training import progress as shown
from raymc.training.time_left import TimeLeft, duration


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def reports(epochs: dict[str, int], cached: tuple[str, ...] = (), resumed: int = 0) -> list[dict[str, Any]]:
    """What a training tells: its plan, then the epochs and the end of each stage; the first goes on from `resumed`."""
    told: list[dict[str, Any]] = [{"event": "plan", "epochs": epochs}]
    for name, count in epochs.items():
        done = resumed if name == next(iter(epochs)) else 0
        if done:
            told.append({"event": "resumed", "stage": name, "epoch": done, "curve": []})
        of = [] if name in cached else range(done + 1, count + 1)
        told += [{"event": "epoch", "stage": name, "epoch": one, "epochs": count, "loss": 1.0} for one in of]
        told.append({"event": "stage", "name": name, "epochs": count, "cached": name in cached, "seconds": 1.0})
    return told


PLANS = [
    ({"pretrain": 4, "finetune": 7}, (), 0),
    ({"pretrain": 0, "heads": 3}, (), 0),
    ({"pretrain": 9, "heads": 5, "finetune": 2}, ("pretrain",), 0),
    ({"pretrain": 6, "heads": 5}, (), 4),
    ({"pretrain": 1, "heads": 1}, ("pretrain", "heads"), 0),
]


@pytest.mark.parametrize(("epochs", "cached", "resumed"), PLANS)
def test_where_every_epoch_takes_as_long_the_estimate_is_what_comes(
    epochs: dict[str, int], cached: tuple[str, ...], resumed: int
) -> None:
    told, clock = reports(epochs, cached, resumed), Clock()
    left, remaining = TimeLeft(clock), [row for row in told if row["event"] == "epoch"]
    trained = sum(count for name, count in epochs.items() if name in cached)
    for row in told:
        if row["event"] == "epoch":
            clock.now += 3.0
            remaining.pop(0)
        if row["event"] == "stage" and row["cached"]:
            trained -= row["epochs"]
        left.note(row)
        if row["event"] == "epoch" and not trained and (row["epoch"] > resumed + 1 or not resumed):
            assert left.seconds() == pytest.approx(3.0 * len(remaining))
        assert left.seconds() is None or left.seconds() >= 0  # type: ignore[operator]
    assert left.seconds() == 0


def test_a_stage_has_its_own_pace_and_its_first_epoch_does_not_count() -> None:
    clock = Clock()
    left = TimeLeft(clock)
    paces = {"pretrain": 2.0, "finetune": 5.0}
    for row in reports({"pretrain": 10, "finetune": 6}):
        if row["event"] == "epoch":
            clock.now += paces[row["stage"]] + 60 * (row["epoch"] == 1)  # first centres, a compiler
        left.note(row)
        place = row["event"], row.get("stage"), row.get("epoch")
        if place == ("epoch", "pretrain", 6):
            assert left.seconds() == pytest.approx(4 * 2.0 + 6 * 2.0), "what is to come is counted at what is known"
        if place == ("epoch", "finetune", 1):
            assert left.seconds() == pytest.approx(5 * 2.0)
        if place == ("epoch", "finetune", 3):
            assert left.seconds() == pytest.approx(3 * 5.0)


def test_nothing_is_said_before_an_epoch_was_timed() -> None:
    left = TimeLeft(Clock())
    left.note({"event": "plan", "epochs": {"pretrain": 3}})
    assert left.seconds() is None


def test_plain_lines_say_it(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with shown.progress(clock) as report:
        for row in reports({"pretrain": 3, "finetune": 20}):
            clock.now += 11.0 if row["event"] == "epoch" else 0.0
            report(row)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "pretrain 1/3 loss 1.000 about 4 min 02 s left"
    assert lines[3] == "pretrain: 3 epochs, 1.0 s"
    assert lines[-2] == "finetune 20/20 loss 1.000"


def test_the_bar_says_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    clock = Clock()
    with shown.progress(clock) as report:
        for row in reports({"pretrain": 3, "finetune": 5})[:3]:
            clock.now += 30.0 if row["event"] == "epoch" else 0.0
            report(row)
    assert "about 3 min 00 s left" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "–"), (4.21, "4.2 s"), (59.96, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations_in_words(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words
