"""A study's folder: made whole or not at all, opened by one driver at a time.

```
studies/<name>/study.json       what was asked, of what data, with which versions (`raymc.study.manifest`)
studies/<name>/<space>.yaml     the search space as it was; a resume reads this one
studies/<name>/optuna.db        trials, parameters, scores
studies/<name>/trials, confirm  see `raymc.study.files`
```
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import optuna
import yaml
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial

from raymc.atomic import replaced, write_json, write_text
from raymc.config import Value, nearest
from raymc.errors import InputError
from raymc.methods import METHODS
from raymc.methods.base import Facts
from raymc.space.format import parse_yaml
from raymc.space.space import Space, load_space, make_space
from raymc.storage.mirror import mirror_of
from raymc.storage.objects import START_SECONDS, filesystem, folders, home, is_uri, patiently
from raymc.study import database
from raymc.study.distributions import Distributions, enqueue
from raymc.study.files import read_json
from raymc.study.objective import Objective
from raymc.study.records import Row

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}")
DATABASE = "optuna.db"


def studies_root(storage: str) -> Path:
    """The folder of all studies; where the storage is a URI, the one on this machine that stands for it."""
    return home(storage) / "studies"


def check_name(name: str) -> str:
    """`name` if it can be a folder's. Raises InputError."""
    if not NAME.fullmatch(name):
        raise InputError(f"--name {name}: use letters, digits, '.', '_' and '-', at most 100 of them")
    return name


def check_new(storage: str, folder: Path) -> None:
    """Raises InputError where the study exists."""
    if folder.name in study_names(storage) or (not is_uri(storage) and folder.exists()):
        raise InputError(f"study {folder.name} exists; go on with it by --resume, or give another --name")


def create_study(
    storage: str,
    folder: Path,
    manifest: Row,
    space: Space,
    distributions: Distributions,
    url: str | None = None,
    earlier: Sequence[FrozenTrial] = (),
) -> None:
    """Make a study's folder, with its manifest, its space and a database in which `first` is queued.

    It appears under its name when all of it is there. `url` None is a SQLite file in the folder. `earlier` are trials
    of another study that the sampler knows. Raises InputError when it exists, when storage or database cannot be
    written, and when a point of `first` does not fit.
    """
    check_new(storage, folder)
    try:
        with replaced(folder) as making:
            making.mkdir()
            write_text(making / f"{space.name}.yaml", yaml.safe_dump(dict(space.content), sort_keys=False))
            write_json(making / "study.json", manifest)
            _make_database(making, manifest, space, distributions, url, earlier)
            if is_uri(storage):
                shutil.rmtree(folder, ignore_errors=True)  # a study of that name that is no longer in the store
    except OSError as error:
        if folder.exists():
            raise InputError(f"study {folder.name} exists: another process has just made it") from error
        raise InputError(f"--storage: {folder.parent} cannot be written: {error.strerror}") from error
    if mirror := mirror_of(storage, folder):
        mirror.push()
    if url is not None:
        with open_database(folder, url) as opened:
            database.mark_complete(opened)


def find_study(storage: str, name: str) -> Path:
    """The folder of an existing study. Raises InputError, naming the nearest one, where there is none."""
    known = study_names(storage)
    if name not in known:
        raise InputError(f"no study {name} in {storage.rstrip('/')}/studies{nearest(name, known)}")
    return studies_root(storage) / name


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


def read_manifest(folder: Path) -> Row:
    """`study.json`. Raises InputError where it is torn."""
    manifest = read_json(folder / "study.json")
    if manifest is None:
        raise InputError(f"{folder / 'study.json'} cannot be read")
    return manifest


def write_manifest(folder: Path, manifest: Row) -> None:
    write_json(folder / "study.json", manifest)


def read_space(folder: Path, manifest: Row) -> Space:
    """The space as the study was made with it, with the command line's values fixed.

    Where the file names no preset it is that of the manifest: what is taken by default may be another by now.
    """
    overrides: Mapping[str, Value] = manifest["overrides"]
    space = _load(folder / f"{manifest['space']['name']}.yaml", manifest.get("preset")).pinned(overrides)
    data = manifest.get("data", {})
    return space.sized(Facts(data["n"], tuple(data["shape"]), data.get("n_classes"))) if "shape" in data else space


def _load(path: Path, preset: str | None) -> Space:
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (InputError, OSError, UnicodeDecodeError):
        content = None
    if preset is None or not isinstance(content, dict) or content.get("preset") or content.get("method") not in METHODS:
        return load_space(path)  # which also says what is wrong with the file
    name = METHODS[content["method"]].renamed_presets.get(preset, preset)
    try:
        return make_space(path, content | {"preset": name})
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


@contextmanager
def open_database(folder: Path, url: str | None = None) -> Iterator[optuna.Study]:
    """The study's Optuna study. Raises InputError where its database is missing, broken or does not answer."""
    if url is None and not (folder / DATABASE).is_file():
        raise InputError(f"{folder / DATABASE} is missing: without it the study cannot go on")
    storage = database.connect(url or database.file_url(folder / DATABASE))
    try:
        yield database.load(storage, folder.name)
    finally:
        storage.engine.dispose()


class Busy(InputError):
    """Another driver is at work on the same folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other drivers off the folder. Raises Busy where one is at work, else InputError."""
    lock = FileLock(folder / "driver.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise Busy(f"{folder.name} is being run by another process") from error
    except OSError as error:
        raise InputError(f"--storage: {folder} cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def _make_database(
    making: Path,
    manifest: Row,
    space: Space,
    distributions: Distributions,
    url: str | None,
    earlier: Sequence[FrozenTrial],
) -> None:
    objective = Objective.of(manifest["objective"])
    storage = database.connect(url or database.file_url(making / DATABASE))
    try:
        study = database.create(storage, manifest["study"], objective.mode, objective.metrics)
        study.add_trials(earlier)
        enqueue(study, space.first, distributions, space.params)
    finally:
        storage.engine.dispose()
