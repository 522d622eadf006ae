"""The sections `objective` and `budget` of a search-space file: what trials are scored by, and how much is run."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from raymc.config import nearest
from raymc.metrics.gates import Gates
from raymc.metrics.names import BOUNDED, EPOCH_METRICS, GROUP_METRICS, LABEL_METRICS, OBJECTIVES, STUDY_METRICS
from raymc.space.section import Section
from raymc.validation import Number, wrong
from raymc.values import setting

BOUNDABLE = (*(name for name in OBJECTIVES if name not in STUDY_METRICS), *BOUNDED)


class CollapseGates(Section):
    """When a training counts as collapsed. Too strict for classes of very different size: widen it, or null."""

    smallest_share: Number = Field(
        default=Gates.smallest_share, description="least size of a cluster, over that of n/k points", ge=0, le=1
    )
    largest_share: Number = Field(
        default=Gates.largest_share, description="greatest size of a cluster, over that of n/k points", ge=1
    )
    rank: int = Field(default=Gates.rank, description="least numerical rank of the embedding", ge=1)


class Bound(Section):
    """What a trial must keep to in another metric: one that does not is never the winner."""

    metric: str = Field(
        description="what is bounded: the mean over a trial's seeds", json_schema_extra={"enum": [*BOUNDABLE]}
    )
    at_most: Number | None = Field(default=None, description="the largest value that is allowed")
    at_least: Number | None = Field(default=None, description="the smallest value that is allowed")

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.metric not in BOUNDABLE:
            known = ", ".join(BOUNDABLE)
            raise wrong(f"unknown metric {self.metric}{nearest(self.metric, BOUNDABLE)} (known: {known})")
        if self.at_most is None and self.at_least is None:
            raise wrong("at_most or at_least is missing")
        if self.at_most is not None and self.at_least is not None and self.at_least > self.at_most:
            raise wrong(f"at_least {setting(self.at_least)} is above at_most {setting(self.at_most)}")
        return self


class Objective(Section):
    """What a trial is judged by."""

    metric: str = Field(default="acc", description="what is compared", json_schema_extra={"enum": [*OBJECTIVES]})
    mode: Literal["max", "min"] = Field(default="max", description="whether larger or smaller is better")
    aggregate: Literal["mean", "lower", "min"] = Field(
        default="mean",
        description="of a trial's seeds: their mean, the mean less one standard error, or the worst seed",
    )
    second: str | None = Field(
        default=None,
        description="another metric: the search then looks for the Pareto front of both, and the first one decides",
        json_schema_extra={"enum": [*(name for name in OBJECTIVES if name not in STUDY_METRICS), None]},
    )
    constraint: Bound | None = Field(default=None, description=Bound.__doc__)
    gates: CollapseGates | None = Field(
        default=None, description="left out: as described for an objective without labels, none for one with labels"
    )
    uses_labels: bool | None = Field(
        default=None,
        description="whether a metric looks at the true labels; left out: what holds for the metrics",
    )

    @model_validator(mode="before")
    @classmethod
    def _consistent(cls, content: object) -> object:
        metric = content.get("metric", "acc") if isinstance(content, dict) else None
        if not isinstance(content, dict) or not isinstance(metric, str):
            return content
        second = content.get("second")
        metrics = [metric, *([second] if isinstance(second, str) else [])]
        for name in metrics:
            if name not in OBJECTIVES:
                raise wrong(f"unknown metric {name}{nearest(name, OBJECTIVES)} (known: {', '.join(OBJECTIVES)})")
        _check_metrics(metrics, content.get("mode", "max"), content.get("aggregate", "mean"))
        bound = content.get("constraint")
        bounded = [bound["metric"]] if isinstance(bound, dict) and isinstance(bound.get("metric"), str) else []
        labels = any(name in LABEL_METRICS for name in (*metrics, *bounded))
        content = {key: value for key, value in content.items() if (key, value) != ("uses_labels", None)}
        if content.get("uses_labels", labels) is (not labels):
            why = f"{' and '.join(metrics)} {'needs' if labels else 'looks at no'} labels"
            raise wrong(f"{why}: write uses_labels: {str(labels).lower()}")
        return {"uses_labels": labels} | ({} if labels else {"gates": {}}) | content


class Confirm(Section):
    """The best trials, run again on seeds that the search never saw."""

    top: int = Field(default=3, description="trials that are confirmed", ge=1)
    seeds: int = Field(default=5, description="fresh seeds for each of them", ge=1)


class Budget(Section):
    """How much is run."""

    trials: int = Field(default=20, description="configurations", ge=1)
    seeds: int = Field(default=2, description="seeds of a trial, the same for all trials", ge=1)
    confirm: Confirm | None = Field(default=Confirm(), description="null: no confirmation")
    hours: Number | None = Field(default=None, description="of wall clock, after which no trial begins", gt=0)
    gpu_hours: Number | None = Field(default=None, description="held by trials, after which no trial begins", gt=0)
    patience: int | None = Field(
        default=None, description="finished trials in a row without a better score, after which no trial begins", ge=1
    )
    fidelity: Literal["none", "epochs", "seeds"] = Field(
        default="none", description="what a bad trial is stopped after: never, some epochs, some seeds"
    )


def _check_metrics(metrics: list[str], mode: object, aggregate: object) -> None:
    """What the metrics of an objective exclude."""
    if len(metrics) == 2 and metrics[0] == metrics[1]:
        raise wrong(f"second is {metrics[0]} too: two different metrics have a Pareto front")
    for name in metrics:
        if name in STUDY_METRICS and len(metrics) == 2:
            raise wrong(f"{name} ranks by all label-free metrics already: it has no second one beside it")
        if name in (*GROUP_METRICS, *STUDY_METRICS) and mode == "min":
            raise wrong(f"of {name} more is better: mode min would look for the worst")
    if metrics[0] in (*GROUP_METRICS, *STUDY_METRICS) and aggregate != "mean":
        raise wrong(f"{metrics[0]} is one figure of all seeds: aggregate {aggregate} has nothing to choose from")


def against_budget(objective: Objective, budget: Budget) -> str:
    """Why the objective cannot be had from the budget; empty where it can."""
    metric, fidelity = objective.metric, budget.fidelity
    several = several_seeds(metric, objective.second, objective.aggregate, objective.constraint)
    if several and budget.seeds < 2:
        return f"budget.seeds: {several} needs two seeds or more"
    if several and budget.confirm is not None and budget.confirm.seeds < 2:
        return f"budget.confirm.seeds: {several} needs two seeds or more"
    if objective.second and fidelity != "none":
        return f"budget.fidelity: {fidelity} stops trials by one metric, and the objective has two: write none"
    if metric in STUDY_METRICS and fidelity != "none":
        return f"budget.fidelity: {metric} compares finished trials: write none"
    if fidelity == "epochs" and metric not in EPOCH_METRICS:
        known = ", ".join(EPOCH_METRICS)
        return f"budget.fidelity: {metric} is not known before a training ends (known: {known}): write seeds or none"
    return ""


def several_seeds(metric: str, second: str | None, aggregate: str, constraint: Bound | None = None) -> str:
    """What of an objective one seed does not have; empty where one is enough."""
    bounded = constraint and constraint.metric
    group = next((name for name in (metric, second, bounded) if name in (*GROUP_METRICS, *STUDY_METRICS)), None)
    return group or (f"aggregate {aggregate}" if aggregate == "lower" else "")
