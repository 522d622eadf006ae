"""Deleting a study or a run: what goes with it, and the removal, which no driver of it may be at work on."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import optuna

from raymc.errors import InputError
from raymc.masking import HIDDEN
from raymc.storage.lease import STALE_SECONDS, lease_at
from raymc.storage.mirror import fetched
from raymc.storage.objects import filesystem, home, is_uri, listing, patiently, remove
from raymc.study import database
from raymc.study.files import load_json
from raymc.study.folder import Busy, locked
from raymc.study.inventory import LEASE, LISTS, RUNNING, Entry

REPORT = ("summary.json", "stability.json")
SPOOLS = ("spool/id", "mlflow.id")
"""Where a study's folder has the id by which MLflow knows its runs."""


@dataclass(frozen=True)
class Deletion:
    """What goes with a run: its folder in the storage, its report here, its trials on a server, its runs in MLflow."""

    entry: Entry
    report: Path | None
    server: str | None
    spools: tuple[str, ...]


def plan_deletion(storage: str, entry: Entry, url: str | None) -> Deletion:
    """What goes with a run. Raises InputError while it is running, and where its trials are on a server that `url`
    (None: `RAYMC_DATABASE`) does not give the password of.
    """
    if entry.state == RUNNING:
        raise InputError(f"{entry.name} is running; stop it first")
    server = entry.facts.get("database")
    if server is not None:
        given = url or os.environ.get("RAYMC_DATABASE")
        server = database.check_url(given) if given else str(server)
        if HIDDEN in server:
            raise InputError(f"study {entry.name} has its trials at {server}; give --database with the password")
    with fetched(storage, entry.part, lambda name: name.endswith(SPOOLS)) as folder:
        found = (path for file in SPOOLS for path in (*folder.glob(file), *folder.glob(f"*/{file}")))
        spools = tuple(dict.fromkeys(path.read_text().strip() for path in found))
    return Deletion(entry, _report(entry.name), server, spools)


def delete(storage: str, deletion: Deletion) -> None:
    """Remove the run, the file by which it is found first. Raises Busy where a driver has taken it up meanwhile."""
    entry = deletion.entry
    with _alone(storage, entry):
        if deletion.server is not None:
            _forget(deletion.server, entry.name)
        _remove_stored(storage, entry) if is_uri(storage) else _remove_folder(Path(storage, entry.part))
    if deletion.report is not None:
        shutil.rmtree(deletion.report)


def _report(name: str) -> Path | None:
    """The run's report in the working folder; a folder of that name that no report wrote is nobody's to delete."""
    folder = Path("reports").resolve() / name
    for file in REPORT:
        facts = load_json(folder / file)
        if facts is not None and name in (facts.get("study"), facts.get("name"), Path(str(facts.get("folder"))).name):
            return folder
    return None


@contextmanager
def _alone(storage: str, entry: Entry) -> Iterator[None]:
    """Keep drivers off the run, and off each configuration that is locked by itself."""
    if not is_uri(storage):
        with locked(Path(storage, entry.part)):
            yield
        return
    fs, root = filesystem(storage)
    lease = lease_at(fs, f"{root}/{entry.part}/{LEASE}")
    if not lease.try_acquire():
        raise Busy(f"{entry.name} is being run by another process, or was {STALE_SECONDS:.0f} seconds ago; try again")
    with lease:
        yield


def _remove_folder(folder: Path) -> None:
    """Under a hidden name first: what a killed process leaves of it is no run, and `clean` removes it."""
    hidden = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    folder.rename(hidden)
    shutil.rmtree(hidden)


def _remove_stored(storage: str, entry: Entry) -> None:
    fs, root = filesystem(storage)
    place = f"{root}/{entry.part}"
    found = patiently(partial(listing, fs, place), fs, storage)
    heads = [f"{place}/{file}" for file in LISTS.values() if f"{place}/{file}" in found]
    for path in (*heads, *(path for path in found if path not in heads and f"/{LEASE}/" not in path)):
        patiently(partial(remove, fs, path), fs, storage)
    shutil.rmtree(home(storage) / entry.part, ignore_errors=True)


def _forget(url: str, name: str) -> None:
    """Remove a study's trials from its database server; nothing where there are none."""
    storage = database.connect(url)
    try:
        with suppress(KeyError):
            optuna.delete_study(study_name=name, storage=storage)
    finally:
        storage.engine.dispose()
