"""The Pareto front of a search with two metrics: the trials that no other one beats in both."""

from __future__ import annotations

from raymc.study.reader import Study
from raymc.study.records import Record


def direction(study: Study) -> float:
    """1 where larger is better, else -1."""
    return -1.0 if study.objective.mode == "min" else 1.0


def scored(study: Study) -> list[Record]:
    """The finished trials that have both scores and may win."""
    return [trial for trial in study.finished if len(trial.scores) == 2 and study.feasible(trial)]


def pareto_front(study: Study) -> list[Record]:
    """The front, the best in the first metric first. Trials with equal scores are both on it."""
    done, sign = scored(study), direction(study)

    def beats(one: Record, other: Record) -> bool:
        """At least as good in both and better in one."""
        gains = [sign * (x - y) for x, y in zip(one.scores, other.scores, strict=True)]
        return min(gains) >= 0 and max(gains) > 0

    front = [trial for trial in done if not any(beats(other, trial) for other in done)]
    return sorted(front, key=lambda trial: (-sign * trial.scores[0], trial.trial))
