"""What is trained: a point of a space and how its seeds vary; of a study its winner, as `train STUDY` runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from raymc.config import Value
from raymc.errors import InputError
from raymc.space.space import Space
from raymc.storage.mirror import fetched
from raymc.study.folder import read_manifest, read_space
from raymc.study.reader import read_study
from raymc.study.winner import chosen_run


@dataclass(frozen=True)
class Target:
    """A point of a space, and how its seeds vary.

    Attributes:
        base_seed: of the stages before `seeds_from`.
        used: the seeds by which it was chosen.
    """

    name: str
    space: Space
    params: Mapping[str, Value]
    base_seed: int
    seeds_from: str
    used: tuple[int, ...]


class Winner(NamedTuple):
    """A study's winner: the trial, and of its seeds the one that agrees most with the others."""

    target: Target
    trial: int
    seed: int


def find_winner(storage: str, name: str, overrides: Mapping[str, Value]) -> Winner:
    """Of the study `name` in the storage, with `overrides` pinned. Raises InputError where no trial of it finished."""
    with fetched(storage, f"studies/{name}") as folder:
        manifest, found = read_manifest(folder), chosen_run(read_study(folder))
        if found is None:
            raise InputError(f"study {folder.name} has no winner: no trial finished")
        space = read_space(folder, manifest).pinned(overrides)
    target = Target(
        name=folder.name,
        space=space,
        params={key: value for key, value in found.trial.params.items() if key in space.params},
        base_seed=manifest["seed"],
        seeds_from=str(overrides.get("seeds_from") or manifest["seeds_from"]),
        used=(*manifest["seeds"], *manifest["confirm"]["seeds"]),
    )
    return Winner(target, found.trial.trial, found.run.seed)
