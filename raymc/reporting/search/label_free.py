"""What each label-free score would have chosen, and on labelled data how far it went with ACC over the trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from raymc.metrics.gates import Gates
from raymc.metrics.label_free import (
    LEAST_TRIALS,
    rank_correlation,
    rank_correlation_interval,
    selection_regret,
)
from raymc.metrics.names import RANKED, STUDY_METRICS
from raymc.metrics.ranking import rank_means
from raymc.reporting.words import count, listing, score
from raymc.study.reader import Study
from raymc.study.records import Record

Facts = Mapping[str, Any]
Points = list[tuple[Record, float]]

SIZES = ("feature_dim", "n_clusters")
"""Keys with which a rate reduction changes of itself."""


def label_free(study: Study) -> dict[str, Any]:
    """The section's facts, JSON-ready.

    `trials` finished, of which `gated` (their numbers) would have counted as collapsed in a search without labels, by
    the gates on clusters and rank. `best` is the finished trial of the highest ACC, `chance_regret`
    what a trial drawn at random from those that pass costs; None without labels. `resized` are the searched keys of
    `SIZES`. `scores` has a row per score that trials have:

    `score`; `trials` that pass and have it; `trial`, the first with the best `value`, and `tied`, how many have that;
    `largest_share` of the points in one of its clusters; then None without labels: `acc` (of several that tie the
    mean), `rank_correlation` with ACC, `interval` of 95 %, `regret`.
    """
    done, passed = _finished(study), _passed(study)
    labelled = bool(done) and all("acc" in trial.metrics for trial in done)
    best = max(done, key=lambda trial: trial.metrics["acc"]) if labelled else None
    top = best.metrics["acc"] if best else None
    chance = top - sum(t.metrics["acc"] for t in passed) / len(passed) if top is not None and passed else None
    return {
        "trials": len(done),
        "gated": [trial.trial for trial in done if trial not in passed],
        "best": {"trial": best.trial, "acc": top} if best else None,
        "chance_regret": chance,
        "resized": [key for key in SIZES if key in study.searched],
        "scores": [_row(name, points, top) for name, points in scored(study).items()],
    }


def scored(study: Study) -> dict[str, Points]:
    """Per score the trials that pass the gates and have it, with its value; a score that none has is left out."""
    passed = _passed(study)
    found = {name: [(t, t.metrics[name]) for t in passed if name in t.metrics] for name in RANKED}
    found = {name: points for name, points in found.items() if points}
    if len(found) > 1:
        whole = [trial for trial in passed if all(name in trial.metrics for name in found)]
        means = rank_means([trial.metrics for trial in whole])
        found |= {name: list(zip(whole, means, strict=True)) for name in STUDY_METRICS if whole}
    return found


def _row(name: str, points: Points, top: float | None) -> dict[str, Any]:
    values = [value for _, value in points]
    first = max(points, key=lambda point: point[1])[0]
    row = {
        "score": name,
        "trials": len(points),
        "trial": first.trial,
        "tied": values.count(max(values)),
        "value": max(values),
        "largest_share": first.metrics.get("largest_share"),
    }
    return row | _against_acc([trial.metrics["acc"] for trial, _ in points] if top is not None else [], values, top)


def _against_acc(acc: Sequence[float], values: Sequence[float], top: float | None) -> dict[str, Any]:
    if top is None:
        return dict.fromkeys(("acc", "rank_correlation", "interval", "regret"))
    rho = rank_correlation(acc, values)
    interval = None if rho is None else rank_correlation_interval(rho, len(acc))
    chosen = max(acc) - selection_regret(acc, values)
    return {
        "acc": chosen,
        "rank_correlation": rho,
        "interval": list(interval) if interval else None,
        "regret": top - chosen,  # the best trial of all may be one that the gates leave out
    }


def _finished(study: Study) -> list[Record]:
    return [trial for trial in study.trials if trial.state == "finished"]


def _passed(study: Study) -> list[Record]:
    return [trial for trial in _finished(study) if not _gated(study, trial)]


def _gated(study: Study, trial: Record) -> bool:
    gates, k = _gates(study), clusters_asked(study, trial)
    seeds = [run.metrics for run in trial.seeds if run.state == "finished"]
    return gates is not None and k is not None and any(gates.closed(metrics, k) for metrics in seeds)


def clusters_asked(study: Study, trial: Record) -> int | None:
    """How many clusters a trial was to find; None where it is not known, or the trial was to find how many."""
    fixed, data = study.get("fixed", "n_clusters"), study.get("data", "n_classes")
    asked = trial.params.get("n_clusters") or fixed or data
    return asked if isinstance(asked, int) else None


def _gates(study: Study) -> Gates | None:
    """The study's own, else what a search without labels has by default; None where such a search was told so."""
    default = Gates() if study.objective.uses_labels else None
    return study.objective.gates or default


def words_of(facts: Facts) -> list[str]:
    """What the section's figures are, and how much may be read from them."""
    if not facts["scores"]:
        return ["No finished trial has a score that needs no labels."]
    lines = [f"No label takes part in these scores. {_choices(facts['scores'])}{_left_out(facts['gated'])}"]
    if facts["resized"]:
        lines.append(f"Rate reductions are not comparable here: {listing(facts['resized'])} was searched.")
    if facts["best"] is None:
        return [
            *lines,
            "There are no labels to compare with: which score to trust must come from labelled data of the same kind.",
        ]
    return [*lines, _regrets(facts), _how_sure(max(row["trials"] for row in facts["scores"]))]


def _choices(rows: Sequence[Facts]) -> str:
    trials = {row["trial"] for row in rows}
    if len(rows) > 1 and len(trials) == 1:
        return f"All of them would have chosen trial {trials.pop()}."
    return "Each would have chosen the trial in its row."


def _left_out(gated: Sequence[int]) -> str:
    if not gated:
        return ""
    some = listing([str(trial) for trial in gated]) if len(gated) <= 8 else f"{gated[0]} and others"
    return (
        f" {count(len(gated), 'trial')} ({some}) would have counted as collapsed, by the gates on clusters and rank, "
        "and could not have been chosen."
    )


def _regrets(facts: Facts) -> str:
    best, chance = facts["best"], facts["chance_regret"]
    drawn = f"; a trial drawn at random would cost {score(chance)} on average" if chance is not None else ""
    return (
        f"The regret is the ACC of the best trial ({best['trial']}, {score(best['acc'])}) minus that of the one which "
        f"the score would have chosen{drawn}. ACC is the mean over the search seeds, and the best of many is partly "
        "luck: regrets are a little too large."
    )


def _how_sure(n: int) -> str:
    if n < LEAST_TRIALS:
        return (
            f"With {count(n, 'trial')} nothing may be concluded from these figures: rank correlations begin to say "
            f"something at {LEAST_TRIALS}, where those below {chance_bound(LEAST_TRIALS):.2f} may still be chance."
        )
    return (
        f"Over {n} trials, a rank correlation (Spearman's) below {chance_bound(n):.2f} may be chance (two-sided 5 % "
        "level). The intervals are 95 % ones for independent trials. Those of a search gather where it expects its "
        "best, which leaves less to correlate. And a study is one dataset: a score that served here may fail on others."
    )


def chance_bound(n: int) -> float:
    """The size that Spearman's correlation of n unrelated pairs stays below in 95 % of cases: 1.96 / sqrt(n - 1)."""
    return 1.959964 / math.sqrt(n - 1)
