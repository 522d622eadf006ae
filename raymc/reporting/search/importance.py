"""Which searched keys moved the score: functional ANOVA over the finished trials (Hutter et al., 2014)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raymc.reporting.words import count, listing
from raymc.study.reader import Study
from raymc.study.records import Record

ENOUGH = 5
"""Finished trials below which a split of the variance would be noise."""


def parameter_importance(study: Study) -> dict[str, Any]:
    """`{"method", "values": {key: share}, "note"}`, the shares summing to 1 and falling.

    `values` is empty where it cannot be said; `note` then says why, else how far to trust it.
    """
    trials = [r for r in study.finished if all(_inside(r.params.get(k), s) for k, s in everywhere(study))]
    values: dict[str, float] = {}
    if not (note := _why_not(study, trials)):
        try:
            from raymc.study.importance import importance

            values = importance(study, trials)
        except ImportError:
            note = "Not computed: Optuna is not installed where this report was written."
    if values:
        some = [key for key, spec in study.searched.items() if spec.get("when")]
        note = f"From {count(len(trials), 'finished trial')}; pruned and failed ones are left out, so regions that the "
        note += "search gave up early count for less. "
        note += f"Left out: {listing(some)}, which not every trial has. " if some else ""
        note += "With so few trials, take the order as a hint." if len(trials) < 30 else "The order is what matters."
    return {"method": "fANOVA", "values": values, "note": note or "The trees found no variance to divide."}


def everywhere(study: Study) -> list[tuple[str, Mapping[str, Any]]]:
    """The searched keys that every trial has."""
    return [(key, spec) for key, spec in study.searched.items() if not spec.get("when")]


def _why_not(study: Study, trials: Sequence[Record]) -> str:
    if not study.searched:
        return "Nothing was searched: every trial has the same configuration."
    if len(trials) < ENOUGH:
        return f"Not computed: {count(len(trials), 'finished trial')}, and fewer than {ENOUGH} cannot tell keys apart."
    if len({trial.score for trial in trials}) == 1:
        return "Not computed: every finished trial has the same score."
    return ""


def _inside(value: Any, spec: Mapping[str, Any]) -> bool:
    if "choices" in spec:
        return value in spec["choices"]
    return isinstance(value, int | float) and spec["low"] <= value <= spec["high"]
