"""The studies of a storage and its runs of `stability` and `cluster`: how each stands, its best, its size."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from raymc.errors import InputError
from raymc.storage.lease import STALE_SECONDS
from raymc.storage.mirror import fetched
from raymc.storage.objects import START_SECONDS, Listing, filesystem, is_uri, listing_of_runs, patiently
from raymc.study.files import load_json, read_seeds, trial_folder
from raymc.study.names import no_study
from raymc.study.reader import Study, confirmation_of, read_study, winner
from raymc.study.records import BAD, FINISHED, PRUNED, Record, Row, mapping
from raymc.study.remaining import fresh_left, own_trials, trials_left

STABILITY = "stability.json"
LISTS = {"studies": "study.json", "stability": STABILITY}
"""Where runs are, and the file without which there is none."""
TABLES = "tables"
LOCK, LEASE = "driver.lock", "driver.lease"
CLOUD_SECONDS = STALE_SECONDS + 45  # an object store's clock and ours may differ
LIGHT = re.compile(r"(.*/)?(study\.json|stability\.json|record\.json|result\.json|baseline\.json|[^/]*\.yaml)")
"""Of a run in an object store, the files that say how it stands."""

UNREADABLE, RUNNING, INTERRUPTED, DONE = "unreadable", "running", "interrupted", "finished"


@dataclass(frozen=True)
class Entry:
    """A study or a run: where in the storage (`part`), and what is known of it, JSON-ready (`facts`)."""

    name: str
    part: str
    facts: Row

    @property
    def state(self) -> str:
        return str(self.facts["state"])


def inventory(storage: str, only: str | None = None) -> list[Entry]:
    """Every study and run of a storage, the newest last; `only` that of one name.

    Raises InputError, naming the nearest one, where there is none of the name.
    """
    fs, root = filesystem(storage)
    found: list[Entry] = []
    names: list[str] = []
    for place in LISTS:
        files = patiently(partial(listing_of_runs, fs, f"{root}/{place}"), fs, storage, START_SECONDS)
        own: dict[str, Listing] = {}
        for path, entry in files.items():
            name, _, rest = path[len(root) + len(place) + 2 :].partition("/")
            if rest and not name.startswith("."):
                own.setdefault(name, {})[rest] = entry
        names += own
        found += [_entry(storage, place, name, some) for name, some in own.items() if only in (None, name)]
    if only is not None and not found:
        raise no_study(only, storage, names)
    return sorted(found, key=lambda entry: (entry.facts["created"] or "", entry.name))


def running(storage: str) -> list[str]:
    """The studies, runs and tables of a storage that a driver is at work on."""
    fs, root = filesystem(storage)
    names = []
    for place in (*LISTS, TABLES):
        of: dict[str, Listing] = {}
        for path, entry in patiently(partial(listing_of_runs, fs, f"{root}/{place}"), fs, storage).items():
            name, _, rest = path[len(root) + len(place) + 2 :].partition("/")
            of.setdefault(name, {})[rest] = entry
        names += [name for name, files in of.items() if _is_running(storage, f"{place}/{name}", files)]
    return names


def find_entry(storage: str, name: str) -> Entry:
    """The study or run of a name. Raises InputError, naming the nearest one, where there is none."""
    return inventory(storage, name)[0]


@contextmanager
def light(storage: str, part: str) -> Iterator[Path]:
    """The folder of a run with what its figures need; of an object store without labels, embeddings and pictures."""
    with fetched(storage, part, lambda name: bool(LIGHT.fullmatch(name))) as folder:
        yield folder


def _entry(storage: str, place: str, name: str, files: Listing) -> Entry:
    part = f"{place}/{name}"
    written = max((float(mark) for _, mark in files.values() if isinstance(mark, int | float)), default=0.0)
    facts: Row = {
        "name": name,
        "kind": "study" if place == "studies" else "cluster" if name.startswith("cluster-") else "stability",
        "state": UNREADABLE,
        "bytes": sum(size for size, _ in files.values()),
        "files": len(files),
        "created": None,
        "written": datetime.fromtimestamp(written, UTC).isoformat(timespec="seconds") if written else None,
        "best": None,
        "part": part,
    }
    with light(storage, part) as folder:
        try:
            facts |= _of_study(folder) if place == "studies" else _of_stability(folder)
        except (InputError, KeyError, TypeError, ValueError, AttributeError):  # of another version, or torn
            facts["state"] = UNREADABLE
    if _is_running(storage, part, files):
        facts["state"] = RUNNING
    return Entry(name, part, facts)


def _of_study(folder: Path) -> Row:
    study = read_study(folder)
    states = Counter(trial.state for trial in own_trials(study))
    return {
        "state": INTERRUPTED if trials_left(study) or fresh_left(study) else DONE,
        "space": study.get("space", "name"),
        "method": study.get("method"),
        "dataset": study.get("dataset"),
        "smoke": bool(study.get("smoke")),
        "trials": {
            "planned": int(study.get("budget", "trials") or 0),
            FINISHED: states[FINISHED],
            PRUNED: states[PRUNED],
            "failed": sum(states[name] for name in BAD),
        },
        "best": _best(study),
        "created": study.get("created"),
        "database": study.get("database"),
        "tracking_uri": study.get("tracking_uri"),
    }


def _best(study: Study) -> Row | None:
    """The winner: its trial, and what it reaches in the objective, on fresh seeds where it was run on them."""
    best = winner(study)
    if best is None:
        return None
    fresh = confirmation_of(study, best.trial)
    on_fresh = fresh is not None and fresh.state == FINISHED
    record: Record = fresh if fresh is not None and on_fresh else best
    goal = study.objective.metric
    return {
        "trial": best.trial,
        "metric": goal,
        "value": study.level(record),
        "fresh_seeds": len(record.finished) if on_fresh else 0,
        "params": dict(best.params),
    }


def _of_stability(folder: Path) -> Row:
    facts = load_json(folder / STABILITY)
    if facts is None:
        raise InputError(f"{folder}: no readable {STABILITY} here")
    parts = [folder / name for name in facts.get("arms") or ("",)]
    groups = [read_seeds(trial_folder(part, "stability", 0)) for part in parts]
    asked = len(facts["seeds"]) * len(groups)
    ended = [run for group in groups for run in group]
    values = [run.metrics["acc"] for run in ended if "acc" in run.metrics]
    one = len(groups) == 1 and values
    best = {"metric": "acc", "value": sum(values) / len(values), "fresh_seeds": len(values)} if one else None
    return {
        "state": DONE if len(ended) >= asked else INTERRUPTED,
        "configurations": list(facts.get("arms") or [facts.get("name")]),
        "space": facts.get("space"),
        "method": facts.get("method"),
        "dataset": facts.get("dataset"),
        "smoke": bool(facts.get("smoke")),
        "seeds": {"planned": asked, FINISHED: sum(run.state == FINISHED for run in ended), "ended": len(ended)},
        "best": best,
        "created": mapping(facts.get("manifest")).get("created"),
        "tracking_uri": facts.get("tracking_uri"),
    }


def _is_running(storage: str, part: str, files: Listing) -> bool:
    """Whether a driver has the run, or one of its configurations: by its lock here, by its lease in an object store."""
    now = time.time()
    if is_uri(storage):
        beats = [mark for path, (size, mark) in files.items() if size and f"/{LEASE}/" in f"/{path}"]
        return any(isinstance(mark, int | float) and now - mark < CLOUD_SECONDS for mark in beats)
    return any(_is_locked(Path(storage, part, path)) for path in files if path.rpartition("/")[2] == LOCK)


def _is_locked(path: Path) -> bool:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # a folder that only others may write: whether they do cannot be seen
        return False
    lock.release()
    return False


def trials_in_words(facts: Row) -> str:
    """`12 of 16 trials`, `3 of 10 seeds`; empty where it is not known."""
    if "trials" in facts:
        ended = sum(n for name, n in facts["trials"].items() if name != "planned")
        return f"{ended} of {facts['trials']['planned']} trials"
    if "seeds" in facts:
        return f"{facts['seeds']['ended']} of {facts['seeds']['planned']} seeds"
    return ""


def best_in_words(facts: Row) -> str:
    """`acc 0.8312 on 10 fresh seeds`; empty where nothing finished."""
    best: Any = facts["best"]
    if best is None or best["value"] is None:
        return ""
    seeds = "fresh seed" if facts["kind"] == "study" else "seed"
    count = best["fresh_seeds"]
    return f"{best['metric']} {best['value']:.4f}" + (f" on {count} {seeds}{'s' * (count > 1)}" if count else "")


def size_in_words(count: float) -> str:
    """Bytes as `12.3 MiB`."""
    power = min(4, int(math.log(max(count, 1), 1024)))
    word = ("B", "KiB", "MiB", "GiB", "TiB")[power]
    return f"{count / 1024**power:.{1 if power else 0}f} {word}"
