"""The configurations that `stability` puts on seeds: a space's preset, a study's winner, or several of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from raymc import provenance
from raymc.config import NO_NUMBERS, Config, Value, known_keys, nearest
from raymc.datasets import Dataset
from raymc.errors import InputError
from raymc.former_keys import name_now, with_names_of_now
from raymc.methods import METHODS
from raymc.methods.base import Facts
from raymc.program import own_command
from raymc.space.seeds import seeds_from
from raymc.space.space import Space, load_space, make_space
from raymc.stability.request import StabilityRequest
from raymc.study.manifest import check_data, load_data
from raymc.study.names import check_target
from raymc.study.records import Row
from raymc.study.target import Target, find_winner
from raymc.training.stages import BANK_NUMERICS, LOOP_NUMERICS, uses_bank

PLAIN = {**{name: ("plain", name) for name in METHODS["plain"].presets["own"]}, "turtle": ("turtle", "own")}
"""Methods that a name stands for where `--vs` names them, each with its preset."""

SAMPLES = ("n_clusters", "n_samples", "scaling", "cluster_points")
"""What a plain method has as the configuration beside it has it."""

OF_PLAIN = ("hdbscan_min_cluster_size", "precision")
"""Bare keys of the command line that a plain method takes of its own."""


@dataclass(frozen=True)
class Configuration(Target):
    """What is put on seeds. `overrides` are those of the command line that its method knows.

    `n_clusters_by` names the configuration whose seeds found the number of clusters; empty: it was given.
    """

    overrides: Mapping[str, Value]
    smoke: bool = False
    n_clusters_by: str = ""

    @classmethod
    def of(cls, space: Space, overrides: Mapping[str, Value], name: str = "", smoke: bool = False) -> Configuration:
        """The preset and `fixed` of a space; without a `name` it is called as that. Raises InputError."""
        varied = seeds_from(space, space.config())
        return cls(name or space.name, space, {}, 0, varied, (), overrides, smoke)

    @property
    def config(self) -> Config:
        return self.space.config(params=self.params)

    @property
    def settings(self) -> dict[str, Value]:
        """Every key but the seed."""
        flat = self.config.flat()
        return {key: value for key, value in flat.items() if key != "seed"}

    @property
    def numerics(self) -> Row:
        """The versions of what computes its figures."""
        config = self.config
        stages = METHODS[self.space.method].stages(config)
        bank = any(uses_bank(config.stages[stage.name]) for stage in stages)
        own = {stage.name: stage.numerics for stage in stages}
        return {"loop": LOOP_NUMERICS} | own | ({"bank": BANK_NUMERICS} if bank else {})

    def has(self, before: Mapping[str, object]) -> bool:
        """Whether these are its settings. A key that came later is in one of them alone: its default counts."""
        now, known, absent = self.settings, known_keys(self.space.stage_settings), object()
        before = with_names_of_now(before, known)

        def value(settings: Mapping[str, object], key: str) -> object:
            return settings.get(key, known[key].default if key in known else absent)

        return all(value(before, key) == value(now, key) for key in (before.keys() | now.keys()).difference(NO_NUMBERS))


def configuration(
    target: str, overrides: Mapping[str, Value], storage: str, beside: Configuration | None = None
) -> Configuration:
    """The winner of a study of that name in the storage, else a plain method, else the preset and `fixed` of a space.

    A plain method is on the samples of the configuration `beside` it. Raises InputError.
    """
    if check_target(target, storage, PLAIN):
        return Configuration(**vars(find_winner(storage, target, overrides).target), overrides=overrides)
    if target in PLAIN:
        return _plain(target, overrides, beside)
    return Configuration.of(load_space(target).pinned(overrides), overrides)


def _plain(name: str, overrides: Mapping[str, Value], beside: Configuration | None) -> Configuration:
    """A plain method on the samples of another configuration and with its number of clusters. Raises InputError."""
    if beside is None:
        raise InputError(f"{name} is on the data of what it is compared with: name a space or a study first")
    method, preset = PLAIN[name]
    config, content = beside.config, beside.space.content
    same = {key: getattr(config, key) for key in SAMPLES if getattr(config, key) is not None}
    asked = content.get("resources") or {}
    resources = {key: value for key, value in asked.items() if key == "cpus_per_worker"}
    file: dict[str, object] = {"method": method, "dataset": content["dataset"], "preset": preset, "fixed": same}
    space = make_space(Path(f"{name}.yaml"), file | ({"resources": resources} if resources else {}))
    own = {key: value for key, value in overrides.items() if "." in key or key in OF_PLAIN}
    return Configuration.of(space.pinned(own), own, name)


def configurations(request: StabilityRequest) -> list[Configuration]:
    """What the words of the command line name, in their order, each with the overrides that its method knows.

    Raises InputError for an unknown target, a key that no method knows, and a bad value.
    """
    targets = (request.target, *request.vs)
    first = configuration(request.target, {}, request.storage)
    methods = [configuration(target, {}, request.storage, first).space.method for target in targets]
    overrides = overrides_by_method(request.overrides, methods)
    found: list[Configuration] = []
    for target, method in zip(targets, methods, strict=True):
        one = configuration(target, overrides[method], request.storage, found[0] if found else None)
        found.append(replace(one, name=_free(one.name, [other.name for other in found]), smoke=request.smoke))
    return found


def overrides_by_method(overrides: Mapping[str, Value], methods: Sequence[str]) -> dict[str, dict[str, Value]]:
    """For each method those that it knows. Raises InputError for a key that none of them knows."""
    known = {method: known_keys(METHODS[method].stage_settings) for method in methods}
    named = {method: with_names_of_now(overrides, keys) for method, keys in known.items()}
    every = sorted({key for keys in known.values() for key in keys})
    for key in overrides:
        if not any(name_now(key, keys) in keys for keys in known.values()):
            raise InputError(f"unknown key {key} of {' and '.join(known)}{nearest(key, every)}")
    return {method: {k: value for k, value in named[method].items() if k in keys} for method, keys in known.items()}


def _free(word: str, taken: Sequence[str]) -> str:
    """The word, with `-2`, `-3`, … where there was one before."""
    number, name = 1, word
    while name in taken:
        number += 1
        name = f"{word}-{number}"
    return name


def run_by() -> Row:
    """By what a run is run."""
    return {
        "command": own_command(),
        "versions": provenance.versions(),
        "git": provenance.revision(),
        "hardware": provenance.hardware(),
    }


def on_common_data(request: StabilityRequest, found: Sequence[Configuration]) -> tuple[Dataset, list[Configuration]]:
    """The samples that all configurations train on, and these as they are for it.

    Raises InputError where there is no such thing.
    """
    first = found[0]
    for other in found[1:]:
        if (other.space.dataset, other.space.own) != (first.space.dataset, first.space.own):
            raise InputError(
                f"{first.name} is on {_place(first.space)}, {other.name} on {_place(other.space)}: two datasets cannot "
                "be compared by seed"
            )
        for key in ("n_samples", "scaling"):
            mine, theirs = getattr(first.config, key), getattr(other.config, key)
            if mine != theirs:
                raise InputError(
                    f"{first.name} and {other.name} train on different samples: {key} is {mine} and {theirs}"
                )
    dataset = load_data(first.space, request.data, request.storage, request.smoke, first.params)
    sized = [replace(one, space=one.space.sized(Facts.of(dataset), ranges=False)) for one in found]
    for one in sized:
        check_data(one.space, one.config, dataset, objective=False)
    return dataset, sized


def _place(space: Space) -> str:
    encoder = f" by {space.own.encoder}" if space.own and space.own.encoder else ""
    return f"{space.own.path}{encoder}" if space.own else space.dataset
