"""The files that one training leaves beside its record: learning curve, labels, pictures. Absent or torn: empty."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raymc.reporting.records import SeedRun, number

Arrays = Mapping[str, npt.NDArray[Any]]

SNAPSHOTS = [(1, "i"), (3, "f"), (1, "i")]
"""Axes and kind of `epochs`, `points` and `labels`."""

GEOMETRY = {
    "clusters": (1, "i"), "rank_input": (2, "i"), "rank_latent": (2, "i"), "difference_edges": (1, "f"),
    "difference_counts": (1, "i"), "difference_quartiles": (1, "f"), "input_distance": (0, "f"),
}  # fmt: skip
"""Axes and kind of its arrays."""


def read_curve(run: SeedRun) -> list[dict[str, Any]]:
    """The epoch events of one training. A torn line, the last one of a killed process, is dropped."""
    try:
        text = (run.folder / "curve.jsonl").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    events = []
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "stage" in event and number(event.get("epoch")) is not None:
            events.append(event)
    return events


def read_labels(run: SeedRun) -> Arrays:
    """`labels` int `[n]`, and `y` int `[n]` where the true labels are known."""
    return labels_in(run.folder)


def labels_in(folder: Path) -> Arrays:
    """`read_labels` of the training in a folder."""
    found = _arrays(folder / "labels.npz", ("labels", "y"))
    return found if "labels" in found and all(a.ndim == 1 and a.size for a in found.values()) else {}


def read_gallery(run: SeedRun) -> Arrays:
    """`images` uint8 `[k, components, m, h, w, c]` with c 1 or 3, `shares` `[k]` of the samples, `clusters` `[k]`."""
    found = dict(_arrays(run.folder / "gallery.npz", ("images", "shares", "clusters")))
    images = found.get("images")
    if images is None or images.ndim != 6 or images.shape[-1] not in (1, 3) or not images.size:
        return {}
    k = len(images)
    found.setdefault("shares", np.full(k, np.nan))
    found.setdefault("clusters", np.arange(k))
    return found if len(found["shares"]) == len(found["clusters"]) == k else {}


def read_similarity(run: SeedRun) -> Arrays:
    """`map` uint8 `[m, m]`, `bounds` int `[k + 1]` from 0 to m, `clusters` int `[k]`."""
    found = _arrays(run.folder / "similarity.npz", ("map", "bounds", "clusters"))
    if [(array.ndim, array.dtype.kind) for array in found.values()] != [(2, "u"), (1, "i"), (1, "i")]:
        return {}
    (m, across), bounds = found["map"].shape, found["bounds"]
    fits = m == across and len(bounds) == len(found["clusters"]) + 1 > 1 and (bounds[0], bounds[-1]) == (0, m)
    return found if fits and (np.diff(bounds) > 0).all() else {}


def read_snapshots(run: SeedRun) -> Arrays:
    """`epochs` int `[e]`, rising, `points` float `[e, n, m]`, `labels` int `[n]`, and `y` int `[n]` where known."""
    found = dict(_arrays(run.folder / "snapshots.npz", ("epochs", "points", "labels", "y")))
    if [(array.ndim, array.dtype.kind) for array in found.values()] not in (SNAPSHOTS, [*SNAPSHOTS, (1, "i")]):
        return {}
    (e, n, across), epochs = found["points"].shape, found["epochs"]
    fits = e == len(epochs) and {n} == {len(found[name]) for name in ("labels", "y") if name in found}
    rises = (epochs[:1] >= 0).all() and (np.diff(epochs) > 0).all()
    return found if fits and across > 1 and e * n and rises and np.isfinite(found["points"]).all() else {}


def read_geometry(run: SeedRun) -> Arrays:
    """What `raymc.metrics.rank_isometry` found: C clusters and their ranks, and a histogram of b bins."""
    found = _arrays(run.folder / "geometry.npz", tuple(GEOMETRY))
    if [(array.ndim, array.dtype.kind) for array in found.values()] != list(GEOMETRY.values()):
        return {}
    clusters, edges, counts = (found[name] for name in ("clusters", "difference_edges", "difference_counts"))
    square = {found[name].shape for name in ("rank_input", "rank_latent")} == {(len(clusters), len(clusters))}
    fits = square and len(clusters) and len(edges) == len(counts) + 1 > 1 and found["difference_quartiles"].size == 3
    return found if fits and (np.diff(edges) > 0).all() and (counts >= 0).all() else {}


def _arrays(path: Path, names: tuple[str, ...]) -> Arrays:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in names if name in archive.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}
