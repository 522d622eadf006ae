"""The charts of a stability report: every seed of every arm on one axis, and how alike the seeds' clusters are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from raymc.reporting.charts.svg import Axis, Panel, axis, frame, picture, row_and_column, shaded
from raymc.reporting.words import score
from raymc.stability.reader import GroupResult

ROW, HEAD, FOOT = 66, 10, 44
"""Pixels of a row of a strip plot, and of what is above and below all rows."""

GOLDEN = 0.618034
NUMBERED = 20
"""Seeds up to which a cell of a heat map has room for its figure."""

DARKEST = 0.55
"""Share of the colour in a cell of 1: its figure stays legible in light and in dark."""


@dataclass(frozen=True)
class Strip:
    """A row of a strip plot: values, each with the words of its dot, their mean and its interval."""

    name: str
    values: tuple[tuple[str, float], ...]
    mean: float
    ci95: tuple[float, float] | None


def seed_strips(groups: Sequence[GroupResult], metric: str) -> Markup:
    """Each seed a dot, the mean and its 95 % interval, arms one under the other on one axis."""
    rows = [_strip(group, metric) for group in groups if metric in group.result]
    means = "; ".join(f"{row.name}: mean {score(row.mean)} of {len(row.values)}" for row in rows)
    return strips(rows, metric, f"{metric} of each seed with mean and 95 % interval. {means}", named=len(groups) > 1)


def difference_strips(comparisons: Sequence[Mapping[str, Any]], groups: Sequence[GroupResult]) -> Markup | None:
    """Per pair of arms the difference on each common seed, its mean and interval; a line marks no difference."""
    values = {group.name: {run.seed: run.metrics for run in group.record.finished} for group in groups}
    rows = []
    for pair in comparisons:
        metric, a, b = pair["metric"], values[pair["a"]], values[pair["b"]]
        gaps = [(f"seed {seed}", a[seed][metric] - b[seed][metric]) for seed in pair["common_seeds"]]
        if gaps:
            ends = tuple(pair["ci95"]) if pair["ci95"] else None
            rows.append(Strip(f"{pair['a']} − {pair['b']}", tuple(gaps), pair["mean_difference"], ends))
    if not rows:
        return None
    label = f"difference of {comparisons[0]['metric']} on one seed"
    means = "; ".join(f"{row.name}: mean {score(row.mean)}" for row in rows)
    return strips(rows, label, f"{label}, with mean and 95 % interval. {means}", named=True, zero=True)


def strips(rows: Sequence[Strip], label: str, title: str, *, named: bool, zero: bool = False) -> Markup:
    """One row under the other; `named` writes each one's name above its dots, `zero` marks 0."""
    ends = [value for row in rows for _, value in row.values] + [end for row in rows for end in row.ci95 or ()]
    across = axis([*ends, 0.0] if zero else ends, label)
    down = Axis(-0.5, len(rows) - 0.5, names=("",) * len(rows))
    panel = Panel(across, down, 400, HEAD + ROW * len(rows) + FOOT, 12)
    marks = [panel.line([(0.0, down.low), (0.0, down.high)], "zero", "no difference")] if zero else []
    for place, row in zip(range(len(rows) - 1, -1, -1), rows, strict=True):
        marks += _row(panel, place, row, named)
    return panel.draw(marks, title)


def _strip(group: GroupResult, metric: str) -> Strip:
    found = group.result[metric]
    values = tuple((f"seed {seed}", value) for seed, value in group.record.values(metric).items())
    return Strip(group.name, values, found["mean"], tuple(found["ci95"]) if found["n"] > 1 else None)


def _row(panel: Panel, place: int, row: Strip, named: bool) -> Iterator[Markup]:
    if named:
        _, top = panel.at(panel.x.low, place + 0.36)
        yield Markup('<text class="arm" x="{}" y="{:.1f}">{}</text>').format(panel.left + 4, top + 4, row.name)
    for i, (tip, value) in enumerate(row.values):
        aside = ((i + 1) * GOLDEN % 1 - 0.5) * 0.26  # the same at every drawing, and never two alike
        yield panel.dot(value, place + 0.02 + aside, "plain soft", f"{row.name}, {tip}: {score(value)}", radius=4)
    if row.ci95:
        tip = f"95 % interval of the mean: {score(row.ci95[0])} to {score(row.ci95[1])}"
        yield panel.line([(end, place - 0.3) for end in row.ci95], "best interval", tip)
    yield panel.dot(row.mean, place - 0.3, "best", f"{row.name}, mean: {score(row.mean)}", radius=5)


def heat_map(group: GroupResult) -> Markup | None:
    """The adjusted Rand index between each two seeds' clusters; None where fewer than two have any."""
    found = group.result.get("agreement")
    if found is None:
        return None
    seeds, matrix = found["seeds"], found["ari"]
    size = 34 if len(seeds) <= NUMBERED else max(8, 680 // len(seeds))
    left, top = 34, 22
    numbered = len(seeds) <= NUMBERED
    marks = [
        _cell(value, (left + j * size, top + i * size), size, (seeds[i], seeds[j]), numbered)
        for i, row in enumerate(matrix)
        for j, value in enumerate(row)
        if i != j  # a seed with itself is left empty
    ]
    for i in range(0, len(seeds), 1 if numbered else max(1, 30 // size)):
        marks += row_and_column(seeds[i], (i + 0.5) * size, left, top)
    side = len(seeds) * size
    mean, least = (score(group.result["pairwise_ari"][key]) for key in ("mean", "min"))
    title = f"Adjusted Rand index between each two of {len(seeds)} seeds of {group.name}: mean {mean}, least {least}"
    return picture(left + side + 4, top + side + 4, Markup("").join([*marks, frame(left, top, side, side)]), title)


def _cell(value: float, corner: tuple[int, int], size: int, seeds: tuple[int, int], numbered: bool) -> Markup:
    """Shade: 0 and below as the ground, 1 the darkest."""
    figure = "1" if value > 0.995 else f"{value:.2f}".replace("-", "−").replace("0.", ".")
    tip = f"seeds {seeds[0]} and {seeds[1]}: {score(value)}"
    return shaded(*corner, size, DARKEST * max(0.0, value), tip, figure if numbered else "")
