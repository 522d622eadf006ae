"""The section `sampler` of a search-space file: what draws the next trial, each argument with a default of raymc's own.

Optuna's defaults change between its versions; a study's manifest holds every value that is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from raymc.config import nearest
from raymc.space.section import Section
from raymc.validation import wrong


class TPE(Section):
    """Tree-structured Parzen estimator (Bergstra et al., 2011; Watanabe, 2023)."""

    name: Literal["tpe"] = "tpe"
    n_startup_trials: int = Field(default=10, description="trials that are drawn at random first", ge=0)
    n_ei_candidates: int = Field(default=24, description="candidates among which the best is taken", ge=1)
    multivariate: bool | None = Field(
        default=None, description="draw keys together; left out: with one metric true, with two false"
    )
    group: bool | None = Field(
        default=None, description="draw together what exists together; left out: true where a key has a `when`"
    )
    constant_liar: bool = Field(default=True, description="keep away from trials that are running")


class GP(Section):
    """Gaussian process, Matérn 5/2, with the logarithm of the expected improvement."""

    name: Literal["gp"] = "gp"
    n_startup_trials: int = Field(default=10, description="trials that are drawn at random first", ge=1)
    deterministic_objective: bool = Field(default=False, description="whether scores are without noise")


class CMAES(Section):
    """Covariance matrix adaptation (Hansen, 2016); choices are drawn at random."""

    name: Literal["cmaes"] = "cmaes"
    n_startup_trials: int = Field(default=1, description="trials that are drawn at random first", ge=1)
    popsize: int | None = Field(
        default=None, description="trials of a generation; left out: 4 + 3 log(number of keys)", ge=4
    )
    consider_pruned_trials: bool = Field(default=False, description="learn from trials that were stopped early, too")
    use_separable_cma: bool = Field(default=False, description="a diagonal covariance")
    with_margin: bool = Field(default=False, description="keeps whole numbers and steps from getting stuck")
    lr_adapt: bool = Field(default=False, description="adapt the learning rate: for noisy scores, and many trials")


class Random(Section):
    """Independent draws."""

    name: Literal["random"] = "random"


class QMC(Section):
    """A quasi-random sequence, which fills the space more evenly than random draws."""

    name: Literal["qmc"] = "qmc"
    qmc_type: Literal["sobol", "halton"] = Field(default="sobol", description="the sequence")
    scramble: bool = Field(default=True, description="randomise it by the study's seed")


class Grid(Section):
    """Every point of a finite space once, in random order."""

    name: Literal["grid"] = "grid"


class NSGA2(Section):
    """The genetic algorithm NSGA-II (Deb et al., 2002)."""

    name: Literal["nsga2"] = "nsga2"
    population_size: int = Field(default=50, description="trials of a generation", ge=2)
    mutation_prob: float | None = Field(
        default=None, description="chance that a key mutates; left out: one over the number of keys", ge=0, le=1
    )
    crossover_prob: float = Field(default=0.9, description="chance that two parents are crossed", ge=0, le=1)
    swapping_prob: float = Field(default=0.5, description="chance that a key comes from the second parent", ge=0, le=1)


Options = TPE | GP | CMAES | Random | QMC | Grid | NSGA2
SAMPLERS: Mapping[str, type[Options]] = {
    **{"tpe": TPE, "gp": GP, "cmaes": CMAES, "random": Random},
    **{"qmc": QMC, "grid": Grid, "nsga2": NSGA2},
}


def named(known: Mapping[str, type[Section]]) -> BeforeValidator:
    """Lets a section stand as its `name` alone, and complains of a name that is not `known`."""

    def check(value: object) -> object:
        content = {"name": value} if isinstance(value, str) else value
        name = content.get("name") if isinstance(content, dict) else None
        if isinstance(content, dict) and name not in known:
            raise wrong(f"unknown name {name}{nearest(str(name), known)} (known: {', '.join(known)})")
        return content

    return BeforeValidator(check, json_schema_input_type=Literal[tuple(known)] | dict[str, Any])


Sampler = Annotated[Annotated[Options, Field(discriminator="name")], named(SAMPLERS)]
