"""What a search does, settled before it begins: sampler, pruner and what that counts, with every value filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raymc.errors import InputError
from raymc.methods import METHODS
from raymc.metrics.names import GROUP_METRICS, STUDY_METRICS
from raymc.space import pruner, sampler
from raymc.space.objective import Objective
from raymc.space.parameter import Parameter
from raymc.space.pruner import ASHA, Hyperband, Median, Unpruned, Wilcoxon
from raymc.space.sampler import CMAES, NSGA2, TPE, Grid
from raymc.space.space import Space
from raymc.validation import Value

SEED_FACTOR, EPOCH_FACTOR = 2, 3
"""Of the trials that reach a rung, one in so many goes on."""


def settled_sampler(asked: sampler.Options, params: Mapping[str, Parameter], objective: Objective) -> sampler.Options:
    """The sampler with what depends on the search filled in. Raises InputError where it cannot draw from the space."""
    second = objective.second
    if isinstance(asked, CMAES | NSGA2) and objective.metric in STUDY_METRICS:
        why = f"{objective.metric} gives earlier trials another score with each new one, and it learns of them once"
        raise InputError(f"sampler {asked.name}: {why}; take tpe or gp")
    if isinstance(asked, TPE):
        together = second is None if asked.multivariate is None else asked.multivariate
        conditional = any(parameter.when for parameter in params.values())
        group = together and conditional if asked.group is None else asked.group
        if group and not together:
            raise InputError("sampler: group draws keys together; it needs multivariate: true")
        return asked.model_copy(update={"multivariate": together, "group": group})
    if isinstance(asked, CMAES):
        _check_cmaes(asked, params, second)
    if isinstance(asked, Grid) and params:
        grid_size(params)
    return asked


def _check_cmaes(asked: CMAES, params: Mapping[str, Parameter], second: str | None) -> None:
    if second:
        raise InputError(f"sampler cmaes: it has one metric, and the objective has a second, {second}")
    if params and all(parameter.choices or parameter.when for parameter in params.values()):
        raise InputError("sampler cmaes: a key with a range, without `when`, is needed; it draws choices at random")
    if asked.with_margin and any(parameter.when for parameter in params.values()):
        raise InputError("sampler cmaes: with_margin needs keys that all exist in every trial, and one has a `when`")
    chosen = [name for name in ("use_separable_cma", "with_margin", "lr_adapt") if getattr(asked, name)]
    if len(chosen) > 1:
        raise InputError(f"sampler cmaes: {' and '.join(chosen)} exclude each other")


def grid_size(params: Mapping[str, Parameter]) -> int:
    """How many points a finite space has. Raises InputError where a range has no step."""
    for key, parameter in params.items():
        if parameter.count is None:
            raise InputError(f"sampler grid: {key} is {parameter} without a step; give choices or a step")
    parents = {key: sorted(choices, key=str) for key, choices in _values_asked_for(params).items()}
    return _points(params, parents, {})


def _values_asked_for(params: Mapping[str, Parameter]) -> dict[str, set[Any]]:
    found: dict[str, set[Any]] = {}
    for parameter in params.values():
        for key, value in parameter.when:
            found.setdefault(key, set()).add(value)
    return found


def _points(params: Mapping[str, Parameter], parents: Mapping[str, list[Any]], given: Mapping[str, Any]) -> int:
    """Points with the values `given`; of a key that others depend on, the values that matter are counted apart."""
    key = next((key for key in parents if key not in given), None)
    if key is not None:
        other = object()  # any value that no key asks for
        rest = (params[key].count or 0) - len(parents[key])
        apart = sum(_points(params, parents, {**given, key: value}) for value in parents[key])
        return apart + (rest * _points(params, parents, {**given, key: other}) if rest else 0)
    total = 1
    for name, parameter in params.items():
        if name not in parents and all(given[k] == v for k, v in parameter.when):
            total *= parameter.count or 1
    return total


def clustering_epochs(space: Space, params: Mapping[str, Value], smoke: bool) -> dict[str, int]:
    """The stages that assign clusters, in their order, with their epochs: what fidelity `epochs` counts."""
    config = space.config(params=params)
    stages = METHODS[space.method].stages(config)
    epochs = {stage.name: config.stages[stage.name].epochs for stage in stages if stage.clusters}
    return {name: min(count, 2) if smoke else count for name, count in epochs.items()}


def fidelity_of(asked: pruner.Options | None, fidelity: str, workers: int) -> str:
    """What a trial is stopped after: `none`, `seeds` or `epochs`.

    Workers cannot be stopped in the middle of a stage, so with several a trial is compared when a seed has ended.
    """
    if isinstance(asked, Unpruned):
        return "none"
    found = "seeds" if asked is not None and fidelity == "none" else fidelity
    return "seeds" if found == "epochs" and workers > 1 else found


def settled_pruner(
    asked: pruner.Options | None, fidelity: str, objective: Objective, seeds: int, epochs: int
) -> pruner.Options:
    """The pruner with every value filled in; None asks for successive halving where there is a `fidelity`.

    `epochs` are those of a seed in the stages that assign clusters. Raises InputError where it has nothing to go by.
    """
    if fidelity == "none" or (asked is None and fidelity == "seeds" and seeds < 2):
        return Unpruned()
    found = ASHA() if asked is None else asked
    _check_pruner(found, fidelity, objective, seeds)
    if not isinstance(found, ASHA | Hyperband):
        return found
    by_epochs = fidelity == "epochs"
    first = max(1, epochs // EPOCH_FACTOR**2) if by_epochs else 1
    filled = {"min_resource": first, "reduction_factor": EPOCH_FACTOR if by_epochs else SEED_FACTOR}
    found = found.model_copy(update={key: value for key, value in filled.items() if getattr(found, key) is None})
    first, whole = found.min_resource or 1, longest(fidelity, seeds, epochs)
    if asked is not None and first >= whole:
        counted = "epochs" if by_epochs else "seeds"
        raise InputError(f"pruner {found.name}: min_resource {first} is not below a trial's {whole} {counted}")
    return found


def longest(fidelity: str, seeds: int, epochs: int) -> int:
    """What a whole trial counts, in seeds or epochs."""
    return epochs * seeds if fidelity == "epochs" else seeds


def _check_pruner(asked: pruner.Options, fidelity: str, objective: Objective, seeds: int) -> None:
    if objective.second or objective.metric in STUDY_METRICS:
        why = "the objective has two metrics" if objective.second else f"{objective.metric} compares finished trials"
        raise InputError(f"pruner {asked.name}: a trial is stopped by one number of its own, and {why}; give none")
    if isinstance(asked, Wilcoxon):
        if fidelity == "epochs":
            raise InputError("pruner wilcoxon: it pairs seeds; write fidelity: seeds")
        if objective.metric in GROUP_METRICS:
            raise InputError(f"pruner wilcoxon: it pairs seeds, and a single seed has no {objective.metric}")
        if seeds <= asked.least:
            raise InputError(
                f"pruner wilcoxon: n seeds have p of 2^-n at best, so with p_threshold {asked.p_threshold:g} it stops "
                f"no trial before seed {asked.least}: {asked.least + 1} seeds or more are needed, not {seeds}"
            )
    elif fidelity == "seeds" and isinstance(asked, Median | Hyperband | ASHA) and seeds < 2:
        raise InputError(f"pruner {asked.name}: it compares trials seed by seed; two seeds or more are needed, not 1")
