"""A configuration's group of seeds: how it stands, and what its seeds say together."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raymc.metrics.clustering import Labels, clustering_scores
from raymc.metrics.consensus import evidence_accumulation, renamed
from raymc.metrics.labellings import agreement
from raymc.metrics.names import bounds
from raymc.metrics.seeds import summary
from raymc.study import files
from raymc.study.objective import Objective
from raymc.study.records import BAD, FAILED, FINISHED, RUNNING, Record, Row, SeedRun, Task
from raymc.training.outputs import read_labels


def make_record(
    study: Path,
    task: Task,
    objective: Objective,
    state: str | None = None,
    error: str | None = None,
    stopped: float = 0.0,
) -> Record:
    """The record of a task's group as its seeds stand in the folder.

    `state` None works it out: running until every seed of the group has ended, then finished, with the first of the
    objective's `scores` as its score. One bad seed names the state of the whole group, which has no scores then: a
    mean over the seeds that happened to survive would flatter it. In the search it also ends the group.
    `stopped` are the seconds of a training that did not come to its end.
    """
    runs = tuple(run for seed in task.group if (run := files.read_seed(study, task, seed)) is not None)
    state = state or _state(task, runs)
    # Pairs of seeds are many, so those of a confirmation or a stability run are compared once, at the end.
    group = group_metrics(runs) if task.kind == "search" or state == FINISHED else {}
    scores = objective.scores(seed_values(runs), group) if state == FINISHED and not task.stage else None
    if state == FINISHED and scores is None and not objective.ranks and not task.stage:
        state, error = FAILED, error or f"the seeds give no {' and '.join(objective.metrics)} together"
    before = files.read_record(study, task.kind, task.trial)
    return Record(
        trial=task.trial,
        kind=task.kind,
        state=state,
        params=dict(task.params),
        score=scores[0] if scores else None,
        metrics={name: statistics.fmean(values) for name, values in seed_values(runs).items()} | group,
        seeds=runs,
        started=(before and before.started) or files.now(),
        seconds=sum(run.seconds for run in runs) + stopped,
        error=error or next((run.error for run in runs if run.error), None),
        run_id=before.run_id if before else None,
        scores=tuple(scores or ()),
        group=task.group,
    )


def seed_values(runs: Sequence[SeedRun]) -> dict[str, list[float]]:
    """The values of every metric that all finished seeds have, in the order of the seeds."""
    found = [run.metrics for run in runs if run.state == FINISHED]
    names = [name for name in found[0] if all(name in metrics for metrics in found)] if found else []
    return {name: [metrics[name] for metrics in found] for name in names}


def statistics_of(runs: Sequence[SeedRun]) -> dict[str, Row]:
    """Mean, spread and interval of every metric that all finished seeds have."""
    return {name: summary(values, bounds(name)) for name, values in seed_values(runs).items()}


def labels_of(runs: Sequence[SeedRun]) -> dict[int, Labels]:
    """`{seed: labels}`, int `[n]` each, of the finished seeds that left them."""
    done = {run.seed: read_labels(run.folder) for run in runs if run.state == FINISHED}
    return {seed: arrays["labels"] for seed, arrays in done.items() if arrays}


@dataclass(frozen=True)
class Consensus:
    """What finished seeds say together: see `raymc.metrics.consensus.evidence_accumulation`.

    Attributes:
        labels: int64 `[n]`, with the cluster numbers of the first seed, which they share most samples with.
        agreement: `[n]` in 0..1.
        scores: `n` seeds, `clusters`, the mean `agreement`, and where the true labels are known `acc`, `nmi`, `ari`.
    """

    labels: NDArray[np.int64]
    agreement: NDArray[np.float64]
    scores: Row


def consensus_of(runs: Sequence[SeedRun]) -> Consensus | None:
    """Of the finished seeds; None of fewer than two of the same samples."""
    found = labels_of(runs)
    if len(found) < 2 or len({len(one) for one in found.values()}) > 1:
        return None
    several = list(found.values())
    labels, agreement = evidence_accumulation(several)
    y = next((read_labels(run.folder).get("y") for run in runs if run.seed in found), None)
    true = {} if y is None else clustering_scores(y, labels)
    scores = {"n": len(found), "clusters": len(np.unique(labels)), "agreement": float(agreement.mean()), **true}
    return Consensus(renamed(labels, several[0]), agreement, scores)


def group_metrics(runs: Sequence[SeedRun]) -> dict[str, float]:
    """`stability`, the mean adjusted Rand index of each two finished seeds' clusters; empty with fewer than two."""
    found = labels_of(runs)
    whole = len(found) == sum(run.state == FINISHED for run in runs)
    agreed = agreement(list(found.values())) if whole else None
    return {} if agreed is None else {"stability": agreed["mean"]}


def _state(task: Task, runs: Sequence[SeedRun]) -> str:
    bad = [run.state for run in runs if run.state in BAD]
    ended = len(runs) == len(task.group)
    if bad and (ended or task.kind == "search"):
        return bad[0]
    return FINISHED if ended else RUNNING
