"""What an embedding keeps: the ranks of clusters by their distance, and the distances between neighbours.

Shapes: C clusters, b bins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from raymc.reporting.charts.svg import Axis, Panel, frame, picture, row_and_column
from raymc.training.outputs import Arrays

SMALL = 12
"""Clusters up to which each cell says its ranks on hovering."""

SIDE, LEFT, TOP = 300, 34, 24
LEAST_GAP = 16.0
"""Pixels between the names of two clusters."""


@dataclass(frozen=True)
class RankIsometry:
    """The grid of ranks with CRA, and the histogram of differences with what it says."""

    grid: Markup
    same: int
    cells: int
    histogram: Markup
    differences: str

    @property
    def cra(self) -> float:
        """Share of the ranks that are the same in both spaces."""
        return self.same / self.cells


def build_rank_isometry(arrays: Arrays) -> RankIsometry | None:
    """The charts of `artefacts.read_geometry`, None where there are none."""
    if "rank_input" not in arrays:
        return None
    ranks = arrays["rank_input"], arrays["rank_latent"]
    same = ranks[0] == ranks[1]
    edges, counts = arrays["difference_edges"].astype(np.float64), arrays["difference_counts"]
    return RankIsometry(
        _grid(same, ranks, arrays["clusters"].tolist()), int(same.sum()), same.size,
        _histogram(edges, counts), _differences(arrays, int(counts.sum())),
    )  # fmt: skip


def _grid(same: npt.NDArray[np.bool_], ranks: tuple[npt.NDArray[np.int64], ...], clusters: list[int]) -> Markup:
    cell = SIDE / len(same)
    marks = [
        frame(LEFT, TOP, SIDE, SIDE, "ground"),
        *(_cells(same, ranks, clusters, cell) if len(same) <= SMALL else [_runs(same, cell)]),
        frame(LEFT, TOP, SIDE, SIDE),
        *_names(clusters, cell),
    ]
    title = f"{same.sum()} of {same.size} ranks between {len(same)} clusters are the same in both spaces"
    return picture(LEFT + SIDE + 8, TOP + SIDE + 8, Markup("").join(marks), title)


def _cells(
    same: npt.NDArray[np.bool_], ranks: tuple[npt.NDArray[np.int64], ...], clusters: list[int], cell: float
) -> Iterator[Markup]:
    for i, j in np.ndindex(same.shape):
        yield Markup(
            '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
        ).format(
            "same" if same[i, j] else "moved", LEFT + j * cell + 0.5, TOP + i * cell + 0.5, cell - 1, cell - 1,
            f"from cluster {clusters[i]}, cluster {clusters[j]} has rank {ranks[0][i, j]} in the input and "
            f"{ranks[1][i, j]} in the embedding",
        )  # fmt: skip


def _runs(same: npt.NDArray[np.bool_], cell: float) -> Markup:
    """Cells of a row side by side as one shape: a hundred clusters have ten thousand."""
    parts = []
    for i, row in enumerate(same):
        turns = np.flatnonzero(np.diff(np.concatenate([[0], row, [0]])))
        top = f"{TOP + i * cell:.1f}"
        for begin, end in turns.reshape(-1, 2).tolist():
            parts.append(
                f"M{LEFT + begin * cell:.1f} {top}h{(end - begin) * cell:.1f}v{cell:.1f}H{LEFT + begin * cell:.1f}z"
            )
    return Markup('<path class="same" d="{}"/>').format("".join(parts))


def _names(clusters: list[int], cell: float) -> Iterator[Markup]:
    step = max(1, -(-LEAST_GAP * max(1.0, len(str(max(clusters))) / 2) // cell))
    for i, cluster in list(enumerate(clusters))[:: int(step)]:
        yield from row_and_column(cluster, (i + 0.5) * cell, LEFT, TOP)


def _histogram(edges: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]) -> Markup:
    shares = 100 * counts / max(1, counts.sum())
    x = Axis(float(edges[0]), float(edges[-1]), "distance in the embedding − in the input")
    panel = Panel(x, Axis(0, float(shares.max()) * 1.05 or 1.0, "% of pairs"), 400, 324)
    bars = [
        _bar(panel, float(low), float(high), float(share))
        for low, high, share in zip(edges[:-1], edges[1:], shares, strict=True)
        if share > 0
    ]
    zero = panel.line([(0, panel.y.low), (0, panel.y.high)], "zero", "no difference")
    return panel.draw([*bars, zero], "Histogram of the differences of neighbours' distances")


def _bar(panel: Panel, low: float, high: float, share: float) -> Markup:
    (left, top), (right, foot) = panel.at(low, share), panel.at(high, 0)
    return Markup(
        '<rect class="bar" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
        "<title>{:.3g} to {:.3g}: {:.1f} %</title></rect>"
    ).format(left, top, max(0.5, right - left - 0.5), foot - top, low, high, share)


def _differences(arrays: Arrays, pairs: int) -> str:
    low, middle, high = (f"{value:.3g}".replace("-", "−") for value in arrays["difference_quartiles"].tolist())
    return (
        f"{pairs:,} pairs of a sample and one of its nearest in the input, where such are "
        f"{float(arrays['input_distance']):.3g} apart (median). Median difference {middle}, half of them between {low} "
        f"and {high}."
    )
