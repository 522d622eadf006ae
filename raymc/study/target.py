"""A study's winner as something to train again: what `train STUDY` and `stability STUDY` run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from raymc.config import Value
from raymc.errors import InputError
from raymc.space.space import Space
from raymc.storage.mirror import fetched
from raymc.study.folder import read_manifest, read_space
from raymc.study.reader import Study, read_study, winner
from raymc.study.winner import chosen_run


@dataclass(frozen=True)
class Winner:
    """The winning configuration of a study, with `overrides` pinned.

    Attributes:
        base_seed: of the stages before `seeds_from`.
        used: seeds that the search or its confirmation had.
        seed: of these the one that agrees most with the others, see `raymc.study.winner`.
    """

    name: str
    trial: int
    space: Space
    params: Mapping[str, Value]
    base_seed: int
    seeds_from: str
    used: tuple[int, ...]
    seed: int


def find_winner(storage: str, name: str, overrides: Mapping[str, Value]) -> Winner:
    """Of the study `name` in the storage. Raises InputError where no trial of it finished."""
    with fetched(storage, f"studies/{name}") as folder:
        return winner_of(folder, overrides)


def winner_of(folder: Path, overrides: Mapping[str, Value]) -> Winner:
    """The same of the study in a folder."""
    manifest, study = read_manifest(folder), read_study(folder)
    best = winner(study)
    if best is None:
        raise InputError(f"study {folder.name} has no winner: no trial finished")
    space = read_space(folder, manifest).pinned(overrides)
    return Winner(
        name=folder.name,
        trial=best.trial,
        space=space,
        params={key: value for key, value in best.params.items() if key in space.params},
        base_seed=manifest["seed"],
        seeds_from=str(overrides.get("seeds_from") or manifest["seeds_from"]),
        used=(*manifest["seeds"], *manifest["confirm"]["seeds"]),
        seed=_seed(study),
    )


def _seed(study: Study) -> int:
    chosen = chosen_run(study)
    return chosen.run.seed if chosen else 0
