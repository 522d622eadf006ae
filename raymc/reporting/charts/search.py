"""The charts of a report: fresh seeds against the search, the course of the search, what moved the score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from markupsafe import Markup

from raymc.reporting import words
from raymc.reporting.charts.svg import Axis, Panel, axis, picture
from raymc.reporting.search.cautions import edge
from raymc.reporting.search.label_free import Points, scored
from raymc.study.reader import Study
from raymc.study.records import Record
from raymc.study.words import setting


def fresh_seeds(study: Study, confirmed: Sequence[Mapping[str, Any]], best: int) -> Markup | None:
    """Per confirmed configuration: every fresh seed, their mean and interval, and the search score (hollow diamond)."""
    metric = study.objective.metric
    rows = [one for one in confirmed if metric in one["statistics"]] if study.by_seed else []
    if not rows:
        return None
    found = [value for one in rows for value in one["statistics"][metric]["values"]]
    found += [one["search_score"] for one in rows if one["search_score"] is not None]
    found += [end for one in rows for end in one["statistics"][metric]["ci95"] or ()]
    names = tuple(f"trial {one['trial']}" for one in rows)[::-1]
    places = Axis(-0.6, len(rows) - 0.4, names=names)
    panel = Panel(axis(found, metric), places, 400, 62 + 46 * len(rows), 66)
    marks = [
        mark
        for row, one in zip(range(len(rows) - 1, -1, -1), rows, strict=True)
        for mark in _seed_row(panel, row, one, metric, "best" if one["trial"] == best else "plain")
    ]
    return panel.draw(marks, f"{metric} on fresh seeds against the search score")


def _seed_row(panel: Panel, row: int, one: Mapping[str, Any], metric: str, css: str) -> list[Markup]:
    stats, before = one["statistics"][metric], one["search_score"]
    values = [
        (f"seed {run['seed']}", run["metrics"][metric])
        for run in one["per_seed"]
        if run["state"] == "finished" and metric in run["metrics"]
    ]
    marks = [panel.dot(x, row - 0.16, f"{css} soft", f"{seed}: {words.score(x)}") for seed, x in values]
    if stats["ci95"]:
        ends = [(end, row + 0.14) for end in stats["ci95"]]
        marks.append(panel.line(ends, f"{css} interval", "95 % interval of the mean"))
    tip = f"mean of {stats['n']}: {words.score(stats['mean'])}"
    marks.append(panel.dot(stats["mean"], row + 0.14, css, tip, radius=5))
    if before is not None:
        marks.append(_diamond(*panel.at(before, row + 0.14), f"search score: {words.score(before)}"))
    return marks


def _diamond(x: float, y: float, tip: str, css: str = "search") -> Markup:
    return Markup('<path class="{}" d="M{:.1f} {:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z"><title>{}</title></path>').format(
        css, x, y - 5.5, tip
    )


def course(study: Study, best: int) -> Markup | None:
    """Scores in the order of the trials with the best so far; trials without a score are ticks at the foot."""
    done = study.finished
    if len(done) < 2:
        return None
    metric, pick = study.objective.metric, min if study.objective.mode == "min" else max
    y = axis([trial.score or 0.0 for trial in done], metric)
    panel = Panel(Axis(-0.5, max(trial.trial for trial in study.trials) + 0.5, "trial"), y)
    scores = [(float(trial.trial), trial.score or 0.0) for trial in done]
    tops = list(accumulate((score for _, score in scores), pick))
    steps = [p for i, (x, _) in enumerate(scores) for p in ([(x, tops[i - 1])] if i else []) + [(x, tops[i])]]
    marks = [panel.line(steps, "so-far", "best so far")]
    marks += [_score_dot(panel, float(trial.trial), trial, best) for trial in done]
    marks += [_scoreless(panel, trial) for trial in study.trials if trial not in done]
    return panel.draw(marks, f"{metric} of each trial, in the order in which they ran")


def _scoreless(panel: Panel, trial: Record) -> Markup:
    css = "plain" if trial.state in ("pruned", "running") else "lost"
    tip = f"trial {trial.trial}: {words.state(trial.state)}"
    return panel.dot(trial.trial, panel.y.low, css, tip, f"trial-{trial.trial}", 2.5)


def importance_bars(shares: Mapping[str, float]) -> Markup:
    """One bar per searched key, its share of the score's variance."""
    height, room = 26, 230
    longest = max(shares.values()) or 1.0
    rows = [
        Markup(
            '<text class="tick" x="0" y="{}">{}</text><rect class="bar" x="0" y="{}" width="{:.1f}" height="7" rx="2"/>'
            '<text class="tick" x="{:.1f}" y="{}">{} %</text>'
        ).format(
            i * (height + 8) + 13, key, i * (height + 8) + 19, room * share / longest + 1,
            room * share / longest + 8, i * (height + 8) + 27, round(100 * share),
        )
        for i, (key, share) in enumerate(shares.items())
    ]  # fmt: skip
    return picture(300, len(rows) * (height + 8), Markup("").join(rows), "Importance of each searched key")


def slices(study: Study, best: int) -> list[Markup]:
    """One panel per searched key: the score of each finished trial against its value."""
    if not study.finished:
        return []
    y = axis([trial.score or 0.0 for trial in study.finished], study.objective.metric)
    return [_slice(study, key, spec, y, best) for key, spec in study.searched.items()]


def _slice(study: Study, key: str, spec: Mapping[str, Any], y: Axis, best: int) -> Markup:
    choices = list(spec.get("choices") or ())
    if choices:
        x = Axis(-0.5, len(choices) - 0.5, names=tuple(setting(choice) for choice in choices))
    else:
        x = Axis(float(spec["low"]), float(spec["high"]), log=bool(spec.get("log")))
    panel = Panel(x, y, height=210)
    marks = []
    for trial in sorted(study.finished, key=lambda trial: trial.trial == best):
        value = trial.params.get(key)
        if key not in trial.params:  # it does not exist where another key has another value
            continue
        if choices and value in choices:
            marks.append(_score_dot(panel, float(choices.index(value)), trial, best, key))
        elif not choices and isinstance(value, int | float):
            marks.append(_score_dot(panel, float(value), trial, best, key))
    near = edge(next((t.params.get(key) for t in study.trials if t.trial == best), None), spec)
    return panel.draw(marks, f"{y.label} against {key}" + (f"; the winner is at the {near} edge" if near else ""))


def trial_dot(
    panel: Panel, at: tuple[float, float], trial: int, tip: str, chosen: bool, css: str = "plain soft"
) -> Markup:
    """A trial, the chosen one large; a click leads to its row in the table."""
    css, radius = ("best", 5.5) if chosen else (css, 3.5)
    return panel.dot(*at, css, f"trial {trial}: {tip}", f"trial-{trial}", radius)


def _score_dot(panel: Panel, x: float, trial: Record, best: int, key: str = "") -> Markup:
    value = f", {key} = {setting(trial.params.get(key))}" if key else ""
    chosen = trial.trial == best
    return trial_dot(panel, (x, trial.score or 0.0), trial.trial, f"{words.score(trial.score)}{value}", chosen)


def against_acc(study: Study, facts: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    """One panel per label-free score: ACC of each trial against it; `facts` as in `label_free`. Empty without labels.

    The trial that the score would have chosen is large, that of the best ACC a hollow diamond.
    """
    if facts["best"] is None or facts["trials"] < 2:
        return []
    rows, points = {row["score"]: row for row in facts["scores"]}, scored(study)
    y = axis([trial.metrics["acc"] for found in points.values() for trial, _ in found] + [facts["best"]["acc"]], "acc")
    return [(name, _score_against_acc(points[name], row, facts["best"], y)) for name, row in rows.items()]


def _score_against_acc(points: Points, row: Mapping[str, Any], best: Mapping[str, Any], y: Axis) -> Markup:
    name, chosen = row["score"], row["trial"]
    panel = Panel(axis([value for _, value in points], name), y, height=240)
    marks = []
    for trial, value in sorted(points, key=lambda point: point[0].trial == chosen):
        acc = trial.metrics["acc"]
        tip = f"{name} {words.score(value)}, acc {words.score(acc)}"
        marks.append(trial_dot(panel, (value, acc), trial.trial, tip, trial.trial == chosen))
        if trial.trial == best["trial"]:
            marks.append(_diamond(*panel.at(value, best["acc"]), f"best acc: trial {trial.trial}", "search open"))
    correlation = row["rank_correlation"]
    rho = f", rank correlation {words.correlation(correlation)}" if correlation is not None else ""
    title = f"acc against {name} of {words.count(len(points), 'trial')}{rho}; {name} would have chosen trial {chosen}, "
    return panel.draw(marks, f"{title}the best acc is trial {best['trial']}'s")
