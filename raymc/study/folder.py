"""A study's folder: made whole or not at all, opened by one driver at a time.

```
studies/<name>/study.json       what was asked, of what data, with which versions (`raymc.study.manifest`)
studies/<name>/<space>.yaml     the search space as it was; a resume reads this one
studies/<name>/optuna.db        trials, parameters, scores; optuna.log where several machines see the folder
studies/<name>/trials, confirm  see `raymc.study.files`
```
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import optuna
import yaml
from filelock import FileLock, Timeout
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from raymc.atomic import LONGEST, folder_name, replaced, write_json, write_text
from raymc.config import Value
from raymc.errors import InputError, StorageLostError, unwritable_storage
from raymc.methods import METHODS
from raymc.methods.base import Facts
from raymc.space.space import Space, load_space, make_space
from raymc.space.yaml_text import parse_yaml
from raymc.storage.mirror import mirror_of
from raymc.storage.objects import is_uri
from raymc.study import database
from raymc.study.distributions import Distributions, enqueue
from raymc.study.files import read_json
from raymc.study.names import find_study as find_study
from raymc.study.names import newest_study as newest_study
from raymc.study.names import stored_manifest as stored_manifest
from raymc.study.names import studies_root as studies_root
from raymc.study.names import study_names as study_names
from raymc.study.objective import Objective
from raymc.study.records import Row

NAME = re.compile(r"[^\W_][\w.-]{0,99}")
DATABASE = "optuna.db"
JOURNAL = "optuna.log"
LOCK = "driver.lock"
AWAY_SECONDS = 2.0
"""For which a file may be missing on a network folder that hesitates."""


def check_name(name: str) -> str:
    """`name` if it can be a folder's. Raises InputError."""
    if not NAME.fullmatch(name) or len(name.encode()) > LONGEST:
        raise InputError(f"--name {name}: use letters, digits, '.', '_' and '-', at most 100 of them")
    return name


def space_file(folder: Path, space: str) -> Path:
    """Where a study keeps its copy of the space: under its name, shortened where no file could be called so."""
    return folder / f"{space if len(space.encode()) <= LONGEST else folder_name(space)}.yaml"


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
    journal: bool = False,
) -> None:
    """Make a study's folder, with its manifest, its space and a database in which `first` is queued.

    It appears under its name when all of it is there. `url` None is a file in the folder: SQLite's, or a `journal`.
    `earlier` are trials of another study that the sampler knows. Raises InputError when it exists, when storage or
    database cannot be written, and when a point of `first` does not fit.
    """
    check_new(storage, folder)
    try:
        with replaced(folder) as making:
            making.mkdir()
            write_text(space_file(making, space.name), yaml.safe_dump(dict(space.content), sort_keys=False))
            write_json(making / "study.json", manifest)
            with _storage(making, url, journal) as opened:
                _fill(opened, manifest, space, distributions, earlier)
            if is_uri(storage):
                shutil.rmtree(folder, ignore_errors=True)  # a study of that name that is no longer in the store
    except OSError as error:
        if folder.exists():
            raise InputError(f"study {folder.name} exists: another process has just made it") from error
        raise unwritable_storage(folder.parent, error) from error
    if mirror := mirror_of(storage, folder):
        mirror.push()
    if url is not None:
        with open_database(folder, url) as opened:
            database.mark_complete(opened)


def read_manifest(folder: Path) -> Row:
    """`study.json`. Raises InputError where it is torn."""
    manifest = read_json(folder / "study.json")
    if manifest is None:
        raise InputError(f"{folder / 'study.json'} cannot be read")
    return manifest


def write_manifest(folder: Path, manifest: Row) -> None:
    """Write `study.json` of a folder that is locked. Raises StorageLostError where it is gone, and makes none anew."""
    check_there(folder)
    write_json(folder / "study.json", manifest)


def read_space(folder: Path, manifest: Row) -> Space:
    """The space as the study was made with it, with the command line's values fixed.

    Where the file names no preset it is that of the manifest: what is taken by default may be another by now.
    """
    overrides: Mapping[str, Value] = manifest["overrides"]
    space = _load(space_file(folder, manifest["space"]["name"]), manifest.get("preset")).pinned(overrides)
    data = manifest.get("data", {})
    if "shape" not in data:
        return space
    facts = Facts(data["n"], tuple(data["shape"]), data.get("n_classes"))
    return space.sized(facts, ranges=not manifest.get("smoke"))


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
    journal = (folder / JOURNAL).is_file()
    if url is None and not journal and not (folder / DATABASE).is_file():
        raise InputError(f"{folder / DATABASE} is missing: without it the study cannot go on")
    with _storage(folder, url, journal) as storage:
        yield database.load(storage, folder.name)


@contextmanager
def _storage(folder: Path, url: str | None, journal: bool) -> Iterator[BaseStorage]:
    if url is None and journal:
        yield database.open_journal(folder / JOURNAL)
        return
    storage = database.connect(url or database.file_url(folder / DATABASE))
    try:
        yield storage
    finally:
        storage.engine.dispose()


class Busy(InputError):
    """Another driver is at work on the same folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other drivers off the folder. Raises Busy where one is at work, else InputError."""
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise Busy(f"{folder.name} is being run by another process") from error
    except OSError as error:
        raise unwritable_storage(folder, error) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def attended(folder: Path) -> Iterator[None]:
    """Say of an error in the block that the folder, which is locked, or its bucket is gone, if so: StorageLostError."""
    try:
        yield
    except Exception as error:
        found: BaseException | None = error
        while found is not None:
            if isinstance(found, StorageLostError):  # Ray wraps what it comes from
                raise found from None
            found = found.__cause__ or found.__context__
        try:
            check_there(folder)
        except StorageLostError as lost:
            raise lost from error
        raise


def check_there(folder: Path) -> None:
    """Raises StorageLostError where a folder that is locked is gone, and stays so for `AWAY_SECONDS`."""
    if (folder / LOCK).exists():
        return
    time.sleep(AWAY_SECONDS)
    if (folder / LOCK).exists():
        return
    raise StorageLostError(
        f"{folder} is no longer there: it was removed, or its storage unmounted, while it was at work; "
        "if it does not come back, its results are lost"
    )


def _fill(
    storage: BaseStorage, manifest: Row, space: Space, distributions: Distributions, earlier: Sequence[FrozenTrial]
) -> None:
    objective = Objective.of(manifest["objective"])
    study = database.create(storage, manifest["study"], objective.mode, objective.metrics)
    study.add_trials(earlier)
    enqueue(study, space.first, distributions, space.params)
