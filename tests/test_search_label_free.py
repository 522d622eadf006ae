"""A search without labels chooses the same whether the data has labels, wrong ones, or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raymc.execution.session import _make_queue
from raymc.execution.train_seed import TrainSeed
from raymc.execution.trial import Plan, run_task
from raymc.metrics.names import LABEL_METRICS
from raymc.reporting.search.facts import gather
from raymc.space.space import load_space
from raymc.study import folder as studies
from raymc.study.distributions import compile_space
from raymc.study.manifest import load_data, make_manifest, plan_budget
from raymc.study.objective import Objective
from raymc.study.reader import read_study

SPACE = """
method: gcml
dataset: {{path: {file}}}
fixed: {{n_clusters: 3, backbone: dense_256, geometry: false, pretrain.epochs: 3, finetune.epochs: 3,
  pretrain.batch_size: 32, finetune.batch_size: 32, finetune.start_epoch: 1, finetune.continuation_epochs: 3,
  finetune.anchor_epochs: 1, finetune.centers_by: kmeans}}
space:
  finetune.kappa: {{low: 1.0, high: 10.0}}
  finetune.alpha: {{low: 0.03, high: 0.5}}
objective: {{metric: {metric}, gates: null}}
budget: {{trials: 4, seeds: 2, confirm: {{top: 2, seeds: 2}}}}
"""


def _searched(folder: Path, metric: str, y: np.ndarray[Any, Any] | None) -> dict[str, Any]:
    """Search without Ray; what the study's report then knows."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(90, 6)) + 1.2 * np.repeat(np.arange(3), 30)[:, None]).astype(np.float32)
    np.savez(folder / "rows.npz", x=x, **({} if y is None else {"y": y}))
    (folder / "s.yaml").write_text(SPACE.format(file="rows.npz", metric=metric))
    space = load_space(folder / "s.yaml")
    budget = plan_budget(space, 0, None, None, smoke=False)
    manifest = make_manifest(
        "study", space, {}, budget, load_data(space, "", "", False), seed=0, smoke=False, tracking_uri=""
    )
    place = folder / "st" / "studies" / "study"
    studies.create_study(str(folder / "st"), place, manifest, space, compile_space(space.params))
    trainable = TrainSeed(
        space=space,
        storage=str(folder / "st"),
        data=str(folder),
        base_seed=0,
        seeds_from=manifest["seeds_from"],
    )
    plan = Plan(place, Objective.of(manifest["objective"]))
    with studies.open_database(place) as database:
        queue = _make_queue(place, manifest, budget, database, space)
        while (task := queue.next()) is not None:
            run_task(plan, task, trainable, lambda row: None)
            queue.ended(task)
    return gather(read_study(place))


@pytest.mark.parametrize("metric", ["rank_mean", pytest.param("stability", marks=pytest.mark.slow)])
def test_labels_removed_or_scrambled_give_the_same_choice(tmp_path: Path, metric: str) -> None:
    true = np.repeat(np.arange(3), 30)
    labels = {"none": None, "true": true, "wrong": np.random.default_rng(1).integers(0, 5, 90)}  # of another number too
    found = {name: _searched(tmp_path / name, metric, y) for name, y in labels.items()}
    none = found["none"]
    assert none["winner"] is not None and not set(none["winner"]["metrics"]) & set(LABEL_METRICS)
    for name in ("true", "wrong"):
        other = found[name]
        assert {*LABEL_METRICS} <= set(other["winner"]["metrics"])
        for key in ("trial", "params", "search_score"):
            assert other["winner"][key] == none["winner"][key]
        assert [(one["trial"], one["score"]) for one in other["confirmation"]] == [
            (one["trial"], one["score"]) for one in none["confirmation"]
        ]
    assert found["true"]["winner"]["metrics"]["acc"] > found["wrong"]["winner"]["metrics"]["acc"]
