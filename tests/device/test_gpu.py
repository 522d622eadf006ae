"""The same on a GPU itself, which says where it would be waited for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from raymc.training.loop import over_batches
from tests.device.stepping import begun
from tests.device.trainings import make_config

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.mark.parametrize(
    ("method", "stage", "over"),
    [
        *(("nmce", stage, {}) for stage in ("pretrain", "heads", "finetune")),
        *(("mlc", stage, {"heads__projection_iterations": 5}) for stage in ("pretrain", "heads")),
        *(("gcml", stage, {"finetune__centers_by": "kmeans"}) for stage in ("pretrain", "finetune")),
    ],
)
def test_no_batch_waits_for_a_gpu(method: str, stage: str, over: dict[str, Any], tmp_path: Path) -> None:
    config = make_config(method, "digits", **over)
    updates, feed = begun(config, stage, torch.device("cuda", 0), tmp_path)
    settings = updates.settings

    def epoch(number: int) -> None:
        seen = updates.stage.observe
        state = seen(updates.model, feed, settings, number) if seen else {}
        torch.cuda.set_sync_debug_mode("error" if number else "default")
        try:
            over_batches(updates, feed, 0, number, state)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    epoch(0)  # libraries are loaded and tried out
    epoch(1)
