"""Deleting a study or a run: what goes with it, and the removal, which no driver of it may be at work on."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import optuna

from raymc.errors import InputError
from raymc.masking import HIDDEN
from raymc.storage.exclusive_lease import driver_lease
from raymc.storage.lease import STALE_SECONDS
from raymc.storage.mirror import fetched
from raymc.storage.objects import filesystem, home, is_uri, listing, patiently, remove
from raymc.study import database
from raymc.study.files import load_json
from raymc.study.folder import Busy, locked
from raymc.study.inventory import LEASE, LISTS, LOCK, RUNNING, Entry, find_entry
from raymc.study.records import mapping

REPORTS = {
    "summary.json": ("index.html", "trials.csv"),
    "stability.json": ("stability.html", "stability.md", "stability.csv"),
}
"""By the file that says of which run a report is, the others of it."""
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
    """What goes with a run. Raises InputError while it is running, where its folder is a link, and where its trials are
    on a server that `url` (None: `RAYMC_DATABASE`) does not give the password of.
    """
    _check_idle(entry)
    if not is_uri(storage) and (place := Path(storage, entry.part)).is_symlink():
        raise InputError(f"{place} is a link to {os.readlink(place)}: remove the link, and what it leads to, by hand")
    server = entry.facts.get("database")
    if server is not None:
        given = url or os.environ.get("RAYMC_DATABASE")
        server = database.check_url(given) if given else str(server)
        if HIDDEN in server:
            raise InputError(f"study {entry.name} has its trials at {server}; give --database with the password")
    with fetched(storage, entry.part, lambda name: name.endswith(SPOOLS)) as folder:
        found = (path for file in SPOOLS for path in (*folder.glob(file), *folder.glob(f"*/{file}")))
        spools = tuple(dict.fromkeys(path.read_text().strip() for path in found))
    return Deletion(entry, _report(entry), server, spools)


def delete(storage: str, deletion: Deletion, before: Callable[[], object] = lambda: None) -> None:
    """Remove the run, the file by which it is found first; `before` is called once no driver can take it up any more.

    Raises InputError, Busy where a driver has taken it up since it was planned.
    """
    entry = deletion.entry
    now = find_entry(storage, entry.name)
    _check_idle(now)
    if (now.part, now.facts["created"]) != (entry.part, entry.facts["created"]):
        raise InputError(f"{entry.name} is another {now.facts['kind']} by now; look again")
    with _alone(storage, entry):
        before()
        if deletion.server is not None:
            _forget(deletion.server, entry.name)
        _remove_stored(storage, entry) if is_uri(storage) else _remove_folder(Path(storage, entry.part))
    if deletion.report is not None:
        _remove_report(deletion.report)


def _check_idle(entry: Entry) -> None:
    if entry.state == RUNNING:
        raise InputError(f"{entry.name} is running; stop it first")


def _report(entry: Entry) -> Path | None:
    """The run's report in the working folder; one of another run, of the same name elsewhere, is not its own."""
    folder = Path("reports").resolve() / entry.name
    for file in REPORTS:
        facts = load_json(folder / file) or {}
        created = facts.get("created") or mapping(facts.get("manifest")).get("created")
        named = entry.name in (facts.get("study"), facts.get("name"), Path(str(facts.get("folder"))).name)
        if named and created is not None and created == entry.facts["created"]:
            return folder
    return None


def _remove_report(folder: Path) -> None:
    """What raymc wrote there; the folder stays while a user has files of their own in it."""
    for file, others in REPORTS.items():
        for name in (*others, file):
            (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


@contextmanager
def _alone(storage: str, entry: Entry) -> Iterator[None]:
    """Keep drivers off the run, and off each configuration of it: those are locked one by one."""
    with ExitStack() as held:
        if is_uri(storage):
            _hold_leases(storage, entry, held)
        else:
            place = Path(storage, entry.part)
            own = {
                place,
                *(place / name for name in _configurations(entry)),
                *(file.parent for file in place.rglob(LOCK)),
            }
            for folder in sorted(own):
                held.enter_context(locked(folder))
        yield


def _configurations(entry: Entry) -> list[str]:
    """The folders of a run's configurations, where it has several; one that it did not come to has none yet."""
    names = [str(name) for name in entry.facts.get("configurations", ())]
    return names if len(names) > 1 else []


def _hold_leases(storage: str, entry: Entry, held: ExitStack) -> None:
    """Those of the run and of each configuration. Raises Busy where one is another's."""
    fs, root = filesystem(storage)
    place = f"{root}/{entry.part}"
    found = patiently(partial(listing, fs, place), fs, storage)
    own = {place, *(f"{place}/{name}" for name in _configurations(entry))}
    taken = {path.rpartition(f"/{LEASE}/")[0] for path in found if f"/{LEASE}/" in path}
    waiting = [driver_lease(fs, f"{folder}/{LEASE}", leaves_number=False) for folder in sorted(own | taken)]
    for patience in (0.0, STALE_SECONDS + 1):  # a holder elsewhere is known to be dead by its silence
        time.sleep(patience if waiting else 0.0)
        for lease in [lease for lease in waiting if lease.try_acquire()]:
            held.enter_context(lease)
            waiting.remove(lease)
    if waiting:
        raise Busy(f"{entry.name} is being run by another process; stop it first")


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
