"""Which files of the stage store nobody needs, and their removal: by the names that raymc gives, under their leases.

Foreign files, and files that another process is at work on, stay. A folder or an object store alike.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from fsspec import AbstractFileSystem

from raymc.storage.lease import STALE_SECONDS, lease_at
from raymc.storage.objects import filesystem, is_local, listing, patiently, remove

KEY = re.compile(r"[0-9a-f]{32}")
PUBLISHED = re.compile(r"(?P<name>[a-z]+[0-9]*(-[0-9]+)?)\.json")
PAYLOAD = re.compile(r"(?P<name>[a-z]+[0-9]*(-[0-9]+)?)-[0-9a-f]{16}\.pt")
TEMPORARY = re.compile(r"\..*\.tmp|.*\.[0-9a-f]{32}\.tmp|lease.*")
PROBE = re.compile(r"\.[0-9a-f]{32}")
HALF_WRITTEN_SECONDS = 3600.0
"""A file that is not published yet may be of a process that is just writing it, and a bank of one about to read it."""
ALONE_SECONDS = 7 * 86400.0
"""A checkpoint that no study knows is of a training by itself, which was told how to go on."""

KINDS = ("results", "banks", "checkpoints", "torn")


@dataclass(frozen=True)
class Needs:
    """What the studies of a storage go back to, by the keys of the store.

    `over` are those whose trainings have ended, so that nobody goes on from a checkpoint of theirs. `every_bank` and
    `every_checkpoint`: of some run it is not known which, so all of them stay.
    """

    results: frozenset[str] = frozenset()
    checkpoints: frozenset[str] = frozenset()
    over: frozenset[str] = frozenset()
    every_bank: bool = False
    every_checkpoint: bool = False


@dataclass(frozen=True)
class Item:
    """Files of one key that can go; `kind` is one of `KINDS`."""

    key: str
    kind: str
    files: tuple[str, ...]
    bytes: int


@dataclass
class Plan:
    """What can go, and the keys that stay: `needed`, `at_work` (another process holds them), `young` (by `older`)."""

    older: float | None = None
    items: list[Item] = field(default_factory=list)
    needed: set[str] = field(default_factory=set)
    at_work: set[str] = field(default_factory=set)
    young: set[str] = field(default_factory=set)

    def sums(self) -> dict[str, dict[str, int]]:
        """`{kind: {"entries", "bytes"}}` of what can go."""
        of = {kind: [item for item in self.items if item.kind == kind] for kind in KINDS}
        return {k: {"entries": len(some), "bytes": sum(item.bytes for item in some)} for k, some in of.items()}

    def within(self, shown: Plan) -> Plan:
        """Without what another plan did not have: what nobody was asked about."""
        known = {(item.key, item.kind) for item in shown.items}
        return replace(self, items=[item for item in self.items if (item.key, item.kind) in known])

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.items)


def plan_cleaning(storage: str, needs: Needs, older: float | None = None) -> Plan:
    """What of the stage store is in no one's `needs` and was not written for `older` seconds.

    None: for an hour, and a checkpoint that no study knows for a week.
    """
    fs, root = filesystem(storage)
    stages = f"{root}/stages"
    found = patiently(lambda: listing(fs, stages), fs, storage)
    keys: dict[str, dict[str, tuple[int, float]]] = {}
    plan = Plan(older)
    for path, (size, written) in found.items():
        key, _, name = path[len(stages) + 1 :].partition("/")
        age = _age(written)
        if KEY.fullmatch(key) and name:
            keys.setdefault(key, {})[name] = (size, age)
        elif PROBE.fullmatch(key) and not name and age > HALF_WRITTEN_SECONDS:
            plan.items.append(Item("", "torn", (key,), size))
    for key, files in sorted(keys.items()):
        _plan_key(plan, fs, f"{stages}/{key}", key, files, needs)
    return plan


def clean(storage: str, plan: Plan, needs: Callable[[], Needs]) -> Plan:
    """Remove the plan's files, those of a key under its lease; what was removed, and what was `at_work`.

    Under the lease each key is looked at again: what is in the `needs` of then, or was written meanwhile, stays.
    """
    fs, root = filesystem(storage)
    stages = f"{root}/stages"
    done = Plan(plan.older, needed=set(plan.needed), young=set(plan.young), at_work=set(plan.at_work))
    waiting = {key: lease_at(fs, f"{stages}/{key}/held") for key in dict.fromkeys(i.key for i in plan.items) if key}
    for item in plan.items:
        if not item.key:
            patiently(lambda path=f"{stages}/{item.files[0]}": remove(fs, path), fs, storage)  # type: ignore[misc]
            done.items.append(item)
    for patience in (0.0, STALE_SECONDS + 1):  # a holder on another machine is known to be dead by its silence
        time.sleep(patience if waiting else 0.0)
        for key, lease in list(waiting.items()):
            if not lease.try_acquire():
                continue
            del waiting[key]
            with lease:
                for item in _still(plan, done, fs, stages, key, needs()):
                    for name in item.files:
                        patiently(lambda path=f"{stages}/{key}/{name}": remove(fs, path), fs, storage)  # type: ignore[misc]
                    done.items.append(item)
            if is_local(fs):
                with suppress(OSError):
                    Path(stages, key).rmdir()  # a foreign file keeps its folder
    done.at_work |= waiting.keys()
    return done


def _still(plan: Plan, done: Plan, fs: AbstractFileSystem, stages: str, key: str, needs: Needs) -> list[Item]:
    """Of the plan's items of a key what can go now as well."""
    found = patiently(lambda: listing(fs, f"{stages}/{key}"), fs, stages)
    own = {path[len(f"{stages}/{key}/") :]: (size, _age(written)) for path, (size, written) in found.items()}
    fresh = Plan(plan.older)
    _plan_key(fresh, fs, f"{stages}/{key}", key, {name: one for name, one in own.items() if "/" not in name}, needs)
    done.needed |= fresh.needed
    done.young |= fresh.young
    can_go = {item.kind: set(item.files) for item in fresh.items}
    items = []
    for item in (one for one in plan.items if one.key == key):
        mine = {name for name in item.files if "/" not in name}  # "/": of a dead holder
        still = mine & can_go.get(item.kind, set())
        if item.kind != "torn" and still != can_go.get(item.kind):  # of an entry all, or, published anew, nothing
            still = set()
        files = tuple(name for name in item.files if name in still or name not in mine)
        if files:
            items.append(replace(item, files=files, bytes=sum(own[name][0] for name in files if name in own)))
    return items


def _age(written: object) -> float:
    """Seconds since a file was written; 0 where that is not known."""
    return time.time() - float(written) if isinstance(written, int | float) else 0.0


def _plan_key(
    plan: Plan,
    fs: AbstractFileSystem,
    place: str,
    key: str,
    files: Mapping[str, tuple[int, float]],
    needs: Needs,
) -> None:
    entries, torn = _entries(fs, place, files)
    held = [name for name in files if name.startswith("held/")]
    if any(files[name][1] < HALF_WRITTEN_SECONDS for name in held):
        plan.at_work.add(key)  # or its holder is dead, which its lease tells
    else:
        torn += held
    bank = any(name not in ("result", "epoch") for name in entries)
    is_needed = key in needs.results or (bank and needs.every_bank)
    progress = key in needs.checkpoints or needs.every_checkpoint
    going: dict[str, list[str]] = {"torn": torn}
    for name, some in entries.items():
        if name == "epoch":
            if not progress or "result" in entries:
                going.setdefault("checkpoints", []).extend(some)
        elif not is_needed:
            going.setdefault("banks" if bank else "results", []).extend(some)
    if set(entries) and not {name for kind, names in going.items() if kind != "torn" for name in names}:
        plan.needed.add(key)
    for kind, names in going.items():
        if not names:
            continue
        alone = kind == "checkpoints" and "result" not in entries and key not in needs.over
        usual = ALONE_SECONDS if alone else HALF_WRITTEN_SECONDS
        older = usual if plan.older is None else plan.older
        if kind != "torn" and min(files[name][1] for name in names) < older:
            plan.young.add(key)
            continue
        plan.items.append(Item(key, kind, tuple(names), sum(files[name][0] for name in names)))


def _entries(
    fs: AbstractFileSystem, place: str, files: Mapping[str, tuple[int, float]]
) -> tuple[dict[str, list[str]], list[str]]:
    """The files of each published entry, its name's first; and those that belong to none and are not being written."""
    payloads: dict[str, list[str]] = {}
    for file in files:
        if match := PAYLOAD.fullmatch(file):
            payloads.setdefault(match["name"], []).append(file)
    entries: dict[str, list[str]] = {}
    for file in files:
        if (match := PUBLISHED.fullmatch(file)) and payloads.get(match["name"]):
            name = match["name"]
            own = payloads[name] if len(payloads[name]) == 1 else _published(fs, f"{place}/{file}", payloads[name])
            if own:
                entries[name] = [file, *own]
    whole = {file for some in entries.values() for file in some}
    ours = [file for file in files if any(form.fullmatch(file) for form in (PUBLISHED, PAYLOAD, TEMPORARY))]
    torn = [file for file in ours if file not in whole and files[file][1] > HALF_WRITTEN_SECONDS]
    return entries, torn


def _published(fs: AbstractFileSystem, path: str, payloads: Iterable[str]) -> list[str]:
    """The payload that an entry names, if it is there."""
    try:
        file = json.loads(fs.cat_file(path))["file"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [name for name in payloads if name == file]
