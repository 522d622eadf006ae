"""What MLflow is told of a study as a whole: what decides in it, its winner, and the scores of its trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raymc.study.objective import Objective
from raymc.study.reader import Study
from raymc.study.records import FINISHED, Record, Row
from raymc.tracking.study import StudyTracker

SCORES = {"search": "search_score", "confirm": "confirmed_score"}
"""The metric that a trial's objective becomes, by the kind of its run; of a second metric with `_second` behind it."""


def study_tags(manifest: Mapping[str, Any]) -> Row:
    """Tags of a study's run from `study.json`: what is clustered how, and what decides."""
    objective = Objective.of(manifest["objective"])
    tags = {f"raymc.{key}": manifest[key] for key in ("method", "dataset", "preset", "smoke")}
    tags["raymc.objective"] = objective.metric
    named = {"mode": objective.mode, "aggregate": objective.aggregate, "uses_labels": objective.uses_labels}
    named |= {} if objective.second is None else {"second": objective.second}
    return tags | {f"raymc.objective.{key}": value for key, value in named.items()}


def log_outcome(study: Study, facts: Row, chosen: Row | None, counts: Mapping[str, int], tracker: StudyTracker) -> None:
    """Write a study's outcome to its run, and to the runs of its trials the scores that they ended with.

    Scores are written when the search has ended, since a rank depends on all trials. `facts` is what
    `raymc.reporting.search.facts.gather` says of the study, `chosen` the confirmation of its winner, and `counts` are
    its trials by how they ended.
    """
    step = sum(counts.values())
    for record in (*study.trials, *study.confirmations):
        if scores := scores_of(record):
            tracker.log_scores(record.trial, scores, step, kind=record.kind)
    tracker.metrics({f"trials_{state}": count for state, count in counts.items()}, step)
    if chosen is not None:
        statistics = {**chosen["statistics"], "pairwise_ari": chosen["pairwise_ari"] or {}}
        tracker.log_statistics(statistics, step)
    best = facts["winner"]
    if best is not None:
        tracker.tags(_winner_tags(best))
        tracker.metrics(_winner_scores(study, best["trial"], chosen), step)


def scores_of(record: Record) -> dict[str, float]:
    """A finished record's score by each metric of the objective, under the names of `SCORES`; else empty."""
    if record.state != FINISHED or record.score is None:
        return {}
    name = SCORES[record.kind]
    return dict(zip((name, f"{name}_second"), record.scores or (record.score,), strict=False))


def _winner_scores(study: Study, trial: int, chosen: Row | None) -> dict[str, float]:
    """What the winner scored in the search and on fresh seeds, and how much worse that was (`drop`)."""
    found: dict[str, float] = {}
    for record in (*study.trials, *study.confirmations):
        if record.trial == trial:
            found |= scores_of(record)
    drop = chosen["drop"] if chosen else None
    return found if drop is None else found | {"drop": drop}


def _winner_tags(best: Row) -> Row:
    params = {f"raymc.winner.{key}": value for key, value in best["params"].items()}
    return {"raymc.winner": best["trial"], "raymc.winner.chosen_by": best["chosen_by"], **params}
