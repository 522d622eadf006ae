"""What a study cost: stages computed and taken from the store, seconds spent and saved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from raymc.reporting.records import Record, Study, number

COLUMNS = ("computed", "reused", "seconds", "seconds_saved", "unknown")


def stage_use(records: Iterable[Record]) -> dict[str, Any]:
    """How often stages were computed or reused, the seconds spent on them and those saved, in all and by stage.

    A reuse saves what the study itself spent on that key; where another study computed it, the saving is unknown and
    counted in `unknown`.
    """
    runs = [stage for record in records for seed in record.seeds for stage in seed.stages if stage.epochs]
    spent = {stage.key: stage.seconds for stage in runs if not stage.cached}
    by_stage: dict[str, dict[str, Any]] = {}
    for stage in runs:
        row = by_stage.setdefault(
            stage.name, {"computed": 0, "reused": 0, "seconds": 0.0, "seconds_saved": 0.0, "unknown": 0}
        )
        row["reused" if stage.cached else "computed"] += 1
        row["seconds"] += stage.seconds
        if stage.cached and stage.key in spent:
            row["seconds_saved"] += max(0.0, spent[stage.key] - stage.seconds)
        elif stage.cached:
            row["unknown"] += 1
    return {**{c: sum(row[c] for row in by_stage.values()) for c in COLUMNS}, "by_stage": by_stage}


def time_spent(study: Study) -> dict[str, Any]:
    """Seconds of wall clock over all sittings, and of trials and confirmations, which may overlap.

    `core_hours` and `gpu_hours` are those that the trainings held, by the resources that the study gave them; a
    fraction of a GPU counts as that fraction.
    """
    sittings = [s for s in study.get("sittings") or () if isinstance(s, Mapping)]
    hours = sum(record.seconds for record in (*study.trials, *study.confirmations)) / 3600
    workers = number(study.get("resources", "workers")) or 1.0
    return {
        "core_hours": hours * workers * (number(study.get("resources", "cpus_per_worker")) or 1.0),
        "gpu_hours": hours * workers * (number(study.get("resources", "gpus_per_worker")) or 0.0),
        "wall_seconds": sum(number(s.get("seconds")) or 0.0 for s in sittings),
        "trial_seconds": sum(record.seconds for record in study.trials),
        "confirmation_seconds": sum(record.seconds for record in study.confirmations),
        "sittings": [{"started": s.get("started"), "seconds": number(s.get("seconds"))} for s in sittings],
    }
