"""Optuna's pruner for a section `pruner`, and what it is told of a trial."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from optuna import pruners
from optuna.exceptions import ExperimentalWarning

from raymc.space import pruner as sections


def make_pruner(options: sections.Options, longest: int) -> pruners.BasePruner | None:
    """The pruner of trials that count up to `longest` seeds or epochs; None where nothing is stopped."""
    given = options.model_dump(exclude={"name"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        match options:
            case sections.ASHA():
                return pruners.SuccessiveHalvingPruner(**given, bootstrap_count=0)
            case sections.Wilcoxon():
                return pruners.WilcoxonPruner(**given)
            case sections.Median():
                return pruners.MedianPruner(**given)
            case sections.Hyperband():
                return pruners.HyperbandPruner(**given, max_resource=longest)
    return None


def judged(pruner: pruners.BasePruner, report: Mapping[str, Any]) -> float | None:
    """The number of a trial's report that the pruner compares: the score so far, or the last seed's own."""
    found: float | None = report.get("value" if isinstance(pruner, pruners.WilcoxonPruner) else "running")
    return found
