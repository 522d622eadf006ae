"""Which searched keys moved the score: functional ANOVA over the finished trials (Hutter et al., 2014)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from raymc.reporting.records import Record, Study
from raymc.reporting.words import count

ENOUGH = 5
"""Finished trials below which a split of the variance would be noise."""


def parameter_importance(study: Study) -> dict[str, Any]:
    """`{"method", "values": {key: share}, "note"}`, the shares summing to 1 and falling.

    `values` is empty where it cannot be said; `note` then says why, else how far to trust it.
    """
    trials = [r for r in study.finished if all(_inside(r.params.get(k), s) for k, s in study.searched.items())]
    note = _why_not(study, trials)
    values = {} if note else _fanova(study, trials)
    if values:
        note = f"From {count(len(trials), 'finished trial')}; pruned and failed ones are left out, so regions that the "
        note += "search gave up early count for less. "
        note += "With so few trials, take the order as a hint." if len(trials) < 30 else "The order is what matters."
    return {"method": "fANOVA", "values": values, "note": note or "The trees found no variance to divide."}


def _why_not(study: Study, trials: Sequence[Record]) -> str:
    if not study.searched:
        return "Nothing was searched: every trial has the same configuration."
    if len(trials) < ENOUGH:
        return f"Not computed: {count(len(trials), 'finished trial')}, and fewer than {ENOUGH} cannot tell keys apart."
    if len({trial.score for trial in trials}) == 1:
        return "Not computed: every finished trial has the same score."
    try:
        import optuna  # noqa: F401
    except ImportError:
        return "Not computed: Optuna is not installed where this report was written."
    return ""


def _fanova(study: Study, trials: Sequence[Record]) -> dict[str, float]:
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=32, seed=0)
            shares = optuna.importance.get_param_importances(_in_memory(study, trials), evaluator=evaluator)
    except (RuntimeError, ValueError):
        return {}  # every tree found zero variance
    finally:
        optuna.logging.set_verbosity(level)
    return {key: float(share) for key, share in shares.items()}


def _in_memory(study: Study, trials: Sequence[Record]) -> Any:
    """An Optuna study of the records: the study's own database is not opened, a search may be writing to it."""
    import optuna

    distributions = {key: _distribution(spec) for key, spec in study.searched.items()}
    memory = optuna.create_study(direction="minimize" if study.objective.mode == "min" else "maximize")
    for trial in trials:
        params = {key: _scalar(trial.params[key], spec) for key, spec in study.searched.items()}
        memory.add_trial(optuna.trial.create_trial(value=trial.score, params=params, distributions=distributions))
    return memory


def _distribution(spec: Mapping[str, Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if "choices" in spec:
        return CategoricalDistribution([_label(choice) for choice in spec["choices"]])
    return FloatDistribution(float(spec["low"]), float(spec["high"]), log=bool(spec.get("log")))


def _scalar(value: Any, spec: Mapping[str, Any]) -> float | str:
    return _label(value) if "choices" in spec else float(value)


def _label(choice: Any) -> str:
    return repr(choice)


def _inside(value: Any, spec: Mapping[str, Any]) -> bool:
    if "choices" in spec:
        return value in spec["choices"]
    return isinstance(value, int | float) and spec["low"] <= value <= spec["high"]
