"""The values of a trial as Optuna's sampler draws them: the same ones wherever the search was interrupted."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence

import optuna
from optuna.trial import FrozenTrial

from raymc.config import Value
from raymc.metrics.ranking import rank_means
from raymc.space import sampler
from raymc.space.parameter import Parameter
from raymc.study.distributions import Distributions, suggest
from raymc.study.optuna_internals import reopened
from raymc.study.sampler import forget, reseed


class Draws:
    """Draws the values of trials.

    Args:
        params: which searched keys exist where, if not all of them do everywhere.
        sampler: its options.
        seed: the study's; with a trial's number it seeds the sampler of that trial.
        ranks: whether finished trials score by their ranks among each other.
    """

    def __init__(
        self,
        study: optuna.Study,
        distributions: Distributions,
        params: Mapping[str, Parameter],
        sampler: sampler.Options,
        seed: int,
        ranks: bool,
    ) -> None:
        self.study, self.distributions, self.params = study, dict(distributions), params
        self.sampler, self.seed, self.ranks = sampler, seed, ranks

    def reseed(self, number: int) -> None:
        """Let the sampler draw what it draws for this trial."""
        together = {
            key: distribution
            for key, distribution in self.distributions.items()
            if key not in self.params or not self.params[key].when
        }
        reseed(self.study, self.seed, number, ranks_of if self.ranks else None, self.sampler, together)

    def completed(self, trial: FrozenTrial) -> optuna.trial.Trial:
        """The running trial with all its parameters: a driver killed while asking may have left some out."""
        again = reopened(self.study, trial)
        if all(key in trial.params for key in self.distributions if self._exists(key, trial.params)):
            return again  # to draw its keys together once more would overwrite what the sampler noted of them
        self.reseed(trial.number)
        forget(self.study, trial)
        again = reopened(self.study, trial)
        together = again.relative_params
        return self.drawn(again, {key for key in trial.params if key not in together})

    def drawn(self, trial: optuna.trial.Trial, again: Collection[str] = ()) -> optuna.trial.Trial:
        """The trial with a value of every key that exists at it; of `again` it has one by an earlier draw."""
        for key, distribution in self.distributions.items():
            if not self._exists(key, trial.params):
                continue
            if key in again:  # draw it once more, so that the next draw is the same
                frozen = self.study.get_trials(deepcopy=False)[trial.number]
                before = copy.copy(frozen)
                before.params = {name: frozen.params[name] for name in self._before(key) if name in frozen.params}
                self.study.sampler.sample_independent(self.study, before, key, distribution)
            suggest(trial, key, distribution)
        return trial

    def _exists(self, key: str, params: Mapping[str, Value]) -> bool:
        return key not in self.params or self.params[key].exists(params)

    def _before(self, key: str) -> list[str]:
        keys = list(self.distributions)
        return keys[: keys.index(key)]


def ranks_of(done: Sequence[FrozenTrial]) -> list[float]:
    """What finished trials score among each other now, where ranks decide."""
    return rank_means([trial.user_attrs["metrics"] for trial in done])
