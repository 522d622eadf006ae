"""What a study cost: stages computed and taken from the store, seconds spent and saved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from raymc.study.reader import Study
from raymc.study.records import Record, Resources, number

COLUMNS = {"computed": 0, "reused": 0, "seconds": 0.0, "waited": 0.0, "seconds_saved": 0.0, "unknown": 0}


def stage_use(records: Iterable[Record]) -> dict[str, Any]:
    """How often stages were computed or reused, the seconds spent on them and those saved, in all and by stage.

    `waited` are seconds for another process to compute a stage: spent by that one, not here.

    A reuse saves what the study itself spent on that key; where another study computed it, the saving is unknown and
    counted in `unknown`.
    """
    runs = [stage for record in records for seed in record.seeds for stage in seed.stages if stage.epochs]
    spent = {stage.key: stage.trained for stage in runs if not stage.cached}
    by_stage: dict[str, dict[str, Any]] = {}
    for stage in runs:
        row = by_stage.setdefault(stage.name, dict(COLUMNS))
        row["reused" if stage.cached else "computed"] += 1
        row["seconds"] += stage.trained
        row["waited"] += stage.waited
        if stage.cached and stage.key in spent:
            row["seconds_saved"] += max(0.0, spent[stage.key] - stage.trained)
        elif stage.cached:
            row["unknown"] += 1
    return {**{c: sum(row[c] for row in by_stage.values()) for c in COLUMNS}, "by_stage": by_stage}


def time_spent(study: Study) -> dict[str, Any]:
    """Seconds of wall clock over all sessions, and of trials and confirmations, which may overlap; and what was `held`.

    What trainings do not say, they had by what the study asked for. The seconds of stages that were trained before the
    trials are `stage_seconds`; their hours are in all the others.
    """
    sessions = [s for s in study.get("sittings") or () if isinstance(s, Mapping)]
    return {
        **held((*study.stages, *study.records), Resources.of(study.get("resources"))),
        "wall_seconds": sum(number(s.get("seconds")) or 0.0 for s in sessions),
        "stage_seconds": sum(record.seconds for record in study.stages),
        "trial_seconds": sum(record.seconds for record in study.trials),
        "confirmation_seconds": sum(record.seconds for record in study.records if record.kind != "search"),
        "sittings": [{"started": s.get("started"), "seconds": number(s.get("seconds"))} for s in sessions],
    }


def held(records: Iterable[Record], asked: Resources | None = None) -> dict[str, Any]:
    """Core- and GPU-hours of trainings; a fraction of a GPU counts as that fraction.

    `core_hours` and `gpu_hours` are what they held while they trained, `waiting_core_hours` and `waiting_gpu_hours`
    what they held in the `waited_seconds` for stages that other processes computed. Each by what a training had;
    `assumed` of them do not say it, being of a time before it was noted, or stopped when no other seed had ended: those
    by what was `asked` for, and where that is not known, they are in no hours. `by_machine` has the same four for each
    type of machine, the empty name for trainings that do not say theirs.
    """
    spent = [one for record in records for one in _spent(record)]
    counted = [replace(one, had=had) for one in spent if (had := one.had or asked) is not None]
    machines = dict.fromkeys(one.machine for one in counted)
    return {
        **_hours(counted),
        "by_machine": {name: _hours([one for one in counted if one.machine == name]) for name in machines},
        "waited_seconds": sum(one.waited for one in counted),
        "trainings": len(spent),
        "assumed": sum(one.had is None for one in spent),
        "asked": asked is not None,
    }


@dataclass(frozen=True)
class _Spent:
    """What a training had and where, its seconds, and of these those in which it waited."""

    had: Resources | None
    machine: str
    seconds: float
    waited: float


def _spent(record: Record) -> Iterator[_Spent]:
    for run in record.seeds:
        yield _Spent(run.resources, run.machine, run.seconds, run.waited)
    if (stopped := record.seconds - sum(run.seconds for run in record.seeds)) > 1e-6:
        had = next((run.resources for run in record.seeds if run.resources), None)
        yield _Spent(had, next((run.machine for run in record.seeds), ""), stopped, 0.0)


def _hours(spent: Sequence[_Spent]) -> dict[str, float]:
    found = dict.fromkeys(("core_hours", "gpu_hours", "waiting_core_hours", "waiting_gpu_hours"), 0.0)
    for one in spent:
        had = one.had or Resources()
        for name, seconds in (("", one.seconds - one.waited), ("waiting_", one.waited)):
            found[f"{name}core_hours"] += had.cores * seconds / 3600
            found[f"{name}gpu_hours"] += had.gpus * seconds / 3600
    return found
