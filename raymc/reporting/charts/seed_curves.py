"""Learning curves of a group of seeds: a line per seed, their median, and the band in which they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from raymc.reporting.charts.curves import curve_points
from raymc.reporting.charts.svg import Panel, Point, axis, epochs_of, thinned
from raymc.stability.reader import GroupResult
from raymc.training.outputs import read_curve

QUARTILES = 8
"""Seeds from which the band is the middle half of them; of fewer it holds all."""

MOST = 120
"""Points of a line that are drawn."""

Lines = Mapping[int, Sequence[Point]]


def seed_curves(group: GroupResult, metric: str | None) -> list[tuple[str, Markup]]:
    """`(caption, panel)` of each stage that the seeds vary: `metric` by epoch where it was evaluated, else the loss.

    Stages before `seeds_from` are one result for all seeds: they have no band.
    """
    runs = group.record.finished
    events = {run.seed: found for run in runs if (found := read_curve(run.folder))}
    order = list(dict.fromkeys(event["stage"] for found in events.values() for event in found))
    first = group.result["seeds_from"]
    panels = []
    for stage in order[order.index(first) if first in order else 0 :]:
        for measure in filter(None, (metric, "loss")):
            lines = _lines(events, stage, measure)
            if lines:
                panels.append((f"{stage}: {measure}, {_band_words(len(lines))}", _panel(lines, measure, stage)))
                break
    return panels


def _lines(events: Mapping[int, Sequence[dict[str, Any]]], stage: str, measure: str) -> Lines:
    lines = {seed: curve_points(list(found), stage, measure) for seed, found in events.items()}
    return {seed: points for seed, points in lines.items() if len(points) > 1}


def _band_words(n: int) -> str:
    if n < 2:
        return "one seed"
    return f"{n} seeds, their median and {'the band of the middle half' if n >= QUARTILES else 'the band of all'}"


def _panel(lines: Lines, measure: str, stage: str) -> Markup:
    middle, low, high = _summary(lines)
    ends = [point for points in lines.values() for point in points]
    heights = np.asarray([value for _, value in ends])
    span = np.quantile(heights, (0.005, 0.995)) if len(heights) > 400 else (heights.min(), heights.max())
    panel = Panel(epochs_of(ends), axis(map(float, span), measure))
    marks = [_area(panel, thinned(low, MOST), thinned(high, MOST))] if len(middle) > 1 and len(lines) > 1 else []
    marks += [panel.line(thinned(points, MOST), "curve", f"seed {seed}") for seed, points in lines.items()]
    if len(middle) > 1 and len(lines) > 1:
        marks.append(panel.line(thinned(middle, MOST), "curve best", "median"))
    return panel.draw(marks, f"{measure} over the epochs of {stage}, one line per seed, with median and band")


def _summary(lines: Lines) -> tuple[list[Point], list[Point], list[Point]]:
    """Median, lower and upper end of the band, at the epochs that all seeds have."""
    values = {seed: dict(points) for seed, points in lines.items()}
    epochs = sorted(set.intersection(*(set(found) for found in values.values())))
    part = 0.25 if len(lines) >= QUARTILES else 0.0
    at = np.asarray([[found[epoch] for epoch in epochs] for found in values.values()]).reshape(len(lines), len(epochs))
    rows = np.quantile(at, (0.5, part, 1 - part), axis=0)
    middle, low, high = ([(x, float(y)) for x, y in zip(epochs, row, strict=True)] for row in rows)
    return middle, low, high


def _area(panel: Panel, low: Sequence[Point], high: Sequence[Point]) -> Markup:
    places = [panel.at(*point) for point in (*high, *reversed(low))]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places) + "Z"
    return Markup('<path class="band" d="{}"/>').format(path)
