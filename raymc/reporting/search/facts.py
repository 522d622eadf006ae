"""Everything that a report says, as plain numbers: the content of `summary.json`, which the page then words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit

from raymc.masking import masked
from raymc.reporting import words
from raymc.reporting.baseline import beside
from raymc.reporting.search.cautions import cautions
from raymc.reporting.search.commands import reproduce
from raymc.reporting.search.confirmed import agreement, beside_default, comparison, confirmation
from raymc.reporting.search.cost import stage_use, time_spent
from raymc.reporting.search.importance import parameter_importance
from raymc.reporting.search.label_free import label_free
from raymc.reporting.search.pareto import pareto
from raymc.study.baseline import read_baseline
from raymc.study.front import direction
from raymc.study.reader import Study, candidates, confirmation_of, winner
from raymc.study.records import FINISHED, Record

SERVED_AT = "http://127.0.0.1:5000"
"""Where `make ui` serves a store that is a file."""

COPIED = ("created", "question", "method", "dataset", "preset", "overrides", "smoke", "data", "clusters_by")
MANIFEST = ("seed", "seeds", "seeds_from", "varies", "confirm", "budget", "versions", "git", "hardware", "created")


def gather(study: Study) -> dict[str, Any]:
    """The facts of a study, JSON-ready, numbers unrounded; what is not known is None or empty, never NaN."""
    best = winner(study)
    confirmed = _best_first(study, [confirmation(study, record) for record in study.confirmations])
    mine = next((one for one in confirmed if best and one["trial"] == best.trial), None)
    return {
        "study": study.name,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        **{key: study.get(key) for key in COPIED},
        "space": study.get("space", "name"),
        "objective": study.objective.row,
        "searched": {key: dict(spec) for key, spec in study.searched.items()},
        "fixed": study.get("fixed") or {},
        "trials": {"planned": study.get("budget", "trials"), **Counter(trial.state for trial in study.trials)},
        "taken": study.get("taken"),
        "ended_early": study.get("budget", "ended_early") or "",
        "winner": _winner(study, best),
        "tried_first": _tried_first(study),
        "confirmation": confirmed,
        "comparison": comparison(study, best),
        "default": beside_default(study, best),
        "baseline": _beside_kmeans(study, best),
        "seeds_varied": words.seeds_varied(study),
        "conclusions": words.conclusions(study, mine),
        "warnings": cautions(study, best, mine),
        "pareto": pareto(study),
        "importance": parameter_importance(study),
        "label_free": label_free(study),
        "stages": stage_use([*study.records, *study.stages]),
        "time": time_spent(study),
        "commands": {name: without_secrets(line) for name, line in reproduce(study, best).items()},
        "tracking": _tracking(study),
        "manifest": {key: study.get(key) for key in MANIFEST},
    }


def _best_first(study: Study, confirmed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By their score on fresh seeds, as the winner is chosen; those without one last."""
    sign, scores = direction(study), {record.trial: record.score for record in study.confirmations}
    return sorted(confirmed, key=lambda one: (scores[one["trial"]] is None, -sign * (scores[one["trial"]] or 0.0)))


def without_secrets(text: str) -> str:
    """`text` without the user name and password of any URI in it, and with `***` for its tokens."""
    return re.sub(r"(?<=://)[^/\s@]+@", "", masked(text))


def _winner(study: Study, best: Record | None) -> dict[str, Any] | None:
    if best is None:
        return None
    confirmed = confirmation_of(study, best.trial)
    rivals = [record for record in candidates(study) if record.state == FINISHED]
    return {
        "trial": best.trial,
        "params": dict(best.params),
        "search_score": study.level(best),
        "metrics": dict(best.metrics),
        "chosen_by": "confirmation" if confirmed and confirmed.state == FINISHED else "search",
        "candidates": len(rivals),
    }


def _beside_kmeans(study: Study, best: Record | None) -> dict[str, Any] | None:
    """The winner's seeds, fresh ones where it has them, and k-means on the same samples."""
    confirmed = confirmation_of(study, best.trial) if best else None
    record = confirmed if confirmed and confirmed.finished else best
    return None if record is None else beside(record, agreement(record.seeds), read_baseline(study.folder))


def _tried_first(study: Study) -> dict[str, Any] | None:
    """The trial of the values that the space file tries first (the paper's, as a rule)."""
    first = study.get("first")
    if not isinstance(first, list) or not first or not isinstance(first[0], Mapping):
        return None
    of_it = (t for t in study.trials if all(t.params.get(key) == value for key, value in first[0].items()))
    return next(
        ({"trial": t.trial, "params": dict(t.params), "state": t.state, "score": study.level(t)} for t in of_it), None
    )


def _tracking(study: Study) -> dict[str, Any]:
    """Where the runs of the trials are: pages of the MLflow server, or of `mlflow ui` on a store that is a file.

    `runs` is the address to which a run's id is appended; None where there is no experiment.
    """
    uri = without_secrets(str(study.get("tracking_uri") or ""))
    served = urlsplit(uri).scheme in ("http", "https")
    experiment = study.get("experiment_id")
    base = uri.rstrip("/") if served else SERVED_AT
    known = bool(uri) and experiment is not None
    return {
        "uri": uri or None,
        "served": served,
        "runs": f"{base}/#/experiments/{quote(str(experiment), safe='')}/runs/" if known else None,
    }
