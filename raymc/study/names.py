"""Which studies a storage has; light, so that an unknown one is refused before anything heavy is imported."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from raymc.config import hint
from raymc.errors import InputError
from raymc.space.names import checked_space, find_space, names_data, names_file, space_names
from raymc.storage.objects import START_SECONDS, filesystem, folders, home, is_uri, patiently
from raymc.study.files import read_json
from raymc.study.records import Row

WINNER = "winner"
"""The folder of a study in which its winner's files are."""


def studies_root(storage: str) -> Path:
    """The folder of all studies; where the storage is a URI, the one on this machine that stands for it."""
    return home(storage) / "studies"


def study_names(storage: str) -> list[str]:
    """The studies of a storage: those whose `study.json` is there."""
    if not is_uri(storage):
        return sorted(path.parent.name for path in studies_root(storage).glob("[!.]*/study.json"))
    fs, root = filesystem(storage)

    def find() -> list[str]:
        return [name for name in folders(fs, f"{root}/studies") if fs.exists(f"{root}/studies/{name}/study.json")]

    return patiently(find, fs, storage, START_SECONDS)


def stored_manifest(storage: str, name: str) -> Row:
    """The `study.json` of a study as the storage has it; empty where it is absent or torn."""
    if not is_uri(storage):
        return read_json(studies_root(storage) / name / "study.json") or {}
    fs, root = filesystem(storage)
    try:
        return dict(json.loads(patiently(lambda: fs.cat_file(f"{root}/studies/{name}/study.json"), fs, storage)))
    except (FileNotFoundError, ValueError):
        return {}


def no_study(name: str, storage: str, known: Sequence[str]) -> InputError:
    """What is said of the name of a study that a storage does not have, where it has the `known` ones."""
    place = f"{storage.rstrip('/')}/studies"
    if not known:
        return InputError(f"no study {name}: there is none in {place}; --storage or RAYMC_STORAGE says where to look")
    return InputError(f"no study {name} in {place}{hint(name, known)}")


def find_study(storage: str, name: str) -> Path:
    """The folder of an existing study. Raises InputError, naming the nearest one, where there is none."""
    known = study_names(storage)
    if name not in known:
        raise no_study(name, storage, known)
    return studies_root(storage) / name


def check_run(storage: str, name: str) -> None:
    """Raises InputError, naming the nearest one, where there is neither a study nor a run of `stability` of the name.

    One that cannot be read counts.
    """
    fs, root = filesystem(storage)

    def find() -> list[str]:
        return [one for place in ("studies", "stability") for one in folders(fs, f"{root}/{place}")]

    known = patiently(find, fs, storage, START_SECONDS)
    if name not in known:
        raise no_study(name, storage, known)


def find_run(storage: str, name: str) -> str:
    """Where in the storage the study `name` is, else the run of `stability` of that name.

    Raises InputError where there is none, naming the nearest one.
    """
    fs, root = filesystem(storage)
    known: dict[str, str] = {}

    def find() -> None:
        for part, file in (("stability", "stability.json"), ("studies", "study.json")):
            for folder in folders(fs, f"{root}/{part}"):
                if fs.exists(f"{root}/{part}/{folder}/{file}"):
                    known[folder] = f"{part}/{folder}"

    patiently(find, fs, storage, START_SECONDS)
    if name in known:
        return known[name]
    raise no_study(name, storage, sorted(known))


def newest_study(storage: str, space: str) -> Path:
    """The study of a space that was made last. Raises InputError where there is none."""
    found = []
    for name in study_names(storage):
        manifest = stored_manifest(storage, name)
        if manifest.get("space", {}).get("name") == space:
            found.append((manifest.get("created", ""), name))
    if not found:
        raise InputError(f"no study of {space} in {storage.rstrip('/')}/studies to resume")
    return studies_root(storage) / max(found)[1]


def shadowed_space(target: str, storage: str) -> str | None:
    """A line that says which is meant where a study is called like a search space: the study. Else None."""
    if target not in study_names(storage):
        return None
    try:
        file = find_space(target)
    except InputError:
        return None
    return f"{target} is a study in {storage.rstrip('/')} and a search space: the study's winner is taken, not {file}"


def check_target(target: str, storage: str, others: Iterable[str] = ()) -> bool:
    """Whether `target` names a study of the storage; else it is a search space or one of the `others`.

    Raises InputError, naming the nearest spaces and studies, where it is none of them.
    """
    studies = study_names(storage)
    if target in studies:
        return True
    if target in others:
        return False
    try:
        find_space(target)
    except InputError as error:
        if names_file(target) or names_data(target):
            raise
        spaces = space_names()
        near = get_close_matches(target, [*spaces, *studies, *others], n=3, cutoff=0.5)
        meant = f"; did you mean {' or '.join(near)}?" if near else f" (known spaces: {', '.join(spaces)})"
        raise InputError(
            f"no search space and no study in {storage.rstrip('/')}/studies is called {target}{meant}"
        ) from error
    checked_space(target)
    return False
