"""The Pareto front of a search with two metrics as a row of `summary.json`, as a picture and in words."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from markupsafe import Markup

from raymc.reporting import words
from raymc.reporting.charts.search import trial_dot
from raymc.reporting.charts.svg import Panel, Point, axis
from raymc.study.front import pareto_front, scored
from raymc.study.reader import Study


def pareto(study: Study) -> dict[str, Any] | None:
    """`{"metrics": [a, b], "front": [{"trial", a, b}], "dominated": n}`, the front in the order of a.

    None for a search with one metric. Trials with equal scores are both on the front.
    """
    second = study.objective.second
    if second is None:
        return None
    names, front = (study.objective.metric, second), pareto_front(study)
    return {
        "metrics": list(names),
        "front": [{"trial": trial.trial, **dict(zip(names, trial.scores, strict=True))} for trial in front],
        "dominated": len(scored(study)) - len(front),
    }


def pareto_plot(study: Study, facts: dict[str, Any], best: int) -> Markup | None:
    """Every finished trial by its two scores; the front is joined by steps, the winner is large."""
    done = scored(study)
    if not facts["front"]:
        return None
    a, b = facts["metrics"]
    panel = Panel(axis([trial.scores[0] for trial in done], a), axis([trial.scores[1] for trial in done], b), 420, 290)
    members = {one["trial"] for one in facts["front"]}
    marks = [panel.line(_steps([(one[a], one[b]) for one in facts["front"]]), "so-far", "Pareto front")]
    for trial in sorted(done, key=lambda trial: (trial.trial == best, trial.trial in members)):
        x, y = trial.scores
        css = "plain" if trial.trial in members else "plain soft"
        tip = f"{a} {words.score(x)}, {b} {words.score(y)}"
        marks.append(trial_dot(panel, (x, y), trial.trial, tip, trial.trial == best, css))
    return panel.draw(marks, f"{b} against {a} of each trial, with the Pareto front")


def pareto_words(facts: dict[str, Any]) -> str:
    """What the front says."""
    (a, b), n = facts["metrics"], len(facts["front"])
    if len({(one[a], one[b]) for one in facts["front"]}) == 1 and n > 1:
        return f"{n} trials have the same scores, the best in {a} and in {b}: there is nothing to trade."
    if n == 1:
        only = facts["front"][0]["trial"]
        return f"Trial {only} is the best in {a} and in {b}: there is nothing to trade."
    beaten = f"Each of the other {facts['dominated']} is beaten by one of them. " if facts["dominated"] else ""
    return (
        f"{n} trials are on the front: whoever gains {a} there loses {b}. {beaten}Scores are those of the search, so "
        "the ends of the front are optimistic."
    )


def _steps(points: list[Point]) -> list[Point]:
    """The border of what the front beats: along one axis, then along the other."""
    path = points[:1]
    for (_, y), (next_x, next_y) in pairwise(points):
        path += [(next_x, y), (next_x, next_y)]
    return path
