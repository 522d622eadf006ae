"""Which searched keys moved the score: functional ANOVA over finished trials (Hutter et al., 2014), by Optuna."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from raymc.study.reader import Study
from raymc.study.records import Record


def importance(study: Study, trials: Sequence[Record]) -> dict[str, float]:
    """The share of each searched key in the variance of the score; empty where the trees found none.

    `trials` are finished ones within the searched ranges. The shares sum to 1 and fall.
    """
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


def _in_memory(study: Study, trials: Sequence[Record]) -> optuna.Study:
    """An Optuna study of the records: the study's own database is not opened, a search may be writing to it."""
    everywhere = {key: spec for key, spec in study.searched.items() if not spec.get("when")}
    distributions = {key: _distribution(spec) for key, spec in everywhere.items()}
    memory = optuna.create_study(direction="minimize" if study.objective.mode == "min" else "maximize")
    for trial in trials:
        params = {key: _scalar(trial.params[key], spec) for key, spec in everywhere.items()}
        memory.add_trial(optuna.trial.create_trial(value=trial.score, params=params, distributions=distributions))
    return memory


def _distribution(spec: Mapping[str, Any]) -> BaseDistribution:
    if "choices" in spec:
        return CategoricalDistribution([_label(choice) for choice in spec["choices"]])
    return FloatDistribution(float(spec["low"]), float(spec["high"]), log=bool(spec.get("log")))


def _scalar(value: Any, spec: Mapping[str, Any]) -> float | str:
    return _label(value) if "choices" in spec else float(value)


def _label(choice: Any) -> str:
    return repr(choice)
