"""Which results of the stage store the studies, runs of `stability` and tables of a storage go back to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fsspec import AbstractFileSystem

from raymc.atomic import json_rows
from raymc.storage.cleaning import Needs
from raymc.storage.mirror import AT_ONCE
from raymc.storage.objects import filesystem, folders, is_local, listing_of_runs, patiently
from raymc.study.events import EVENTS
from raymc.study.records import FINAL, Row, mapping

PLACES = ("studies", "stability", "tables")
RESULT, RECORD = "result.json", "record.json"
MANIFESTS = {"study.json", "stability.json", "cell.json"}
FORMS = (
    "studies/*/study.json",
    "stability/*/stability.json",
    "stability/*/*/stability.json",
    "tables/*/*/*/*/cell.json",
)


@dataclass
class _Seed:
    """What the files of one training say: the keys that it has, that it was at last, and of what it read beside."""

    ended: bool = False
    has: frozenset[str] = frozenset()
    at: frozenset[str] = frozenset()
    reads: frozenset[str] = frozenset()
    says: bool = False


def needs_of_storage(storage: str) -> tuple[Needs, list[str]]:
    """The needs of all runs, and the names of those of an earlier version that do not say which banks they use.

    A run needs the stage results that its trainings had or made, the banks, neighbours and features that they read,
    and the epoch checkpoints of trainings that are to go on.
    """
    fs, root = filesystem(storage)
    found: dict[str, set[str]] = {}
    for place in PLACES:
        for path in patiently(partial(listing_of_runs, fs, f"{root}/{place}"), fs, storage):
            folder, _, name = path.rpartition("/")
            if "/." in folder[len(root) :]:
                continue  # what is being made, or deleted
            if name in (RESULT, EVENTS) and folder.rpartition("/")[2].startswith("seed-"):
                found.setdefault(folder, set()).add(name)
            elif name in (RECORD, *MANIFESTS):
                found.setdefault(folder, set()).add(name)
    listed = frozenset(
        key
        for folder, names in found.items()
        for name in names & MANIFESTS
        for key in _stored(fs, storage, folder, name)
    )
    ended = {folder for folder, names in found.items() if RECORD in names and _final(fs, storage, folder)}
    seeds = {folder: names for folder, names in found.items() if names & {RESULT, EVENTS}}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        read = dict(zip(seeds, pool.map(lambda one: _seed(fs, storage, one, seeds[one]), seeds), strict=True))
    going = {folder for folder, seed in read.items() if not seed.ended and folder.rpartition("/")[0] not in ended}
    silent = {folder for folder, seed in read.items() if not seed.says}
    needs = Needs(
        results=listed | {key for seed in read.values() for key in seed.has | seed.reads},
        checkpoints=frozenset(key for folder in going for key in read[folder].at),
        over=frozenset(key for folder in read.keys() - going for key in read[folder].at | read[folder].has),
        every_bank=bool(silent),
        every_checkpoint=bool(silent & going),
    )
    return needs, sorted({folder[len(root) + 1 :].split("/")[1] for folder in silent})


class CurrentNeeds:
    """`needs_of_storage`, read again whenever a run was begun or its manifest was written since."""

    def __init__(self, storage: str) -> None:
        self.storage = storage
        self._seen, (self._needs, self.silent) = self._runs(), needs_of_storage(storage)

    def __call__(self) -> Needs:
        if (now := self._runs()) != self._seen:
            self._seen, (self._needs, self.silent) = now, needs_of_storage(self.storage)
        return self._needs

    def _runs(self) -> list[tuple[str, float]]:
        """The runs with the time of their manifests; of an object store, where that costs a request each, the names."""
        fs, root = filesystem(self.storage)
        if is_local(fs):
            return sorted((str(path), _written(path)) for form in FORMS for path in Path(root).glob(form))
        names = [f"{place}/{name}" for place in PLACES for name in folders(fs, f"{root}/{place}")]
        return [(name, 0.0) for name in names]


def _written(path: Path) -> float:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


def _stored(fs: AbstractFileSystem, storage: str, folder: str, name: str) -> list[str]:
    """The features of an encoder that a run's samples are, which are there before any training has begun."""
    manifest = _read(fs, storage, f"{folder}/{name}")
    data = mapping(mapping(manifest.get("manifest", manifest)).get("data"))
    return [str(key) for key in data.get("stored") or ()]


def _final(fs: AbstractFileSystem, storage: str, folder: str) -> bool:
    return _read(fs, storage, f"{folder}/{RECORD}").get("state") in FINAL


def _seed(fs: AbstractFileSystem, storage: str, folder: str, names: set[str]) -> _Seed:
    result = _read(fs, storage, f"{folder}/{RESULT}") if RESULT in names else {}
    content = _content(fs, storage, f"{folder}/{EVENTS}") if EVENTS in names else b""
    events = list(_events(content))
    begun = [event for event in events if event.get("event") == "stage_begin"]
    stages = [mapping(stage) for stage in result.get("stages") or ()]
    stages += [event for event in events if event.get("event") == "stage"]
    has = {str(stage["key"]) for stage in stages if stage.get("key")}
    at = {str(event["key"]) for event in begun if event.get("key")} - has
    reads = {key for event in begun for key in str(event.get("reads") or "").split()}
    silent = not begun and (bool(has) or b'"event":"epoch' in content)
    return _Seed(bool(result), frozenset(has), frozenset(at), frozenset(reads), not silent)


def _events(content: bytes) -> Iterator[Row]:
    # Also stage_begin; epochs are many and say nothing of keys.
    return json_rows(line for line in content.split(b"\n") if b'"event":"stage' in line)


def _read(fs: AbstractFileSystem, storage: str, path: str) -> Row:
    try:
        content = json.loads(_content(fs, storage, path))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _content(fs: AbstractFileSystem, storage: str, path: str) -> bytes:
    try:
        return bytes(patiently(lambda: fs.cat_file(path), fs, storage))
    except FileNotFoundError:
        return b""
