"""The embedding at several epochs of a training: one small picture each, coloured by class or cluster.

Shapes: e epochs, n points.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from raymc.clusterers.tsne import tsne_series
from raymc.reporting.charts.svg import picture
from raymc.reporting.words import count
from raymc.training.outputs import Arrays

BUDGET = 12_000
"""Points of all pictures together, about 10 bytes each."""

COLOURS = 10
"""Classes of colour in the style sheet; of more groups some share one."""

MOST_NAMES = 20
"""Groups up to which each has its name written on it."""

SIDE, MARGIN = 200, 8
FINE = 4
"""Places of a pixel."""


@dataclass(frozen=True)
class StagePictures:
    """`(caption, picture)` of each epoch, what the colours are, and in words what was left out."""

    panels: tuple[tuple[str, Markup], ...]
    points: int
    by: str
    note: str


def build_stages(arrays: Arrays) -> StagePictures | None:
    """The pictures of `artefacts.read_snapshots`, None where there are none."""
    if "points" not in arrays:
        return None
    epochs, points = arrays["epochs"].tolist(), tsne_series(arrays["points"])
    by = "class" if "y" in arrays else "cluster"
    rows = _thinned(points.shape[1], BUDGET // len(epochs))
    groups = arrays["y" if by == "class" else "labels"][rows]
    names = np.unique(groups)
    panels = tuple(
        (_caption(epoch), _plot(epoch, _placed(flat[rows]), groups, names, by))
        for epoch, flat in zip(epochs, points, strict=True)
    )
    return StagePictures(panels, len(rows), by, _note(len(names), len(rows), points.shape[1], by))


def _caption(epoch: int) -> str:
    return f"Epoch {epoch:,}" if epoch else "Before fine-tuning"


def _note(groups: int, shown: int, n: int, by: str) -> str:
    parts = []
    if shown < n:
        parts.append(f"Shown: {shown:,} of {n:,} points.")
    if groups > COLOURS:
        plural = "classes" if by == "class" else "clusters"
        parts.append(f"{groups} {plural} share {COLOURS} colours; a point's name shows on hovering.")
    return " ".join(parts)


def _thinned(n: int, most: int) -> npt.NDArray[np.int64]:
    """At most `most` of n places, drawn: evenly spaced ones could miss groups that take turns."""
    return np.sort(np.random.default_rng(0).permutation(n)[: max(1, most)])


def _placed(points: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Points `[n, 2]` as places of a picture, both axes on one scale and the whole in its middle."""
    flat = points.astype(np.float64)
    low, high = flat.min(0), flat.max(0)
    scale = (SIDE - 2 * MARGIN) * FINE / ((high - low).max() or 1.0)
    placed: npt.NDArray[np.int64] = ((flat - (low + high) / 2) * (scale, -scale) + SIDE * FINE / 2).round().astype(int)
    return placed


def _plot(
    epoch: int, places: npt.NDArray[np.int64], groups: npt.NDArray[np.int64], names: npt.NDArray[np.int64], by: str
) -> Markup:
    sets = [(int(name), i % COLOURS, places[groups == name]) for i, name in enumerate(names)]
    dots = Markup("").join(_dots(f"{by} {name}", colour, some) for name, colour, some in sets)
    inside = Markup('<g class="dots" transform="scale({})">{}</g>').format(1 / FINE, dots)
    if len(sets) <= MOST_NAMES:
        inside += Markup("").join(_written(sets))
    said = count(len(names), by, "classes" if by == "class" else "")
    title = f"The embedding {f'after epoch {epoch}' if epoch else 'before fine-tuning'}: {len(places):,} points, {said}"
    return picture(SIDE, SIDE, inside, title)


def _dots(name: str, colour: int, places: npt.NDArray[np.int64]) -> Markup:
    """Lines of no length with round ends: a third of what circles would take."""
    path = "".join(f"M{x} {y}h0" for x, y in places.tolist())
    return Markup('<path class="hue{}" d="{}"><title>{}</title></path>').format(colour, path, name)


def _written(sets: list[tuple[int, int, npt.NDArray[np.int64]]]) -> Iterator[Markup]:
    for name, _, places in sets:
        x, y = np.median(places, axis=0) / FINE
        yield Markup('<text class="name mid" x="{:.0f}" y="{:.0f}">{}</text>').format(x, y + 5, name)
