"""True classes against clusters, each cluster under the class that the Hungarian method gave it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from raymc.metrics import confusion, hungarian_match
from raymc.reporting.charts.svg import frame, picture, shaded, tick
from raymc.reporting.words import listing
from raymc.study.records import SeedRun
from raymc.training.outputs import read_labels

Numbers = npt.NDArray[Any]

SMALLEST_SHARE = 0.005
"""Share of a class below which a cell stays empty."""


SMALL = 12
"""Classes up to which the picture may shrink with the window; larger ones scroll."""


@dataclass(frozen=True)
class Confusion:
    """The matrix as a picture, and its largest entries off the diagonal in words."""

    plot: Markup
    words: str
    small: bool


def confusion_matrix(run: SeedRun) -> Confusion | None:
    """The matrix of one training; None where its labels or the true ones are not there."""
    found = read_labels(run.folder)
    if "y" not in found or len(found["y"]) != len(found["labels"]):
        return None
    counts, classes, clusters = matched(found["y"], found["labels"])
    shares = counts / counts.sum(1, keepdims=True)
    said = _words(run, shares, classes, clusters, int(counts.sum()))
    return Confusion(_plot(shares, classes, clusters), said, small=max(shares.shape) <= SMALL)


def matched(y: Numbers, labels: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Counts `[classes, clusters]`, the classes' and the clusters' numbers: matched pairs first, on the diagonal.

    `y` and `labels` are `[n]`. Pairs stand in the order of the classes, what stays unmatched behind them.
    """
    counts = confusion(y, labels)
    pairs = hungarian_match(counts)
    places = [
        np.concatenate([pair, np.setdiff1d(np.arange(n), pair)]) for pair, n in zip(pairs, counts.shape, strict=True)
    ]
    return counts[np.ix_(*places)], np.unique(y)[places[0]], np.unique(labels)[places[1]]


def _words(run: SeedRun, shares: Numbers, classes: Numbers, clusters: Numbers, n: int) -> str:
    off = shares.copy()
    np.fill_diagonal(off, 0)
    largest = [np.unravel_index(place, off.shape) for place in np.argsort(-off, axis=None)[:3]]
    off_words = [
        f"{100 * off[i, j]:.0f} % of class {classes[i]} in cluster {clusters[j]}"
        for i, j in largest
        if off[i, j] >= 0.02
    ]
    found = (
        f"Largest disagreements: {listing(off_words)}." if off_words else "No class has 2 % or more in another cluster."
    )
    return f"Seed {run.seed}, {n:,} samples. {found}"


def _plot(shares: Numbers, classes: Numbers, clusters: Numbers) -> Markup:
    rows, columns = shares.shape
    cell = 36 if max(shares.shape) <= SMALL else 26 if max(shares.shape) <= 25 else 9
    left, top, numbers = 40, 24, cell > 20
    marks = [
        _cell(float(share), (left + j * cell, top + i * cell), (classes[i], clusters[j]), cell, numbers)
        for (i, j), share in np.ndenumerate(shares)
        if share >= SMALLEST_SHARE
    ]
    step = 1 if numbers else 10
    names = [tick(classes[i], left - 6, top + (i + 0.5) * cell + 4, "end") for i in range(0, rows, step)]
    names += [tick(clusters[j], left + (j + 0.5) * cell, top - 7, "mid") for j in range(0, columns, step)]
    inside = Markup("").join((*marks, frame(left, top, columns * cell, rows * cell), *names))
    title = f"Confusion matrix of {rows} classes and {columns} clusters"
    return picture(left + columns * cell + 8, top + rows * cell + 8, inside, title)


def _cell(share: float, corner: tuple[int, int], names: tuple[Any, Any], size: int, numbers: bool) -> Markup:
    tip = f"class {names[0]}, cluster {names[1]}: {100 * share:.1f} %"
    return shaded(*corner, size, share, tip, round(100 * share) if numbers else "", over=share > 0.55)
