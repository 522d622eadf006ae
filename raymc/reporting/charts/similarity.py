"""The cosines between points of an embedding as one picture, points in the order of their clusters.

Shapes: m points, k clusters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image

from raymc.reporting.charts.svg import frame, picture, png_uri, row_and_column, tick
from raymc.training.outputs import Arrays

LEVELS = 64
"""Shades of the picture: more are not told apart and would double its size."""

RAMP = ((11, 18, 32), (41, 112, 196), (240, 246, 255))
"""Colours of the cosines 0, 1/2 and 1: one hue, equally spaced in lightness, legible on light and on dark ground."""

SIDE = 512
LEFT, TOP, BAR = 34, 24, 12
LEAST_GAP = 16.0
"""Pixels between the names of two clusters, below which the smaller one's is left out."""


@dataclass(frozen=True)
class SimilarityMap:
    """The picture with the bounds of its clusters, and how many points and clusters it shows."""

    plot: Markup
    points: int
    clusters: int


def build_similarity(arrays: Arrays) -> SimilarityMap | None:
    """The map of `artefacts.read_similarity`, None where there is none."""
    if "map" not in arrays:
        return None
    levels, bounds, clusters = arrays["map"], arrays["bounds"] / len(arrays["map"]), arrays["clusters"].tolist()
    sharp = "map sharp" if len(levels) <= SIDE // 2 else "map"  # few points: squares, not a blur
    marks = [
        _image(levels, sharp, (LEFT, TOP, SIDE, SIDE)),
        frame(LEFT, TOP, SIDE, SIDE),
        *_bounds(bounds[1:-1].tolist()),
        *_names(bounds, clusters),
        *_scale(LEFT + SIDE + 18),
    ]
    title = f"|cosine| between {len(levels)} points of {len(clusters)} clusters, in the order of the clusters"
    plot = picture(LEFT + SIDE + 70, TOP + SIDE + 6, Markup("").join(marks), title)
    return SimilarityMap(plot, len(levels), len(clusters))


def png(levels: npt.NDArray[np.uint8]) -> str:
    """A data URI of `levels` `[h, w]` (255: cosine 1) in the colours of RAMP."""
    image = Image.fromarray(((levels.astype(np.uint16) * (LEVELS - 1) + 127) // 255).astype(np.uint8))
    places = np.linspace(0, 1, LEVELS)
    colours = [np.interp(places, (0, 0.5, 1), channel) for channel in zip(*RAMP, strict=True)]
    image.putpalette(np.stack(colours, 1).round().astype(np.uint8).tobytes())
    return png_uri(image, optimize=True)


def _image(levels: npt.NDArray[np.uint8], css: str, box: tuple[float, float, float, float]) -> Markup:
    return Markup(
        '<image class="{}" href="{}" x="{}" y="{}" width="{}" height="{}" preserveAspectRatio="none"/>'
    ).format(css, png(levels), *box)


def _bounds(inner: list[float]) -> Iterator[Markup]:
    """A tick outside the map, at the left and on top, where one cluster ends and the next begins."""
    for bound in inner:
        across, down = LEFT + SIDE * bound, TOP + SIDE * bound
        yield Markup('<path class="bound" d="M{} {:.1f}h-6M{:.1f} {}v-6"/>').format(LEFT, down, across, TOP)


def _names(bounds: npt.NDArray[np.float64], clusters: list[int]) -> Iterator[Markup]:
    last = -LEAST_GAP
    for cluster, middle in zip(clusters, SIDE * (bounds[1:] + bounds[:-1]) / 2, strict=True):
        if middle - last < LEAST_GAP * max(1.0, len(str(cluster)) / 2):
            continue
        last = middle
        yield from row_and_column(cluster, middle, LEFT, TOP)


def _scale(left: float) -> Iterator[Markup]:
    """Which shade is which cosine."""
    yield _image(np.arange(255, -1, -5, dtype=np.uint8)[:, None], "map", (left, TOP, BAR, SIDE))
    yield frame(left, TOP, BAR, SIDE)
    for value in (0, 0.5, 1):
        yield tick(value, left + BAR + 6, TOP + SIDE * (1 - value) + {0: 0, 0.5: 4, 1: 9}[value])
