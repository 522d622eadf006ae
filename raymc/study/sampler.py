"""The sampler: it asks the same after a resume as without one, and knows scores as they are now."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna import Study, create_study
from optuna import samplers as optuna_samplers
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from raymc.space import sampler as sections

Scores = Callable[[Sequence[FrozenTrial]], Sequence[float]]
"""The scores of finished trials among each other, in their order."""


class Rescored(BaseSampler):
    """Another sampler that sees a study whose finished trials have the scores of `scores`.

    For a score that compares trials, such as a rank: each new trial changes all of them, and Optuna keeps what it was
    told of a trial for good.
    """

    def __init__(self, sampler: BaseSampler, scores: Scores) -> None:
        self.sampler, self.scores = sampler, scores

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.sampler.infer_relative_search_space(*self._rescored(study, trial))

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> Any:
        return self.sampler.sample_relative(*self._rescored(study, trial), search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.sampler.sample_independent(*self._rescored(study, trial), param_name, param_distribution)

    def _rescored(self, study: Study, trial: FrozenTrial) -> tuple[Study, FrozenTrial]:
        """The study in memory with the scores as they are now, and the trial in it."""
        trials = [copy.copy(one) for one in study.get_trials(deepcopy=False)]
        done = [one for one in trials if one.state == TrialState.COMPLETE]
        for one, score in zip(done, self.scores(done), strict=True):
            one.value = score
        memory = create_study(direction=study.direction)
        memory.add_trials(trials)
        return memory, memory.get_trials(deepcopy=False)[trial.number]


class Point(optuna_samplers.QMCSampler):
    """The point of a quasi-random sequence that has the trial's number.

    Optuna's own counts its points in the database: a process that is killed while it asks would skip one.
    """

    def __init__(
        self, seed: int, number: int, together: Mapping[str, BaseDistribution], others: BaseSampler, **options: Any
    ) -> None:
        super().__init__(seed=seed, independent_sampler=others, warn_independent_sampling=False, **options)
        self._number, self._together = number, together

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {key: distribution for key, distribution in self._together.items() if not distribution.single()}

    def _find_sample_id(self, study: Study, search_space: dict[str, BaseDistribution]) -> int:
        return self._number


class Unvisited(optuna_samplers.BruteForceSampler):
    """A point that no trial has had; it ends no search, since the study's budget does."""

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        pass


_TPE = sections.TPE()
_NONE: Mapping[str, BaseDistribution] = {}


def reseed(
    study: Study,
    seed: int,
    number: int,
    scores: Scores | None = None,
    options: sections.Options = _TPE,
    together: Mapping[str, BaseDistribution] = _NONE,
) -> None:
    """Give the study a sampler whose draws depend on the study's seed, `number` and the told trials alone.

    `scores`: what finished trials score now, where that is not what they were told with. `together` are the keys that
    every trial has.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        sampler = make_sampler(options, seed, number, together)
    study.sampler = sampler if scores is None else Rescored(sampler, scores)


def make_sampler(
    options: sections.Options, seed: int, number: int, together: Mapping[str, BaseDistribution]
) -> BaseSampler:
    """Optuna's sampler for trial `number`."""
    drawn = sampler_seed(seed, number)
    given = options.model_dump(exclude={"name"})
    match options:
        case sections.TPE():
            return optuna_samplers.TPESampler(**given | {"group": bool(options.group)}, seed=drawn)
        case sections.GP():
            return optuna_samplers.GPSampler(**given, seed=drawn, warn_independent_sampling=False)
        case sections.CMAES():
            return optuna_samplers.CmaEsSampler(**given, seed=drawn, warn_independent_sampling=False)
        case sections.NSGA2():
            return optuna_samplers.NSGAIISampler(**given, seed=drawn)
        case sections.QMC():
            return Point(seed, number, together, RandomSampler(drawn), **given)
        case sections.Grid():
            return Unvisited(drawn)
        case _:
            return RandomSampler(drawn)


def next_number(study: Study) -> int:
    """The number of the trial that the study hands out next."""
    trials = study.get_trials(deepcopy=False)
    waiting = [trial.number for trial in trials if trial.state == TrialState.WAITING]
    return min(waiting, default=len(trials))


def sampler_seed(seed: int, number: int) -> int:
    """A 32-bit seed that changes with both."""
    digest = hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")
