"""Searched keys as Optuna distributions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from optuna import Study
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

from raymc.config import Value, nearest
from raymc.errors import InputError
from raymc.space.parameter import Parameter
from raymc.values import setting, written

Distributions = Mapping[str, BaseDistribution]
_NONE: Mapping[str, Parameter] = {}


def compile_space(params: Mapping[str, Parameter]) -> dict[str, BaseDistribution]:
    """One Optuna distribution for each searched dotted key, in the order of the keys."""
    return {key: _distribution(parameter) for key, parameter in params.items()}


def check_point(
    point: Mapping[str, Value], distributions: Distributions, params: Mapping[str, Parameter] = _NONE
) -> dict[str, Value]:
    """`point` with its numbers in the types of `distributions`; `params` says which keys exist at it.

    Optuna runs a point outside its range anyway and ignores a key that it does not know, so both are
    refused here. Raises InputError, also for a searched key that the point leaves out.
    """
    for key in point:
        if key not in distributions:
            raise InputError(f"first: {key} is not searched{nearest(key, distributions)}")
    checked: dict[str, Value] = {}
    for key, distribution in distributions.items():
        if key in params and not params[key].exists(point):
            continue
        if key not in point:
            raise InputError(f"first: {key} is missing (a point names every searched key)")
        checked[key] = _checked(key, point[key], distribution)
    return checked


def enqueue(
    study: Study,
    points: Iterable[Mapping[str, Value]],
    distributions: Distributions,
    params: Mapping[str, Parameter] = _NONE,
) -> None:
    """Put `points` at the head of a new study. Raises InputError, before any is put there, if one does not fit."""
    for point in [check_point(point, distributions, params) for point in points]:
        study.enqueue_trial(dict(point))


def suggest(trial: Trial, key: str, distribution: BaseDistribution) -> None:
    """Draw `key` for the trial, unless it has it already."""
    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(key, distribution.choices)
    elif isinstance(distribution, IntDistribution):
        trial.suggest_int(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    elif isinstance(distribution, FloatDistribution):
        low, high, step, log = distribution.low, distribution.high, distribution.step, distribution.log
        trial.suggest_float(key, low, high, step=step, log=log)


def _distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.choices:
        return CategoricalDistribution(parameter.choices)
    assert parameter.low is not None and parameter.high is not None
    if parameter.kind == "int":
        step = 1 if parameter.step is None else int(parameter.step)
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log, step=step)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)


def _checked(key: str, value: Value, distribution: BaseDistribution) -> Value:
    if isinstance(distribution, CategoricalDistribution):
        for choice in distribution.choices:
            if choice == value and isinstance(choice, bool) == isinstance(value, bool):
                return choice
        raise InputError(f"first: {key} {written(value)} is not one of {', '.join(map(written, distribution.choices))}")
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"first: {key} {written(value)} is not a number")
    whole = isinstance(distribution, IntDistribution) and value == int(value)
    if not distribution._contains(float(value)):
        ends = f"{setting(distribution.low)} to {setting(distribution.high)}"
        raise InputError(f"first: {key} {written(value)} is outside {ends}")
    return int(value) if whole else float(value)
