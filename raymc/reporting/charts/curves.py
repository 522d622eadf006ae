"""Learning curves: one panel per stage and measure, one line per trial, the winner's on top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from raymc.reporting.charts.svg import Panel, Point, axis, epochs_of, thinned
from raymc.study.reader import Study
from raymc.study.records import number
from raymc.training.outputs import read_curve

STAGES = 2
"""The last stages are shown: they are what a search varies, as a rule."""

CROWD = 40
"""Lines above which each is drawn fainter."""

Lines = dict[int, list[Point]]


def learning_curves(study: Study, best: int | None) -> list[tuple[str, Markup]]:
    """`(caption, panel)` for the last stages that left a curve; each trial is shown by its first seed that has one."""
    events = {trial.trial: found for trial in study.trials if (found := _first_curve(trial.seeds))}
    left = {event["stage"] for found in events.values() for event in found}
    order = [name for name in study.stage_names if name in left] or sorted(left)
    panels = []
    for stage in order[-STAGES:]:
        for measure in dict.fromkeys((study.objective.metric, "loss")):
            lines = {trial: curve_points(found, stage, measure) for trial, found in events.items()}
            drawn = {trial: points for trial, points in lines.items() if len(points) > 1}
            if drawn:
                panels.append((f"{stage}: {measure}", _panel(drawn, measure, best)))
    return panels


def _first_curve(seeds: Sequence[Any]) -> list[dict[str, Any]]:
    return next((found for run in seeds if (found := read_curve(run.folder))), [])


def curve_points(events: Sequence[dict[str, Any]], stage: str, measure: str) -> list[Point]:
    """`(epoch, value)` of a stage; an epoch that a resumed training ran again counts with its last value."""
    values = {
        float(event["epoch"]): value
        for event in events
        if event["stage"] == stage and (value := number(event.get(measure))) is not None
    }
    return sorted(values.items())


def _panel(lines: Lines, measure: str, best: int | None) -> Markup:
    most = max(24, min(120, 6000 // len(lines)))
    ends = [point for points in lines.values() for point in points]
    heights = sorted(value for _, value in ends)
    cut = len(heights) // 100  # a few runaway values would flatten all the others
    y = axis(heights[cut : len(heights) - cut], measure)
    panel = Panel(epochs_of(ends), y)
    faint = "curve many" if len(lines) > CROWD else "curve"
    marks = [
        panel.line(thinned(points, most), "curve best" if trial == best else faint, f"trial {trial}")
        for trial, points in sorted(lines.items(), key=lambda pair: pair[0] == best)
    ]
    return panel.draw(marks, f"{measure} over the epochs, one line per trial")
