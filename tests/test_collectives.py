"""How many collectives a training step of each method asks for: each is a wait for the slowest worker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from raymc.distributed import Workers
from raymc.methods.base import Batch, Step
from raymc.training.loop import Updates, train_epoch
from tests.device.stepping import begun
from tests.device.trainings import make_config

CPU = torch.device("cpu")
NAMES = (
    "all_reduce",
    "all_gather_into_tensor",
    "all_gather",
    "reduce_scatter_tensor",
    "broadcast_object_list",
    "barrier",
)

FIVE: dict[str, Any] = {"heads__projection_iterations": 5}
TOGETHER: dict[str, Any] = {"finetune__alternating": False}
BANK: dict[str, Any] = {"heads__feature_bank": 3}

# stage: method, data, name, keys; all-reduces, gathers, reduce-scatters of a step. Where a convolutional net is trained
# its BatchNorms have two forward and two backward each; MLC's projection gathers a vector an iteration.
TABLE: dict[str, tuple[tuple[str, str, str, dict[str, Any]], tuple[int, int, int]]] = {
    "NMCE, stage 1": (("nmce", "digits", "pretrain", {}), (23, 0, 0)),
    "NMCE, heads": (("nmce", "digits", "heads", {}), (5, 0, 0)),
    "NMCE, heads behind a bank": (("nmce", "digits", "heads", BANK), (5, 0, 0)),
    "NMCE, all": (("nmce", "digits", "finetune", {}), (17, 0, 0)),
    "MLC, stage 1": (("mlc", "digits", "pretrain", {}), (21, 0, 0)),
    "MLC, heads": (("mlc", "digits", "heads", {}), (6, 26, 2)),
    "MLC, heads, 5 half-steps": (("mlc", "digits", "heads", FIVE), (5, 5, 3)),
    "GCML, autoencoder": (("gcml", "digits", "pretrain", {}), (3, 0, 0)),
    "GCML": (("gcml", "digits", "finetune", {}), (1, 0, 0)),
    "GCML, one update": (("gcml", "digits", "finetune", TOGETHER), (5, 4, 1)),
    "TURTLE": (("turtle", "vectors", "task", {}), (15, 0, 0)),
}


@pytest.fixture(scope="module")
def alone() -> Iterator[Workers]:
    """A group of one process: it asks for what a group of many does."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield Workers(0, 1, dist.group.WORLD)
    dist.destroy_process_group()


@pytest.mark.parametrize("name", TABLE)
def test_a_step_asks_for_these_collectives_and_no_more(
    name: str, alone: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (method, data, stage, keys), wanted = TABLE[name]
    more = {"finetune__centers_by": "kmeans"} if method == "gcml" else {}
    monkeypatch.setattr("raymc.methods.gcml_state.KMEANS_STARTS", 2)
    updates, feed = begun(make_config(method, data, **(more | keys)), stage, CPU, tmp_path, alone)
    asked: Counter[str] = Counter()
    ends: list[Counter[str]] = []
    make = Updates.make

    def counted(real: Any, of: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            asked[of] += 1
            return real(*args, **options)

        return call

    def counted_make(self: Updates, of: Step, batch: Batch) -> dict[str, Tensor]:
        found = make(self, of, batch)
        ends.append(asked.copy())
        return found

    for of in NAMES:
        monkeypatch.setattr(dist, of, counted(getattr(dist, of), of))
    monkeypatch.setattr(Updates, "make", counted_make)
    epoch = 2 if method == "gcml" else 1  # all of GCML's losses count in its third
    for one in range(epoch):
        train_epoch(updates, feed, 0, one)
    ends.clear()
    train_epoch(updates, feed, 0, epoch)
    a_step = ends[1] - ends[0]
    gathers = a_step["all_gather_into_tensor"]
    assert (a_step["all_reduce"], gathers, a_step["reduce_scatter_tensor"]) == wanted
    assert a_step.total() == sum(wanted), f"{a_step}: what is known is not asked for, and nothing but tensors travels"
