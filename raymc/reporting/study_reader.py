"""Reads a study's folder into records.

Unknown keys are ignored and absent ones get a neutral value, so that a report of an older or a newer study, or of one
that was killed in mid-air, can still be written. Numbers that are not finite are treated as absent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from raymc.errors import InputError
from raymc.metrics.names import STUDY_METRICS
from raymc.metrics.ranking import rank_means
from raymc.reporting.records import Objective, Record, SeedRun, StageRun, Study, number


def read_study(folder: Path) -> Study:
    """The study in `folder`.

    Raises InputError where there is no `study.json` or it is torn. Torn trial records are left out and named in
    `unreadable`.
    """
    manifest = load_json(folder / "study.json")
    if manifest is None:
        raise InputError(f"{folder}: no readable study.json here")
    objective = _objective(_mapping(manifest.get("objective")))
    searched = {str(key): _mapping(spec) for key, spec in _mapping(manifest.get("searched")).items()}
    trials, torn = _records(folder / "trials", "search")
    confirmations, torn_too = _records(folder / "confirm", "confirm")
    return Study(
        folder=folder,
        name=str(manifest.get("study") or folder.name),
        manifest=manifest,
        objective=objective,
        searched=searched,
        trials=_ranked(objective, trials),
        confirmations=_ranked(objective, confirmations),
        unreadable=(*torn, *torn_too),
    )


def _objective(content: Mapping[str, Any]) -> Objective:
    return Objective(
        metric=str(content.get("metric") or "acc"),
        mode=str(content.get("mode") or "max"),
        uses_labels=bool(content.get("uses_labels")),
        aggregate=str(content.get("aggregate") or "mean"),
        second=str(content["second"]) if content.get("second") else None,
        gates=_numbers(content["gates"]) if content.get("gates") else None,
    )


def _ranked(objective: Objective, found: tuple[Record, ...]) -> tuple[Record, ...]:
    """The records with their score among each other, where the objective is one that only a whole study has."""
    if objective.metric not in STUDY_METRICS:
        return found
    done = [record for record in found if record.state == "finished"]
    ranks = dict(zip((r.trial for r in done), rank_means([r.metrics for r in done]), strict=True))
    return tuple(
        replace(r, score=ranks[r.trial], metrics={**r.metrics, objective.metric: ranks[r.trial]})
        if r.trial in ranks
        else r
        for r in found
    )


def _records(folder: Path, kind: str) -> tuple[tuple[Record, ...], list[str]]:
    records, torn = [], []
    for path in sorted(folder.glob("*/record.json")):
        content = load_json(path)
        if content is None or number(content.get("trial")) is None:
            torn.append(str(path.relative_to(folder.parent)))
        else:
            records.append(record_of(content, path.parent, kind))
    return tuple(sorted(records, key=lambda record: record.trial)), torn


def record_of(content: Mapping[str, Any], folder: Path, kind: str) -> Record:
    """The record of a configuration, whose seeds left their files in `folder`."""
    seeds = [_mapping(seed) for seed in content.get("per_seed") or ()]
    return Record(
        trial=int(content["trial"]),
        kind=kind,
        state=str(content.get("state") or "failed"),
        params=_mapping(content.get("params")),
        score=number(content.get("score")),
        metrics=_numbers(content.get("metrics")),
        seeds=tuple(_seed_run(seed, folder) for seed in seeds if number(seed.get("seed")) is not None),
        started=str(content.get("started") or ""),
        seconds=number(content.get("seconds")) or 0.0,
        error=str(content["error"]) if content.get("error") else None,
        run_id=str(content["run_id"]) if content.get("run_id") else None,
        scores=tuple(value for one in content.get("scores") or () if (value := number(one)) is not None),
    )


def _seed_run(content: Mapping[str, Any], folder: Path) -> SeedRun:
    stages = [_mapping(stage) for stage in content.get("stages") or ()]
    return SeedRun(
        seed=int(content["seed"]),
        state=str(content.get("state") or "failed"),
        metrics=_numbers(content.get("metrics")),
        stages=tuple(_stage_run(stage) for stage in stages),
        seconds=number(content.get("seconds")) or 0.0,
        folder=folder / f"seed-{int(content['seed'])}",
    )


def _stage_run(content: Mapping[str, Any]) -> StageRun:
    return StageRun(
        name=str(content.get("name") or "stage"),
        epochs=int(number(content.get("epochs")) or 0),
        cached=bool(content.get("cached")),
        seconds=number(content.get("seconds")) or 0.0,
        key=str(content.get("key") or ""),
        checkpoint=str(content.get("checkpoint") or ""),
    )


def _numbers(content: object) -> dict[str, float]:
    pairs = ((str(key), number(value)) for key, value in _mapping(content).items())
    return {key: value for key, value in pairs if value is not None}


def _mapping(content: object) -> Mapping[str, Any]:
    return content if isinstance(content, Mapping) else {}


def load_json(path: Path) -> Mapping[str, Any] | None:
    """A file's JSON object; None where it is absent or torn."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: None)  # NaN, Infinity
    except (OSError, ValueError):
        return None
    return content if isinstance(content, Mapping) else None
