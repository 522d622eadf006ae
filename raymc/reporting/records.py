"""What a study's folder says, as typed, frozen records; and which configuration has won."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymc.metrics.names import GROUP_METRICS, STUDY_METRICS


@dataclass(frozen=True)
class StageRun:
    """One stage of one seed: computed (`cached` false) or taken from the store.

    `checkpoint` names the float16 checkpoint that its weights go back to, if there is one.
    """

    name: str
    epochs: int
    cached: bool
    seconds: float
    key: str
    checkpoint: str = ""


@dataclass(frozen=True)
class SeedRun:
    """One training of a configuration; `folder` holds its curve, labels and gallery."""

    seed: int
    state: str
    metrics: Mapping[str, float]
    stages: tuple[StageRun, ...]
    seconds: float
    folder: Path


@dataclass(frozen=True)
class Record:
    """A configuration over its group of seeds, from the search or from the confirmation (`kind`).

    `scores` has one number for each metric of the objective, `score` is the first.
    """

    trial: int
    kind: str
    state: str
    params: Mapping[str, Any]
    score: float | None
    metrics: Mapping[str, float]
    seeds: tuple[SeedRun, ...]
    started: str
    seconds: float
    error: str | None
    run_id: str | None
    scores: tuple[float, ...] = ()

    def values(self, metric: str) -> dict[int, float]:
        """`{seed: value}` of the seeds that finished and have the metric."""
        done = (run for run in self.seeds if run.state == "finished")
        return {run.seed: run.metrics[metric] for run in done if metric in run.metrics}

    @property
    def checkpoints(self) -> list[str]:
        """The checkpoints that weights of its seeds go back to."""
        found = (stage.checkpoint for run in self.seeds for stage in run.stages)
        return [name for name in dict.fromkeys(found) if name]


@dataclass(frozen=True)
class Objective:
    """What the search made large (`mode` max) or small (min), see `raymc.search.judge.Judge`."""

    metric: str
    mode: str
    uses_labels: bool
    aggregate: str = "mean"
    second: str | None = None
    gates: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Study:
    """`study.json` (whole in `manifest`), the trials and the confirmations, each in the order of their numbers."""

    folder: Path
    name: str
    manifest: Mapping[str, Any]
    objective: Objective
    searched: Mapping[str, Mapping[str, Any]]
    trials: tuple[Record, ...]
    confirmations: tuple[Record, ...]
    unreadable: tuple[str, ...]

    @property
    def by_seed(self) -> bool:
        """Whether the objective is a metric of single trainings, so that fresh seeds have statistics of it."""
        return self.objective.metric not in (*GROUP_METRICS, *STUDY_METRICS)

    def level(self, record: Record) -> float | None:
        """What a finished record reaches in the objective, over its seeds: their mean, or what the group has.

        Its `score` may be another aggregate, which depends on the number of seeds: not to be compared with a mean.
        """
        if record.state != "finished":
            return None
        return record.metrics.get(self.objective.metric, record.score)

    def get(self, *path: str) -> Any:
        """A value of the manifest by its path; None where any part is absent."""
        value: Any = self.manifest
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    @property
    def finished(self) -> tuple[Record, ...]:
        """Trials with a score to compare."""
        return tuple(r for r in self.trials if r.state == "finished" and r.score is not None)

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the stages in the order in which they ran; empty before any seed has ended."""
        runs = (run for record in (*self.trials, *self.confirmations) for run in record.seeds)
        return max((tuple(stage.name for stage in run.stages) for run in runs), key=len, default=())


def winner(study: Study) -> Record | None:
    """The search record of the winning configuration.

    The best of the confirmed configurations by their score on fresh seeds; without a confirmation that finished, the
    trial with the best search score. None where no trial finished.
    """
    trials = {record.trial: record for record in study.finished}
    # Of equal ones, which ranks among few often are, the one that led the search.
    sign = 1.0 if study.objective.mode == "min" else -1.0
    by_search = sorted(
        study.confirmations, key=lambda r: sign * (trials[r.trial].score or 0.0) if r.trial in trials else 0
    )
    best = best_of(by_search, study.objective.mode)
    if best is not None and best.trial in trials:
        return trials[best.trial]
    return best_of(study.finished, study.objective.mode)


def confirmation_of(study: Study, trial: int) -> Record | None:
    """The confirmation of a trial's configuration, if there is one."""
    return next((record for record in study.confirmations if record.trial == trial), None)


def best_of(records: Iterable[Record], mode: str) -> Record | None:
    """The finished record with the best score; of equal ones the first."""
    scored = [(r.score, r) for r in records if r.state == "finished" and r.score is not None]
    if not scored:
        return None
    sign = 1.0 if mode == "max" else -1.0
    return max(scored, key=lambda pair: sign * pair[0])[1]


def number(value: object) -> float | None:
    """`value` as a finite float, None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
