"""What a study is doing now: its trainings, what is left, and for how long. For the page that updates itself."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raymc.study.events import EVENTS, read_lines
from raymc.study.files import FOLDERS
from raymc.study.reader import Study, winner
from raymc.study.records import RUNNING, Record, mapping, number
from raymc.study.remaining import fresh_left, trials_left
from raymc.study.words import configured, duration

RESULT = "result.json"
SEARCH, CONFIRM, DEFAULT = FOLDERS["search"], FOLDERS["confirm"], FOLDERS["default"]


def running_now(study: Study) -> dict[str, Any]:
    """`{"written", "trainings", "left", "best"}`, all in words, for the page; `trainings` has a row for each seed."""
    return {
        "written": datetime.now(UTC).strftime("%H:%M:%S UTC"),
        "trainings": list(_trainings(study)),
        "left": _left(study),
        "best": _best(study),
    }


def _trainings(study: Study) -> Iterator[dict[str, str]]:
    """Those that have begun and have no result, of trials that have not ended."""
    default = () if study.default is None else (study.default,)
    for kind, records in ((SEARCH, study.trials), (CONFIRM, study.confirmations), (DEFAULT, default)):
        for record in records:
            if record.state != RUNNING:
                continue
            for folder in sorted((study.folder / kind / f"{record.trial:04d}").glob("seed-*")):
                if (folder / EVENTS).exists() and not (folder / RESULT).exists():
                    yield _training(kind, record, folder)


def _training(kind: str, record: Record, folder: Path) -> dict[str, str]:
    events = read_lines(folder / EVENTS)
    at = next((one for one in reversed(events) if one.get("event") in ("epoch", "stage_begin")), {})
    epochs = f" {at['epoch']} of {at['epochs']}" if at.get("event") == "epoch" and "epochs" in at else ""
    begun = next((one["time"] for one in reversed(events) if one.get("event") == "begin" and "time" in one), None)
    seconds = (datetime.now(UTC).timestamp() - begun / 1000) if isinstance(begun, int) else None
    return {
        "task": _task(kind, record),
        "seed": folder.name.removeprefix("seed-"),
        "parameters": configured(record.params),
        "at": f"{at.get('stage') or 'loading data'}{epochs}",
        "for": duration(max(0.0, seconds)) if seconds is not None else "–",
    }


def _task(kind: str, record: Record) -> str:
    name = "the default" if kind == DEFAULT else f"trial {record.trial}"
    return name if kind == SEARCH else f"{name} on fresh seeds"


def _left(study: Study) -> str:
    """Trials and trainings that are to come, and the time that they take at the pace of this session."""
    planned, seeds = int(study.get("budget", "trials") or 0), len(study.get("seeds") or ())
    search, fresh = trials_left(study), fresh_left(study)
    going = sum(len(trial.seeds) for trial in study.trials if trial.state == RUNNING)
    trainings = max(0, search * seeds - going) + fresh
    words = f"{search} of {planned} trials, and at most {fresh} trainings on fresh seeds"
    pace = _pace(study)
    return words if pace is None or not trainings else f"{words}: about {duration(pace * trainings)}"


def _pace(study: Study) -> float | None:
    """Seconds from one result to the next in this session; None before the first."""
    sessions = study.get("sittings") or ()
    started = str(mapping(sessions[-1]).get("started") or "") if sessions else ""
    try:
        begun = datetime.fromisoformat(started).timestamp()
    except ValueError:
        return None
    paths = (path for kind in (SEARCH, CONFIRM, DEFAULT) for path in study.folder.glob(f"{kind}/*/seed-*/{RESULT}"))
    ended = sum(path.stat().st_mtime >= begun for path in paths)
    return (datetime.now(UTC).timestamp() - begun) / ended if ended else None


def _best(study: Study) -> str:
    best = winner(study)
    value = None if best is None else number(study.level(best))
    if best is None or value is None:
        return "no trial has finished"
    return f"trial {best.trial}, {study.objective.metric} {value:.4f} in the search: {configured(best.params)}"
