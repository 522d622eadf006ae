"""Samples of each cluster along its principal components, as one small PNG per cluster.

Shape legend: k clusters, p components, m samples of a component, h x w pixels, c channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from raymc.reporting.charts.svg import png_uri
from raymc.training.outputs import Arrays

BUDGET = 2_000_000
"""Characters that all sprites of a report may take."""

GAP, ROW_GAP = 2, 8
COLOURS = 127
"""Of a sprite, beside the clear one of the gaps."""

SMALLEST, LARGEST = 28, 64
"""Pixels of a shown sample: smaller ones are enlarged by whole factors, larger ones reduced."""

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Sprite:
    """One cluster's picture: a row per component, the samples closest to it from left to right."""

    cluster: int
    share: float | None
    source: str
    width: int
    height: int


@dataclass(frozen=True)
class Gallery:
    """The sprites of all clusters, and in words what was left out to keep the page small."""

    sprites: tuple[Sprite, ...]
    components: int
    samples: int
    note: str


def build_gallery(arrays: Arrays, budget: int = BUDGET) -> Gallery | None:
    """The gallery of `artefacts.read_gallery`, None where there is none.

    Components, then samples, then the size of a sample are halved until the sprites fit into `budget` characters.
    """
    if "images" not in arrays:
        return None
    images = np.asarray(arrays["images"], dtype=np.uint8)
    named = list(zip(arrays["clusters"].tolist(), arrays["shares"].tolist(), images, strict=True))
    for components, samples, largest in _smaller(images):
        sprites = [_sprite(name, share, sheet[:components, :samples], largest) for name, share, sheet in named]
        if sum(len(sprite.source) for sprite in sprites) <= budget:
            break
    return Gallery(tuple(sprites), components, samples, _left_out(images, components, samples, largest))


def _smaller(images: Images) -> Iterator[tuple[int, int, int]]:
    components, samples, largest = images.shape[1], images.shape[2], LARGEST
    while True:
        yield components, samples, largest
        if components > 4:
            components = max(4, components // 2)
        elif samples > 5:
            samples = max(5, samples // 2)
        elif largest > 16:
            largest //= 2
        elif components * samples > 1:
            components, samples = max(1, components // 2), max(1, samples // 2)
        else:
            return


def _left_out(images: Images, components: int, samples: int, largest: int) -> str:
    _, p, m, h, w, _ = images.shape
    parts = []
    if components < p:
        parts.append(f"the first {components} of {p} components")
    if samples < m:
        parts.append(f"{samples} of {m} samples each")
    if max(h, w) > largest:
        parts.append(f"samples reduced to {largest} pixels")
    return "Shown: " + ", ".join(parts) + "." if parts else ""


def _sprite(cluster: int, share: float, images: Images, largest: int) -> Sprite:
    """`images [p, m, h, w, c]` as one picture, with clear gaps between samples and wider ones between components."""
    p, m, h, w, c = images.shape
    width, height = _shown_size(h, w, largest)
    across, down = m * (width + GAP) - GAP, p * (height + ROW_GAP) - ROW_GAP
    sheet = Image.new("RGB" if c == 3 else "L", (across, down))
    gaps = np.ones((down, across), dtype=bool)
    for row, column in np.ndindex(p, m):
        sample = Image.fromarray(images[row, column] if c == 3 else images[row, column, ..., 0])
        how = Image.Resampling.NEAREST if width >= w else Image.Resampling.BOX
        left, top = column * (width + GAP), row * (height + ROW_GAP)
        sheet.paste(sample.resize((width, height), how), (left, top))
        gaps[top : top + height, left : left + width] = False
    return Sprite(int(cluster), share if math.isfinite(share) else None, _png(sheet, gaps), across, down)


def _shown_size(h: int, w: int, largest: int) -> tuple[int, int]:
    if max(h, w) > largest:
        scale = largest / max(h, w)
        return max(1, round(w * scale)), max(1, round(h * scale))
    zoom = max(1, -(-min(SMALLEST, largest) // max(h, w)))
    return w * zoom, h * zoom


def _png(sheet: Image.Image, gaps: npt.NDArray[np.bool_]) -> str:
    """A data URI. A palette takes a third of the size of full colour, and the samples stay recognisable."""
    if sheet.mode == "L":
        palette = [grey for level in range(COLOURS) for grey in [round(255 * level / (COLOURS - 1))] * 3]
        places = (np.asarray(sheet).astype(np.uint16) * (COLOURS - 1) + 127) // 255
    else:
        reduced = sheet.quantize(COLOURS, method=Image.Quantize.FASTOCTREE)
        palette, places = (reduced.getpalette() or [])[: 3 * COLOURS], np.asarray(reduced)
    clear = Image.fromarray(np.where(gaps, COLOURS, places).astype(np.uint8))
    clear.putpalette(palette + [0] * (3 * (COLOURS + 1) - len(palette)))
    return png_uri(clear, transparency=COLOURS)
