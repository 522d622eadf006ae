"""Configurations on fresh seeds: their statistics, the drop from the search, and winner against runner-up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from raymc.metrics import labellings
from raymc.metrics.names import LABEL_METRICS, STUDY_METRICS, bounds
from raymc.metrics.seeds import summary
from raymc.study.front import direction
from raymc.study.groups import consensus_of, labels_of
from raymc.study.reader import Study, best_of, confirmation_of, default_of
from raymc.study.records import Record, SeedRun


def confirmation(study: Study, record: Record) -> dict[str, Any]:
    """One configuration on fresh seeds: statistics of every metric over the seeds that finished.

    `search_score` and `score` are what it reached there and here (`Study.level`: a mean, whatever the search
    aggregated), `drop` is how much worse that is: positive is worse, whichever way the objective points.
    """
    metrics = metric_order((name for run in record.seeds for name in run.metrics), study.objective.metric)
    values = {metric: list(record.values(metric).values()) for metric in metrics}
    search = next((trial for trial in study.trials if trial.trial == record.trial), None)
    before, after, sign = study.level(search) if search else None, study.level(record), direction(study)
    apart = study.objective.metric not in STUDY_METRICS  # a rank among others than before is no change
    return {
        "trial": record.trial,
        "state": record.state,
        "params": dict(record.params),
        "seeds": [run.seed for run in record.seeds],
        "states": dict(Counter(run.state for run in record.seeds)),
        "search_score": before,
        "score": after,
        "drop": sign * (before - after) if apart and before is not None and after is not None else None,
        "statistics": {metric: statistics(found, bounds(metric)) for metric, found in values.items() if found},
        "pairwise_ari": agreement(record.seeds),
        "consensus": together.scores if (together := consensus_of(record.seeds)) else None,
        "per_seed": [
            {"seed": run.seed, "state": run.state, "metrics": dict(run.metrics), "seconds": run.seconds}
            for run in record.seeds
        ],
    }


def statistics(values: Sequence[float], within: tuple[float, float] | None = None) -> dict[str, Any]:
    """`raymc.metrics.seeds.summary` and the values; one value has no spread: `std` and the intervals are None then."""
    unknown = dict.fromkeys(("std", "ci95", "ci95_bootstrap")) if len(values) < 2 else {}
    return {**summary(values, within), **unknown, "values": list(values)}


def agreement(runs: Sequence[SeedRun]) -> dict[str, float] | None:
    """Adjusted Rand index between the labellings of each two finished seeds; None where there is none."""
    return labellings.agreement(list(labels_of(runs).values()))


def comparison(study: Study, best: Record | None) -> dict[str, Any] | None:
    """The winner's advantage over the next best confirmed configuration, paired over the seeds that both finished.

    None with fewer than two such seeds.
    """
    mine = confirmation_of(study, best.trial) if best else None
    other = best_of((r for r in study.confirmations if mine and r.trial != mine.trial), study.objective.mode)
    if mine is None or other is None:
        return None
    gaps = _gaps(study, mine, other)
    if len(gaps) < 2:
        return None
    return {"a": mine.trial, "b": other.trial, "metric": study.objective.metric, "advantage": statistics(gaps)}


def beside_default(study: Study, best: Record | None) -> dict[str, Any] | None:
    """The default configuration on fresh seeds: `{"trial", "score", "seeds", "statistics", "advantage"}`.

    `trial` is the finished one with its values, None where there is none; `statistics` are the objective's.
    `advantage` is the winner's, paired over the seeds that both finished; None with fewer than two, and where the
    default is the winner. None where the default has no finished seed.
    """
    record = default_of(study)
    if record is None or not record.finished:
        return None
    metric, mine = study.objective.metric, confirmation_of(study, best.trial) if best else None
    gaps = _gaps(study, mine, record) if mine is not None and mine is not record else []
    values, params = list(record.values(metric).values()), study.get("default")
    same = (trial.trial for trial in study.finished if dict(trial.params) == params)
    return {
        "trial": next(same, None) if record.kind == "default" else record.trial,
        "score": study.level(record),
        "seeds": [run.seed for run in record.finished],
        "statistics": statistics(values, bounds(metric)) if values else None,
        "advantage": statistics(gaps) if len(gaps) > 1 else None,
    }


def _gaps(study: Study, mine: Record, other: Record) -> list[float]:
    """By how much `mine` is better, seed by seed."""
    ours, theirs = mine.values(study.objective.metric), other.values(study.objective.metric)
    return [direction(study) * (ours[seed] - theirs[seed]) for seed in ours if seed in theirs]


def metric_order(names: Iterable[str], first: str) -> list[str]:
    """Each name once: the objective, the label metrics, those of the held-out split, then the others."""
    ranked = (first, *LABEL_METRICS, *(f"test_{name}" for name in LABEL_METRICS))
    return sorted(set(names), key=lambda name: (ranked.index(name) if name in ranked else len(ranked), name))
