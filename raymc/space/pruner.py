"""The section `pruner` of a search-space file: what stops a bad trial early, by its seeds or by its epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from raymc.space.sampler import named
from raymc.space.section import Section


class Unpruned(Section):
    """Every trial runs all of its seeds."""

    name: Literal["none"] = "none"


class ASHA(Section):
    """Asynchronous successive halving (Li et al., 2020) of the score so far."""

    name: Literal["asha"] = "asha"
    min_resource: int | None = Field(
        default=None,
        description="seeds or epochs of the first rung; left out: a seed, a ninth of its epochs",
        ge=1,
    )
    reduction_factor: int | None = Field(
        default=None, description="one in so many goes on from a rung; left out: 2 by seeds, 3 by epochs", ge=2
    )
    min_early_stopping_rate: int = Field(default=0, description="rungs at the beginning that are left out", ge=0)


class Wilcoxon(Section):
    """Wilcoxon's signed-rank test of a trial's seeds against the same seeds of the best trial."""

    name: Literal["wilcoxon"] = "wilcoxon"
    p_threshold: float = Field(default=0.1, description="a trial is stopped below this p", gt=0, lt=1)
    n_startup_steps: int = Field(default=2, description="seeds before the first test", ge=2)

    @property
    def least(self) -> int:
        """Seeds after which the test can first speak: the smallest p of n pairs is 2^-n."""
        return max(self.n_startup_steps, math.floor(-math.log2(self.p_threshold)) + 1)


class Median(Section):
    """Stops a trial whose score so far is below the median of the finished ones at as many seeds or epochs."""

    name: Literal["median"] = "median"
    n_startup_trials: int = Field(default=5, description="finished trials before anything is stopped", ge=0)
    n_warmup_steps: int = Field(default=0, description="seeds, or epochs, before a trial is compared", ge=0)
    interval_steps: int = Field(default=1, description="seeds, or epochs, between two comparisons", ge=1)
    n_min_trials: int = Field(default=1, description="trials with a value to compare with", ge=1)


class Hyperband(Section):
    """Successive halving in several brackets, some of which begin later (Li et al., 2018)."""

    name: Literal["hyperband"] = "hyperband"
    min_resource: int | None = Field(default=None, description="as of asha", ge=1)
    reduction_factor: int | None = Field(default=None, description="as of asha", ge=2)
    bootstrap_count: int = Field(default=0, description="trials that a rung waits for before it stops one", ge=0)


Options = Unpruned | ASHA | Wilcoxon | Median | Hyperband
PRUNERS: Mapping[str, type[Options]] = {
    **{"asha": ASHA, "wilcoxon": Wilcoxon, "median": Median},
    **{"hyperband": Hyperband, "none": Unpruned},
}
Pruner = Annotated[Annotated[Options, Field(discriminator="name")], named(PRUNERS)]
