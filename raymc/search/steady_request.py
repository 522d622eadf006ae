"""What the command line of `stability` asks for, checked: a configuration and its seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from raymc.config import Value
from raymc.errors import InputError
from raymc.reporting.records import winner
from raymc.reporting.study_reader import read_study
from raymc.space.seeds import seeds_from
from raymc.space.space import Space, load_space
from raymc.storage.mirror import fetched
from raymc.study import folder as study


@dataclass(frozen=True)
class StabilityRequest:
    """What the command line of `stability` asks for; `first_seed` None: seeds that a study has not used, else 0.

    `vs` are the targets that `raymc.search.arms.compare` runs on the same seeds.
    """

    target: str
    overrides: Mapping[str, Value]
    storage: str
    data: str
    seeds: int = 10
    first_seed: int | None = None
    concurrent: int | None = None
    address: str | None = None
    tracking_uri: str | None = None
    smoke: bool = False
    vs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Configuration:
    """A point of a space and how its seeds vary; `used` are the seeds by which it was chosen."""

    space: Space
    params: Mapping[str, Value]
    base_seed: int
    seeds_from: str
    used: tuple[int, ...]


def check_numbers(request: StabilityRequest) -> None:
    """Raises InputError for a count below one, a negative seed, and a seed among the keys."""
    for option, value, least in (
        ("seeds", request.seeds, 1),
        ("seed", request.first_seed, 0),
        ("concurrent", request.concurrent, 1),
    ):
        if value is not None and value < least:
            raise InputError(f"--{option} {value}: at least {least} is needed")
    if "seed" in request.overrides:
        raise InputError("seed: there are several; the first one is --seed")


def seeds_to_run(request: StabilityRequest, used: Iterable[int]) -> tuple[int, ...]:
    """As many seeds as asked for, from the first one asked for on, else from the first after all that were used."""
    first = request.first_seed if request.first_seed is not None else max(used, default=-1) + 1
    return tuple(range(first, first + request.seeds))


def configuration(request: StabilityRequest) -> Configuration:
    """The winner of a study of that name in the storage, else the preset and `fixed` of a space. Raises InputError."""
    if request.target in study.study_names(request.storage):
        with fetched(request.storage, f"studies/{request.target}") as folder:
            return _winner_of(folder, request.overrides)
    space = load_space(request.target).pinned(request.overrides)
    return Configuration(space, {}, 0, seeds_from(space, space.config()), ())


def _winner_of(folder: Path, overrides: Mapping[str, Value]) -> Configuration:
    manifest = study.read_manifest(folder)
    best = winner(read_study(folder))
    if best is None:
        raise InputError(f"study {folder.name} has no winner: no trial finished")
    space = study.read_space(folder, manifest).pinned(overrides)
    params = {key: value for key, value in best.params.items() if key in space.params}
    used = (*manifest["seeds"], *manifest["confirm"]["seeds"])
    varied = str(overrides.get("seeds_from") or manifest["seeds_from"])
    return Configuration(space, params, manifest["seed"], varied, used)
