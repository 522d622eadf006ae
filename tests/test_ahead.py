"""Draws that are made one step ahead: the same numbers, the same errors, and no thread that stays."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from raymc.bare_keys import Augment
from raymc.distributed import Workers
from raymc.training.ahead import Ahead
from raymc.training.feed import Feed
from raymc.training.loop import over_batches
from tests.device.pretend import GPU, installed
from tests.device.stepping import begun
from tests.device.trainings import dataset_of, make_config

CPU = torch.device("cpu")


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("draws")]


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU's draws are made ahead too."""
    monkeypatch.setattr("raymc.training.ahead.in_thread", lambda device: True)


def feed_of(data: str) -> Feed:
    near = Augment(neighbours=3, noise=0.1) if data == "vectors" else Augment()
    policy = "digits" if data == "digits" else "none"
    return Feed.build(dataset_of(data), policy, CPU, torch.float32, False, Workers(), augment=near)


def numbers(feed: Feed, epoch: int, uneven: bool = False) -> list[Tensor]:
    """Views and noise of an epoch; of `uneven` noise not every step asks, and one asks twice."""
    found: list[Tensor] = []
    for step, batch in enumerate(feed.epoch("heads", 3, epoch, 40)):
        found += [*batch.views, batch.index, batch.uniform("gumbel0", 5)]
        if not uneven or step != 1:
            found += [batch.normal("noise", 3) for _ in range(1 + uneven)]
    return found


@pytest.mark.parametrize("data", ["digits", "vectors", "double_spiral"])
@pytest.mark.parametrize("uneven", [False, True])
def test_numbers_do_not_depend_on_when_they_are_drawn(data: str, uneven: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an epoch with which a training goes on too, whose first step nobody has drawn ahead."""
    feed = feed_of(data)
    plain = [numbers(feed, epoch, uneven) for epoch in (0, 1)]
    monkeypatch.setattr("raymc.training.ahead.in_thread", lambda device: True)
    for epoch in (1, 0):
        assert all(map(torch.equal, numbers(feed, epoch, uneven), plain[epoch]))
    assert not threads()


def test_the_next_steps_draw_is_made_before_it_is_asked_for(ahead: None) -> None:
    drawn: list[tuple[int, bool]] = []
    done = threading.Event()

    def draw(step: int) -> dict[int, Tensor]:
        drawn.append((step, threading.current_thread() is threading.main_thread()))
        if step:
            done.set()
        return {0: torch.tensor(step)}

    with Ahead(CPU, 3) as draws:
        draws.take("a", draw, 0, CPU)
        assert done.wait(10) and drawn == [(0, True), (1, False)]
        assert [int(draws.take("a", draw, step, CPU)[0]) for step in (1, 2)] == [1, 2]
    assert [step for step, _ in drawn] == [0, 1, 2]  # none beyond the epoch
    assert int(draws.take("a", draw, 1, CPU)[0]) == 1 and not threads()  # who holds a batch may still ask


def test_an_error_of_a_draw_is_told_when_it_is_taken(ahead: None) -> None:
    def draw(step: int) -> dict[int, Tensor]:
        if step == 1:
            raise torch.OutOfMemoryError("pinned memory")
        return {0: torch.zeros(1)}

    with Ahead(CPU, 5) as draws:
        draws.take("a", draw, 0, CPU)
        with pytest.raises(torch.OutOfMemoryError, match="pinned"):
            draws.take("a", draw, 1, CPU)
    assert not threads()


@pytest.mark.parametrize("stops", [RuntimeError, KeyboardInterrupt])
def test_no_thread_is_left_by_a_step_that_fails(
    stops: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with installed():
        updates, feed = begun(make_config("nmce", "digits"), "heads", GPU, tmp_path)
        seen: list[list[str]] = []

        def fails(*args: Any) -> dict[str, Tensor]:
            seen.append(threads())
            raise stops("in a step")

        monkeypatch.setattr(updates, "make", fails)
        with pytest.raises(stops) as error:  # which keeps the frames of the loop
            over_batches(updates, feed, 0, 0, {})
        assert len(seen[0]) == 1 and not threads(), error
