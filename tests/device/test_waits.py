"""What a step and an epoch of each stage ask of a GPU, in exact numbers: a kernel or a wait more is seen.

They are the same from torch 2.11 on. Who changes them on purpose changes the table. Where the data decide, by how many
clusters are in use, the kernels are in a range; waits and copies are exact.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raymc.config import Config
from tests.device.pretend import GPU, installed
from tests.device.stepping import Counts, begun, counted
from tests.device.trainings import make_config

FIVE: dict[str, Any] = {"heads__projection_iterations": 5}
BANK: dict[str, Any] = {"heads__feature_bank": 3}
WHOLE: dict[str, Any] = {"heads__cluster_net": "whole"}
HARD: dict[str, Any] = {"augmentation": "none", "pretrain__similarity_weight": 0.0, "heads__straight_through": True}
TOGETHER: dict[str, Any] = {"finetune__alternating": False}

SOME = range(30, 700)

# Kernels of the batch, the loss and its gradient; kernels of the optimisers; waits; uploads. Batches of 64.
TABLE: dict[str, tuple[tuple[str, str, str, dict[str, Any]], Counts, Counts]] = {
    # stage: method, data, name, keys; of a step; of an epoch beside its steps
    "NMCE, stage 1": (("nmce", "digits", "pretrain", {}), Counts(260, 20, 0, 1), Counts(7, 0, 1, 1)),
    "NMCE, heads": (("nmce", "digits", "heads", {}), Counts(277, 21, 0, 3), Counts(9, 0, 1, 1)),
    "NMCE, heads behind a bank": (("nmce", "digits", "heads", BANK), Counts(199, 21, 0, 3), Counts(9, 0, 1, 1)),
    "NMCE, heads, one-hot samples": (("nmce", "digits", "heads", HARD), Counts(219, 21, 0, 2), Counts(9, 0, 1, 1)),
    "NMCE, all": (("nmce", "digits", "finetune", {}), Counts(296, 21, 0, 3), Counts(9, 0, 1, 1)),
    "NMCE on a stream": (("nmce", "double_spiral", "heads", {}), Counts(209, 2, 0, 4), Counts(9, 0, 1, 0)),
    "MLC, stage 1": (("mlc", "digits", "pretrain", {}), Counts(227, 20, 0, 1), Counts(7, 0, 1, 1)),
    "MLC, heads": (("mlc", "digits", "heads", {}), Counts(341, 2, 0, 1), Counts(8, 0, 1, 1)),
    "MLC, heads, 5 half-steps": (("mlc", "digits", "heads", FIVE), Counts(301, 2, 0, 1), Counts(9, 0, 1, 1)),
    "MLC, heads behind a bank": (("mlc", "digits", "heads", FIVE | BANK), Counts(223, 2, 0, 1), Counts(9, 0, 1, 1)),
    "MLC, heads, two nets": (("mlc", "digits", "heads", FIVE | WHOLE), Counts(354, 2, 0, 1), Counts(9, 0, 1, 1)),
    "GCML, autoencoder": (("gcml", "digits", "pretrain", {}), Counts(45, 2, 0, 1), Counts(5, 0, 1, 1)),
    "GCML": (("gcml", "digits", "finetune", {}), Counts(31, 2, 0, 0), Counts(SOME, 2, 4, 1)),
    "GCML as published": (
        ("gcml", "digits", "finetune", {"preset": "published"}),
        Counts(31, 2, 0, 0),
        Counts(SOME, 2, 4, 1),
    ),
    "GCML as printed": (
        ("gcml", "digits", "finetune", {"preset": "literal"}),
        Counts(67, 2, 0, 0),
        Counts(SOME, 2, 4, 1),
    ),
    # The neighbours within a batch are found cluster by cluster.
    "GCML, one update": (("gcml", "digits", "finetune", TOGETHER), Counts(SOME, 2, 2, 0), Counts(SOME, 0, 1, 1)),
    "TURTLE": (("turtle", "vectors", "task", {}), Counts(176, 2, 0, 0), Counts(7, 0, 1, 1)),
}


@pytest.fixture(autouse=True)
def few_starts_of_centres(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raymc.methods.gcml_state.KMEANS_STARTS", 2)


def measured(config: Config, stage: str, folder: Path) -> tuple[Counts, Counts, list[str]]:
    """Of a step, of the rest of an epoch, and where it waited: in GCML's third epoch all losses count."""
    with installed() as log:
        found = counted(log, *begun(config, stage, GPU, folder), 2 if config.method == "gcml" else 1)
        return *found, sorted({f"{name} at {where}" for name, where in log.waits})


def as_wanted(found: Counts, wanted: Counts) -> bool:
    return all(
        value in (want if isinstance(want, range) else (want,)) for value, want in zip(found, wanted, strict=True)
    )


@pytest.mark.parametrize("name", TABLE)
def test_steps_and_epochs_ask_for_this_and_no_more(name: str, tmp_path: Path) -> None:
    (method, data, stage, keys), step, epoch = TABLE[name]
    more = {"finetune__centers_by": "kmeans"} if method == "gcml" else {}
    found = measured(make_config(method, data, **(more | keys)), stage, tmp_path)
    assert all(map(as_wanted, found[:2], (step, epoch))), found


@pytest.mark.parametrize(("optimizer", "kernels"), [("lars", 21), ("sgd", 2), ("adam", 2)])
def test_kernels_of_an_optimiser_do_not_depend_on_the_number_of_weights(
    optimizer: str, kernels: int, tmp_path: Path
) -> None:
    """A fused one for all weights of a group; Adam counts its steps in another, LARS has some for lists of weights."""
    step, *_ = measured(make_config("nmce", "digits", heads__optimizer=optimizer), "heads", tmp_path)
    assert step.optimiser == kernels and step.waits == 0
