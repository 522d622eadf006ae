"""What the seeds of a trial vary: the first stage, and what these stages draw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from raymc.config import Config, parts_of
from raymc.errors import InputError
from raymc.methods import METHODS, Method
from raymc.methods.base import Stage
from raymc.rng import PARTS

if TYPE_CHECKING:
    from raymc.space.space import Space

OF_CLUSTERS = {
    *("n_clusters", "clustering", "cluster_points"),
    *("ensc_gamma", "ensc_tau", "ssc_omp_nonzero", "ssc_omp_tolerance"),
}
"""Bare keys that no stage before the clusters reads."""


def seeds_from(space: Space, config: Config, methods: Mapping[str, Method] = METHODS) -> str:
    """The first stage whose seed differs between the seeds of a trial.

    `config.seeds_from` where it is given; else the first stage that the space searches, and the method's
    first stage where it searches nothing. A bare key counts as the first stage, but one that only says how clusters
    are found as the first one that assigns them. Where neither that stage nor a later one trains, it is the last one
    before that does: seeds that vary nothing would pass for a steady method.

    Raises InputError where `varies` names nothing that these stages draw.
    """
    first = config.seeds_from or _first_searched(space, config, methods)
    _check_varies(space, config, first, methods)
    return first


def drawn(stage: Stage, config: Config) -> set[str]:
    """The parts of a seed (`raymc.rng.PARTS`) by which a stage draws anything."""
    settings, found = config.stages[stage.name], {"order"}
    if stage.fresh or stage.begin or (stage.clusters and config.clustering != "head"):
        found.add("initialisation")
    if "augmentations" in stage.keys and settings.augmentations and config.augmentation != "none":
        found.add("augmentation")
    if {"temperature", "noise"} & set(stage.keys):
        found.add("noise")
    return found if settings.epochs else found & {"initialisation"}


def _check_varies(space: Space, config: Config, first: str, methods: Mapping[str, Method]) -> None:
    """Raises InputError where seeds would vary nothing: all of them would agree, and pass for a steady method."""
    order = list(space.stage_keys)
    varied = [s for s in methods[space.method].stages(config) if order.index(s.name) >= order.index(first)]
    there = {name for stage in varied for name in drawn(stage, config)}
    if config.varies != "all" and not there & set(parts_of(config.varies)):
        told = ", ".join(name for name in PARTS if name in there)
        raise InputError(f"varies: {config.varies} changes nothing from {first} on (there are: {told})")


def _first_searched(space: Space, config: Config, methods: Mapping[str, Method]) -> str:
    order = list(space.stage_keys)
    clustering = [stage.name for stage in methods[space.method].stages(config) if stage.clusters]
    stages = [
        key.partition(".")[0] if "." in key else (clustering or order)[0] if key in OF_CLUSTERS else order[0]
        for key in space.params
    ]
    first = min(stages, key=order.index, default=order[0])
    trains = [name for name in order if config.stages[name].epochs]
    if not trains or any(order.index(name) >= order.index(first) for name in trains):
        return first
    return trains[-1]
