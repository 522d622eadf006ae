"""The winner's coding rates and numerical ranks over the epochs of its clustering stages (MLC figure 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from raymc.reporting.charts.curves import STAGES, curve_points
from raymc.reporting.charts.svg import Panel, Point, axis, epochs_of, thinned
from raymc.study.records import SeedRun
from raymc.training.outputs import read_curve

MOST = 200
"""Points of a line."""

RATES = {
    "all": "R, the coding rate of all features",
    "parts": "R_c, the coding rate of the clusters",
    "gain": "R − R_c, what the clusters save",
}
RANKS = {
    "all": "all features",
    "parts": "the found clusters, their mean",
    "gain": "the true classes, their mean",
}
RANK_KEYS = {"all": "rank_all", "parts": "rank_clusters", "gain": "rank_classes"}

Lines = dict[str, list[Point]]


@dataclass(frozen=True)
class Chart:
    """A panel and its legend: `(CSS class, words)` of each line."""

    caption: str
    plot: Markup
    legend: tuple[tuple[str, str], ...]


def rate_charts(runs: Sequence[SeedRun]) -> tuple[int, list[Chart]] | None:
    """Seed and charts of the first run whose curve has any; a chart whose keys are absent is left out."""
    for run in runs:
        events = read_curve(run.folder)
        charts = [chart for stage in _clustering(events) for chart in _of_stage(events, stage)]
        if charts:
            return run.seed, charts
    return None


def _clustering(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """The last stages that have a rate of clusters or ranks, in their order."""
    return list(dict.fromkeys(e["stage"] for e in events if "cluster_rate" in e or "rank_all" in e))[-STAGES:]


def _of_stage(events: Sequence[dict[str, Any]], stage: str) -> list[Chart]:
    ranks = {line: curve_points(events, stage, key) for line, key in RANK_KEYS.items()}
    found = [
        _chart(f"{stage}: coding rates by epoch", "nats", _rates(events, stage), RATES),
        _chart(f"{stage}: numerical rank by epoch", "numerical rank", ranks, RANKS),
    ]
    return [chart for chart in found if chart is not None]


def _rates(events: Sequence[dict[str, Any]], stage: str) -> Lines:
    """The curve has the terms of the loss, which is made small: -R and R_c."""
    whole = {epoch: -value for epoch, value in curve_points(events, stage, "rate")}
    parts = dict(curve_points(events, stage, "cluster_rate"))
    both = [epoch for epoch in whole if epoch in parts]
    return {
        "all": [(epoch, whole[epoch]) for epoch in both],
        "parts": [(epoch, parts[epoch]) for epoch in both],
        "gain": [(epoch, whole[epoch] - parts[epoch]) for epoch in both],
    }


def _chart(caption: str, label: str, lines: Lines, legend: Mapping[str, str]) -> Chart | None:
    drawn = {name: thinned(points, MOST) for name, points in lines.items() if len(points) > 1}
    if not drawn:
        return None
    ends = [point for points in drawn.values() for point in points]
    panel = Panel(epochs_of(ends), axis([0.0, *(value for _, value in ends)], label), 440)
    marks = [panel.line(points, f"term {name}", legend[name]) for name, points in drawn.items()]
    said = tuple((name, legend[name]) for name in drawn)
    return Chart(caption, panel.draw(marks, caption), said)
