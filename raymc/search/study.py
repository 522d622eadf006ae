"""A study's folder: made whole or not at all, opened by one driver at a time.

```
studies/<name>/study.json       what was asked, of what data, with which versions (`raymc.search.manifest`)
studies/<name>/<space>.yaml     the search space as it was; a resume reads this one
studies/<name>/optuna.db        trials, parameters, scores
studies/<name>/trials, confirm  see `raymc.search.records`
studies/<name>/spool            see `raymc.tracking`
```
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import optuna
import yaml
from filelock import FileLock, Timeout

from raymc.config import Value, nearest
from raymc.errors import InputError
from raymc.search.distributions import Distributions, enqueue
from raymc.search.judge import judge_of
from raymc.search.records import Row, read_json
from raymc.space import Space, load_space
from raymc.training.outputs import write_bytes, write_json

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}")
WAIT_SECONDS = 60  # for a database that another process is writing


def studies_root(storage: str) -> Path:
    """The folder of all studies. Raises InputError where the storage is no folder."""
    if "://" in storage:
        raise InputError(
            f"--storage {storage}: stages may live in an object store, a study's database may not; give a folder, "
            "on a cluster one that all nodes share"
        )
    return Path(storage) / "studies"


def check_name(name: str) -> str:
    """`name` if it can be a folder's. Raises InputError."""
    if not NAME.fullmatch(name):
        raise InputError(f"--name {name}: use letters, digits, '.', '_' and '-', at most 100 of them")
    return name


def check_new(folder: Path) -> None:
    """Raises InputError where the study exists."""
    if folder.exists():
        raise InputError(f"study {folder.name} exists; go on with it by --resume, or give another --name")


def create_study(folder: Path, manifest: Row, space: Space, distributions: Distributions) -> None:
    """Make a study's folder, with its manifest, its space and a database in which `first` is queued.

    It appears under its name when all of it is there. Raises InputError when it exists, when the storage cannot be
    written, and when a point of `first` does not fit.
    """
    check_new(folder)
    making = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        making.mkdir(parents=True)
        write_bytes(making / f"{space.name}.yaml", yaml.safe_dump(dict(space.content), sort_keys=False).encode())
        write_json(making / "study.json", manifest)
        _make_database(making, manifest, space, distributions)
        os.rename(making, folder)
    except OSError as error:
        shutil.rmtree(making, ignore_errors=True)
        if folder.exists():
            raise InputError(f"study {folder.name} exists: another process has just made it") from error
        raise InputError(f"--storage: {folder.parent} cannot be written: {error.strerror}") from error
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise


def find_study(storage: str, name: str) -> Path:
    """The folder of an existing study. Raises InputError, naming the nearest one, where there is none."""
    root = studies_root(storage)
    known = study_names(storage)
    if name not in known:
        raise InputError(f"no study {name} in {root}{nearest(name, known)}")
    return root / name


def newest_study(storage: str, space: str) -> Path:
    """The study of a space that was made last. Raises InputError where there is none."""
    found = []
    for name in study_names(storage):
        manifest = read_json(studies_root(storage) / name / "study.json") or {}
        if manifest.get("space", {}).get("name") == space:
            found.append((manifest.get("created", ""), name))
    if not found:
        raise InputError(f"no study of {space} in {studies_root(storage)} to resume")
    return studies_root(storage) / max(found)[1]


def study_names(storage: str) -> list[str]:
    return sorted(path.parent.name for path in studies_root(storage).glob("[!.]*/study.json"))


def read_manifest(folder: Path) -> Row:
    """`study.json`. Raises InputError where it is torn."""
    manifest = read_json(folder / "study.json")
    if manifest is None:
        raise InputError(f"{folder / 'study.json'} cannot be read")
    return manifest


def write_manifest(folder: Path, manifest: Row) -> None:
    write_json(folder / "study.json", manifest)


def read_space(folder: Path, manifest: Row) -> Space:
    """The space as the study was made with it, with the command line's values fixed."""
    overrides: Mapping[str, Value] = manifest["overrides"]
    return load_space(folder / f"{manifest['space']['name']}.yaml").pinned(overrides)


@contextmanager
def open_database(folder: Path) -> Iterator[optuna.Study]:
    """The study's Optuna study. Raises InputError where its database is missing or broken."""
    if not (folder / "optuna.db").is_file():
        raise InputError(f"{folder / 'optuna.db'} is missing: without it the study cannot go on")
    storage = _storage(folder)
    try:
        yield optuna.load_study(study_name=folder.name, storage=storage)
    except KeyError as error:
        raise InputError(f"{folder / 'optuna.db'} holds no study {folder.name}") from error
    finally:
        storage.engine.dispose()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other drivers off the study. Raises InputError where one is at work."""
    lock = FileLock(folder / "driver.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"study {folder.name} is being run by another process") from error
    except OSError as error:
        raise InputError(f"--storage: {folder} cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def _make_database(making: Path, manifest: Row, space: Space, distributions: Distributions) -> None:
    storage = _storage(making)
    try:
        judge = judge_of(manifest["objective"])
        directions = optuna.study.StudyDirection
        direction = directions.MAXIMIZE if judge.mode == "max" else directions.MINIMIZE
        several = [direction] * len(judge.metrics)
        study = optuna.create_study(storage=storage, study_name=manifest["study"], directions=several)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(judge.metrics))  # what optuna-dashboard calls the objectives
        enqueue(study, space.first, distributions)
    finally:
        storage.engine.dispose()


def _storage(folder: Path) -> optuna.storages.RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = f"sqlite:///{folder / 'optuna.db'}"
    return optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": WAIT_SECONDS}})
