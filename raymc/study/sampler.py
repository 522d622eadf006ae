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
from optuna.samplers.nsgaii import UniformCrossover
from optuna.trial import FrozenTrial, TrialState

from raymc.space import sampler as sections
from raymc.study.optuna_internals import set_system_attr

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
        quiet: dict[str, Any] = {"warn_independent_sampling": False, "warn_asynchronous_seeding": False}
        super().__init__(seed=seed, independent_sampler=others, **quiet, **options)
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


LEFT_OUT = {
    **dict.fromkeys(("consider_prior", "prior_weight", "consider_magic_clip"), "deprecated: to give it warns"),
    **dict.fromkeys(
        ("consider_endpoints", "gamma", "weights", "warn_independent_sampling"), "deprecated: to give it warns"
    ),
    **dict.fromkeys(("x0", "sigma0", "restart_strategy", "inc_popsize"), "deprecated: to give it warns"),
    "constraints_func": "deprecated: a trial's constraint is noted with it",
    "source_trials": "none: a search begins without a distribution of another",
    "mutation": "none: a key that mutates is drawn anew",
    "elite_population_selection_strategy": "none: that of the paper, out of the options above",
    "child_generation_strategy": "none: that of the paper, out of the options above",
    "after_trial_strategy": "none: nothing but the constraints",
}
"""What Optuna's samplers and pruners also take and raymc does not give, with why."""


def make_sampler(
    options: sections.Options, seed: int, number: int, together: Mapping[str, BaseDistribution]
) -> BaseSampler:
    """Optuna's sampler for trial `number`."""
    drawn = sampler_seed(seed, number)
    given = options.model_dump(exclude={"name"})
    own = {"seed": drawn, "independent_sampler": RandomSampler(drawn), "warn_independent_sampling": False}
    match options:
        case sections.TPE():
            return optuna_samplers.TPESampler(**given | {"group": bool(options.group)}, seed=drawn)
        case sections.GP():
            return optuna_samplers.GPSampler(**given | own)
        case sections.CMAES():
            return optuna_samplers.CmaEsSampler(**given | own)
        case sections.NSGA2():
            return optuna_samplers.NSGAIISampler(**given, crossover=UniformCrossover(options.swapping_prob), seed=drawn)
        case sections.QMC():
            return Point(seed, number, together, RandomSampler(drawn), **given)
        case sections.Grid():
            return Unvisited(drawn, avoid_premature_stop=False)
        case _:
            return RandomSampler(drawn)


def forget(study: Study, trial: FrozenTrial) -> None:
    """Take back what a sampler noted of a trial that was not drawn to its end: gp would heed it as another one."""
    for key in [key for key in trial.system_attrs if "relative_params" in key]:
        set_system_attr(study, trial, key, "")


def next_number(study: Study) -> int:
    """The number of the trial that the study hands out next."""
    trials = study.get_trials(deepcopy=False)
    waiting = [trial.number for trial in trials if trial.state == TrialState.WAITING]
    return min(waiting, default=len(trials))


def sampler_seed(seed: int, number: int) -> int:
    """A 32-bit seed that changes with both."""
    digest = hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")
