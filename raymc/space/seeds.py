"""What the seeds of a trial vary: the first stage, and what these stages draw; remarks on a space."""

from __future__ import annotations

import dataclasses

from raymc.config import Config, parts_of
from raymc.errors import InputError
from raymc.methods import METHODS
from raymc.methods.base import Stage
from raymc.rng import PARTS
from raymc.space.space import Space

OF_CLUSTERS = {
    *("n_clusters", "clustering", "cluster_points"),
    *("ensc_gamma", "ensc_tau", "ssc_omp_nonzero", "ssc_omp_tolerance", "hdbscan_min_cluster_size"),
}
"""Bare keys that no stage before the clusters reads."""


def seeds_from(space: Space, config: Config) -> str:
    """The first stage whose seed differs between the seeds of a trial.

    `config.seeds_from` where it is given; else the first stage that the space searches, and the method's
    first stage where it searches nothing. A bare key counts as the first stage, but one that only says how clusters
    are found as the first one that assigns them. Where neither that stage nor a later one trains, it is the last one
    before that does: seeds that vary nothing would pass for a steady method.

    Raises InputError where `varies` names nothing that these stages draw.
    """
    first = config.seeds_from or _first_searched(space, config)
    _check_varies(space, config, first)
    return first


def remarks(space: Space) -> list[str]:
    """What is allowed but probably not meant, one line each."""
    config = space.config()
    stages = METHODS[space.method].stages(config)
    trained = {stage.name: config.stages[stage.name] for stage in stages if config.stages[stage.name].epochs}
    read = {f"{name}.{key}" for name, one in trained.items() for key in vars(one).keys() - one.unread()}
    found = [
        f"{key} is searched, but the default configuration does not read it"
        for key in space.params
        if key.partition(".")[0] in space.stage_settings and key not in read and not key.endswith(".epochs")
    ]
    searched = seeds_from(space, dataclasses.replace(config, seeds_from=None))
    order = list(space.stage_settings)
    if config.seeds_from and order.index(config.seeds_from) > order.index(searched):
        found.append(
            f"seeds_from {config.seeds_from} comes after {searched}, the first stage that is searched: that "
            f"stage would run with one seed only, and its luck would pass for a property of the configuration"
        )
    return found


def drawn(stage: Stage, config: Config) -> set[str]:
    """The parts of a seed (`raymc.rng.PARTS`) by which a stage draws anything."""
    settings, found = config.stages[stage.name], {"order"}
    if stage.fresh or stage.begin or (stage.clusters and config.clustering != "head"):
        found.add("initialisation")
    if settings.augmentations and not config.views_alike:
        found.add("augmentation")
    if {"temperature", "noise"} & vars(settings).keys():
        found.add("noise")
    return found if settings.epochs else found & {"initialisation"}


def _check_varies(space: Space, config: Config, first: str) -> None:
    """Raises InputError where seeds would vary nothing: all of them would agree, and pass for a steady method."""
    order = list(space.stage_settings)
    varied = [s for s in METHODS[space.method].stages(config) if order.index(s.name) >= order.index(first)]
    there = {name for stage in varied for name in drawn(stage, config)}
    if config.varies != "all" and not there & set(parts_of(config.varies)):
        parts = ", ".join(name for name in PARTS if name in there)
        raise InputError(f"varies: {config.varies} changes nothing from {first} on (there are: {parts})")


def _first_searched(space: Space, config: Config) -> str:
    order = list(space.stage_settings)
    clustering = [stage.name for stage in METHODS[space.method].stages(config) if stage.clusters]
    parts = {key: key.partition(".")[0] for key in space.params}
    stages = [
        part if part in order else (clustering or order)[0] if key in OF_CLUSTERS else order[0]
        for key, part in parts.items()
    ]
    first = min(stages, key=order.index, default=order[0])
    trains = [name for name in order if config.stages[name].epochs]
    if not trains or any(order.index(name) >= order.index(first) for name in trains):
        return first
    return trains[-1]
