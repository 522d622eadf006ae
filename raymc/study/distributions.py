"""Searched keys as Optuna distributions, and the sampler that asks the same after a resume as without one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from optuna import Study
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import TPESampler
from optuna.trial import Trial, TrialState

from raymc.config import Value, nearest
from raymc.errors import InputError
from raymc.space.parameter import Parameter

Distributions = Mapping[str, BaseDistribution]


def compile_space(params: Mapping[str, Parameter]) -> dict[str, BaseDistribution]:
    """One Optuna distribution for each searched dotted key, in the order of the keys."""
    return {key: _distribution(parameter) for key, parameter in params.items()}


def check_point(point: Mapping[str, Value], distributions: Distributions) -> dict[str, Value]:
    """`point` with its numbers in the types of `distributions`.

    Optuna runs a point outside its range anyway and ignores a key that it does not know, so both are
    refused here. Raises InputError, also for a searched key that the point leaves out.
    """
    for key in point:
        if key not in distributions:
            raise InputError(f"first: {key} is not searched{nearest(key, distributions)}")
    checked: dict[str, Value] = {}
    for key, distribution in distributions.items():
        if key not in point:
            raise InputError(f"first: {key} is missing (a point names every searched key)")
        checked[key] = _checked(key, point[key], distribution)
    return checked


def enqueue(study: Study, points: Iterable[Mapping[str, Value]], distributions: Distributions) -> None:
    """Put `points` at the head of a new study. Raises InputError, before any is put there, if one does not fit."""
    for point in [check_point(point, distributions) for point in points]:
        study.enqueue_trial(dict(point))


def reseed(study: Study, seed: int, number: int) -> None:
    """Give the study a sampler whose draws depend on the study's seed, `number` and the told trials alone."""
    study.sampler = TPESampler(seed=sampler_seed(seed, number))


def suggest(trial: Trial, key: str, distribution: BaseDistribution) -> None:
    """Draw `key` for the trial, unless it has it already."""
    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(key, distribution.choices)
    elif isinstance(distribution, IntDistribution):
        trial.suggest_int(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    elif isinstance(distribution, FloatDistribution):
        low, high, step, log = distribution.low, distribution.high, distribution.step, distribution.log
        trial.suggest_float(key, low, high, step=step, log=log)


def next_number(study: Study) -> int:
    """The number of the trial that the study hands out next."""
    trials = study.get_trials(deepcopy=False)
    waiting = [trial.number for trial in trials if trial.state == TrialState.WAITING]
    return min(waiting, default=len(trials))


def sampler_seed(seed: int, number: int) -> int:
    """A 32-bit seed that changes with both."""
    digest = hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


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
        raise InputError(f"first: {key} {value!r} is not one of {', '.join(map(str, distribution.choices))}")
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"first: {key} {value!r} is not a number")
    whole = isinstance(distribution, IntDistribution) and value == int(value)
    if not distribution._contains(float(value)):
        raise InputError(f"first: {key} {value} is outside {distribution.low:g} to {distribution.high:g}")
    return int(value) if whole else float(value)
