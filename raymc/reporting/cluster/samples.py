"""The most typical and the most doubtful samples of each cluster, by name, with pictures where they are images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raymc.reporting.charts.svg import png_uri

SHOWN = 4
"""Samples of each kind."""

SIDE = 64
"""Pixels of a picture: larger images are reduced, smaller ones enlarged by whole factors."""

PICTURES = 400
"""In all, so that a page stays small: of more clusters fewer samples each."""

Thumbnails = Callable[[str], NDArray[np.uint8] | None]
"""The image `[h, w, 3]` or `[h, w]` of a sample, by its name; None where samples are no images."""


@dataclass(frozen=True)
class Shown:
    """A sample: its name, how clearly it belongs, and its picture where there is one."""

    name: str
    confidence: float
    source: str | None


@dataclass(frozen=True)
class ClusterView:
    """A cluster with the samples that stand for it; `doubtful` has none of `typical`."""

    number: int
    n: int
    share: float
    confidence: float
    typical: tuple[Shown, ...]
    doubtful: tuple[Shown, ...]


def cluster_views(
    names: Sequence[str],
    labels: NDArray[np.int64],
    confidence: NDArray[np.float64],
    embedding: NDArray[np.floating],
    thumbnail: Thumbnails,
) -> list[ClusterView]:
    """All clusters, the largest first; `names`, `labels`, `confidence` and `embedding` `[n, m]` are of n samples.

    Of equally confident ones the nearer to the cluster's mean is the more typical.
    """
    found, counts = np.unique(labels, return_counts=True)
    most = max(1, min(SHOWN, PICTURES // (2 * len(found))))

    def shown(row: int) -> Shown:
        image = thumbnail(names[row])
        return Shown(names[row], float(confidence[row]), None if image is None else picture(image))

    views = []
    for at in np.argsort(-counts, kind="stable"):
        rows = np.flatnonzero(labels == found[at])
        z = np.asarray(embedding[rows], np.float64)
        apart = np.linalg.norm(z - z.mean(0), axis=1)
        order = rows[np.lexsort((apart, -confidence[rows]))]
        typical = order[:most]
        doubtful = order[len(typical) :][::-1][:most]
        views.append(
            ClusterView(
                int(found[at]),
                len(rows),
                len(rows) / len(labels),
                float(confidence[rows].mean()),
                tuple(shown(int(row)) for row in typical),
                tuple(shown(int(row)) for row in doubtful),
            )
        )
    return views


def picture(image: NDArray[np.uint8]) -> str:
    """A small PNG as a data URI."""
    drawn = Image.fromarray(image)
    longest = max(drawn.size)
    if longest > SIDE:
        drawn.thumbnail((SIDE, SIDE))
    elif longest <= SIDE // 2:
        by = SIDE // longest
        drawn = drawn.resize((drawn.width * by, drawn.height * by), Image.Resampling.NEAREST)
    return png_uri(drawn.quantize(127) if drawn.mode == "RGB" else drawn, optimize=True)
