"""What a configuration is scored by: a metric over its seeds, or two, and what counts as collapsed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from raymc.metrics.gates import Gates
from raymc.metrics.names import GROUP_METRICS, LABEL_FREE_METRICS, LABEL_METRICS, STUDY_METRICS


@dataclass(frozen=True)
class Constraint:
    """What a configuration must keep to in another metric, the mean over its seeds."""

    metric: str
    at_most: float | None = None
    at_least: float | None = None

    @classmethod
    def of(cls, content: object) -> Constraint | None:
        """That of an objective's key `constraint`; None where there is none."""
        if not isinstance(content, Mapping) or not content.get("metric"):
            return None
        return cls(str(content["metric"]), content.get("at_most"), content.get("at_least"))

    def violation(self, metrics: Mapping[str, float]) -> float:
        """By how much the bounds are passed; none or less where they are kept, infinite without the metric."""
        value = metrics.get(self.metric)
        if value is None:
            return math.inf
        above = value - self.at_most if self.at_most is not None else -math.inf
        below = self.at_least - value if self.at_least is not None else -math.inf
        return max(above, below)

    def __str__(self) -> str:
        bounds = (("at least", self.at_least), ("at most", self.at_most))
        return f"{self.metric} {' and '.join(f'{word} {value:g}' for word, value in bounds if value is not None)}"


@dataclass(frozen=True)
class Objective:
    """What a search makes large or small. In a space file it is the section `objective`, in `study.json` that key.

    Attributes:
        metric: what decides; `second`: what makes a Pareto front with it, None where there is one metric.
        mode: `max` or `min`, for both.
        aggregate: `mean` of the seeds, `lower` (worse than the mean by one standard error of it), `min` (worst seed).
        gates: what a training must pass; None: nothing.
        constraint: what a configuration must keep to; None: nothing.
    """

    metric: str = "acc"
    mode: str = "max"
    aggregate: str = "mean"
    second: str | None = None
    gates: Gates | None = None
    constraint: Constraint | None = None

    @classmethod
    def of(cls, content: Mapping[str, Any], smoke: bool = False) -> Self:
        """That of a space's or a manifest's `objective`; after a smoke run's two epochs nothing would pass a gate."""
        return cls(
            str(content.get("metric") or cls.metric),
            str(content.get("mode") or cls.mode),
            str(content.get("aggregate") or cls.aggregate),
            str(content["second"]) if content.get("second") else None,
            None if smoke else Gates.of(content.get("gates")),
            None if smoke else Constraint.of(content.get("constraint")),
        )

    @property
    def row(self) -> dict[str, Any]:
        """The content of the key `objective`."""
        sections = {"gates": self.gates and vars(self.gates), "constraint": self.constraint and vars(self.constraint)}
        return {**vars(self), **sections, "uses_labels": self.uses_labels}

    @property
    def uses_labels(self) -> bool:
        """Whether true labels take part in a score."""
        return any(name in LABEL_METRICS for name in (*self.metrics, *self._bounded))

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric,) if self.second is None else (self.metric, self.second)

    @property
    def _bounded(self) -> tuple[str, ...]:
        return () if self.constraint is None else (self.constraint.metric,)

    def feasible(self, metrics: Mapping[str, float]) -> bool:
        """Whether a configuration with these metrics may win."""
        return self.constraint is None or self.constraint.violation(metrics) <= 0

    @property
    def ranks(self) -> bool:
        """Whether a score compares trials, so that no trial has one by itself."""
        return self.metric in STUDY_METRICS

    @property
    def needed(self) -> tuple[str, ...]:
        """The metrics that every single training must have."""
        names = (*(LABEL_FREE_METRICS if self.ranks else self.metrics), *self._bounded)
        return tuple(name for name in dict.fromkeys(names) if name not in GROUP_METRICS)

    def scores(self, values: Mapping[str, Sequence[float]], group: Mapping[str, float]) -> list[float] | None:
        """What Optuna is told of a configuration, a number for each of `metrics`.

        `values` has the metrics of its seeds, `group` those of `GROUP_METRICS`. None where one is missing, and for a
        metric that only the whole study has.
        """
        found = [group.get(name) if name in GROUP_METRICS else self._over(values.get(name)) for name in self.metrics]
        known = [value for value in found if value is not None]
        return known if len(known) == len(found) else None

    def _over(self, values: Sequence[float] | None) -> float | None:
        if not values:
            return None
        worse = -1.0 if self.mode == "max" else 1.0
        if self.aggregate == "min":
            return min(values) if self.mode == "max" else max(values)
        if self.aggregate == "lower" and len(values) > 1:
            return statistics.fmean(values) + worse * statistics.stdev(values) / math.sqrt(len(values))
        return statistics.fmean(values)
