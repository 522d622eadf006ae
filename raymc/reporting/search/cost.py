"""What a study cost: stages computed and taken from the store, seconds spent and saved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
    """Seconds of wall clock over all sessions, and of trials and confirmations, which may overlap.

    `core_hours` and `gpu_hours` are what the trainings held while they trained, `waiting_core_hours` and
    `waiting_gpu_hours` what they held in the `waited_seconds` for stages that other processes computed; a fraction of a
    GPU counts as that fraction. Each by what a training had; `assumed` of them do not say it, being of a time
    before it was noted, or stopped when no other seed had ended: those by what the study asked for.
    """
    sessions = [s for s in study.get("sittings") or () if isinstance(s, Mapping)]
    asked = Resources.of(study.get("resources"))
    spent = [one for record in study.records for one in _spent(record)]
    had = [(resources or asked, (seconds - waited) / 3600, waited / 3600) for resources, seconds, waited in spent]
    return {
        "core_hours": sum(of.cores * trained for of, trained, _ in had),
        "gpu_hours": sum(of.gpus * trained for of, trained, _ in had),
        "waiting_core_hours": sum(of.cores * waited for of, _, waited in had),
        "waiting_gpu_hours": sum(of.gpus * waited for of, _, waited in had),
        "waited_seconds": sum(waited for _, _, waited in spent),
        "trainings": len(spent),
        "assumed": sum(resources is None for resources, _, _ in spent),
        "wall_seconds": sum(number(s.get("seconds")) or 0.0 for s in sessions),
        "trial_seconds": sum(record.seconds for record in study.trials),
        "confirmation_seconds": sum(record.seconds for record in study.records if record.kind != "search"),
        "sittings": [{"started": s.get("started"), "seconds": number(s.get("seconds"))} for s in sessions],
    }


def _spent(record: Record) -> Iterator[tuple[Resources | None, float, float]]:
    """What each training of a record had, its seconds, and of these those in which it waited."""
    for run in record.seeds:
        yield run.resources, run.seconds, run.waited
    if (stopped := record.seconds - sum(run.seconds for run in record.seeds)) > 1e-6:
        yield next((run.resources for run in record.seeds if run.resources), None), stopped, 0.0
