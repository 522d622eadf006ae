"""Files that a training leaves in its output folder: each is written whole or not at all, and read as empty where it is
absent or torn."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raymc.atomic import json_rows, replaced, write_text

GALLERY_COMPONENTS = 6
GALLERY_IMAGES = 8
GALLERY_SIDE = 32  # pixels: larger images are reduced, so that a report stays small
GALLERY_CLUSTERS = 20
MAP_POINTS = 512  # of a similarity map: as many pixels as a report shows one to one

Arrays = Mapping[str, npt.NDArray[Any]]

SNAPSHOTS = [(1, "i"), (3, "f"), (1, "i")]
"""Axes and kind of `epochs`, `points` and `labels`."""

GEOMETRY = {
    "clusters": (1, "i"), "rank_input": (2, "i"), "rank_latent": (2, "i"), "difference_edges": (1, "f"),
    "difference_counts": (1, "i"), "difference_quartiles": (1, "f"), "input_distance": (0, "f"),
}  # fmt: skip
"""Axes and kind of its arrays."""


def write_curve(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one JSON object a line."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def write_arrays(path: Path, arrays: Mapping[str, Tensor]) -> None:
    """Write tensors as a compressed npz."""
    with replaced(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **{name: value.cpu().numpy() for name, value in arrays.items()})  # type: ignore[arg-type]


def gallery(images: Tensor, z: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Per cluster, the images nearest to each of its principal components (NMCE figure 2).

    `images` uint8 `[n, c, h, w]`, `z` unit rows `[n, d]`, `labels` `[n]`. Returns `images` uint8
    `[k, components, m, h, w, c]`, `shares` `[k]` and `clusters` `[k]`, the largest clusters first;
    a cluster of fewer points repeats its nearest ones.
    """
    found, counts = torch.unique(labels, return_counts=True)
    largest = counts.argsort(descending=True, stable=True)[:GALLERY_CLUSTERS]
    small = _reduced(images)
    panels = []
    for cluster in found[largest].tolist():
        rows = (labels == cluster).nonzero().squeeze(1)
        _, _, axes = torch.linalg.svd(z[rows], full_matrices=False)
        near = (z[rows] @ axes[:GALLERY_COMPONENTS].T).abs()
        order = near.argsort(dim=0, descending=True, stable=True).T
        pick = torch.arange(GALLERY_IMAGES) % order.shape[1]
        components = torch.arange(GALLERY_COMPONENTS) % order.shape[0]
        panels.append(small[rows[order[components][:, pick]]].movedim(2, -1))
    shares = counts[largest] / len(labels)
    return {"images": torch.stack(panels), "shares": shares, "clusters": found[largest]}


def similarity_map(z: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """|cos(z_i, z_j)| of at most 512 points in the order of their clusters, the largest first (MLC figures 4 and 6).

    `z` `[n, d]`, `labels` `[n]`. Each cluster has its share of the points, evenly drawn, and at least one where there
    are points enough. Returns `map` uint8 `[m, m]` (255: cosine 1), `bounds` int64 `[k + 1]`, where clusters begin
    and end, and `clusters` int64 `[k]`, their labels.
    """
    found, counts = torch.unique(labels.long(), return_counts=True)
    largest = counts.argsort(descending=True, stable=True)[:MAP_POINTS]
    found, counts = found[largest], counts[largest]
    seats = _seats(counts, MAP_POINTS)
    chosen = [
        (labels == cluster).nonzero().squeeze(1)[torch.arange(seat) * count // seat]
        for cluster, count, seat in zip(found.tolist(), counts.tolist(), seats.tolist(), strict=True)
    ]
    rows = torch.nn.functional.normalize(z[torch.cat(chosen)].double(), dim=1)
    similar = (rows @ rows.mT).abs()
    similar = (similar + similar.mT) / 2  # a product may round the two halves differently
    bounds = torch.cat([torch.zeros(1, dtype=torch.int64), seats.cumsum(0)])
    return {"map": (255 * similar).round().clamp(0, 255).to(torch.uint8), "bounds": bounds, "clusters": found}


def snapshots(found: Mapping[int, Tensor]) -> dict[str, Tensor]:
    """An embedding at several epochs: `epochs` int64 `[e]`, rising, and `points` float32 `[e, n, m]`.

    `found` has `[n, m]` of the same n samples by epoch, 0 being before the first. The report makes the picture.
    """
    epochs = sorted(found)
    points = torch.stack([found[epoch].detach().cpu().float() for epoch in epochs])
    return {"epochs": torch.tensor(epochs, dtype=torch.int64), "points": points}


def _seats(counts: Tensor, most: int) -> Tensor:
    """How many of the `counts` `[k]` points of each cluster are drawn: one, and its share of what `most` leaves."""
    n, k = int(counts.sum()), len(counts)
    if n <= most:
        return counts
    before = torch.cat([counts.new_zeros(1), (counts - 1).cumsum(0)])
    return 1 + (before * (most - k) // max(1, n - k)).diff()


def _reduced(images: Tensor) -> Tensor:
    if max(images.shape[2:]) <= GALLERY_SIDE:
        return images
    size = (GALLERY_SIDE, GALLERY_SIDE)
    small = torch.nn.functional.interpolate(images.float(), size, mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8)


def read_curve(folder: Path) -> list[dict[str, Any]]:
    """The epoch events of one training. A torn line, the last one of a killed process, is dropped."""
    try:
        lines = (folder / "curve.jsonl").read_bytes().split(b"\n")
    except OSError:
        return []
    return [event for event in json_rows(lines) if "stage" in event and isinstance(event.get("epoch"), int)]


def read_labels(folder: Path) -> Arrays:
    """`labels` int `[n]`, and `y` int `[n]` where the true labels are known."""
    found = _arrays(folder / "labels.npz", ("labels", "y"))
    return found if "labels" in found and all(a.ndim == 1 and a.size for a in found.values()) else {}


def read_gallery(folder: Path) -> Arrays:
    """`images` uint8 `[k, components, m, h, w, c]` with c 1 or 3, `shares` `[k]` of the samples, `clusters` `[k]`."""
    found = dict(_arrays(folder / "gallery.npz", ("images", "shares", "clusters")))
    images = found.get("images")
    if images is None or images.ndim != 6 or images.shape[-1] not in (1, 3) or not images.size:
        return {}
    k = len(images)
    found.setdefault("shares", np.full(k, np.nan))
    found.setdefault("clusters", np.arange(k))
    return found if len(found["shares"]) == len(found["clusters"]) == k else {}


def read_similarity(folder: Path) -> Arrays:
    """`map` uint8 `[m, m]`, `bounds` int `[k + 1]` from 0 to m, `clusters` int `[k]`."""
    found = _arrays(folder / "similarity.npz", ("map", "bounds", "clusters"))
    if [(array.ndim, array.dtype.kind) for array in found.values()] != [(2, "u"), (1, "i"), (1, "i")]:
        return {}
    (m, across), bounds = found["map"].shape, found["bounds"]
    fits = m == across and len(bounds) == len(found["clusters"]) + 1 > 1 and (bounds[0], bounds[-1]) == (0, m)
    return found if fits and (np.diff(bounds) > 0).all() else {}


def read_snapshots(folder: Path) -> Arrays:
    """`epochs` int `[e]`, rising, `points` float `[e, n, m]`, `labels` int `[n]`, and `y` int `[n]` where known."""
    found = dict(_arrays(folder / "snapshots.npz", ("epochs", "points", "labels", "y")))
    if [(array.ndim, array.dtype.kind) for array in found.values()] not in (SNAPSHOTS, [*SNAPSHOTS, (1, "i")]):
        return {}
    (e, n, across), epochs = found["points"].shape, found["epochs"]
    fits = e == len(epochs) and {n} == {len(found[name]) for name in ("labels", "y") if name in found}
    rises = (epochs[:1] >= 0).all() and (np.diff(epochs) > 0).all()
    return found if fits and across > 1 and e * n and rises and np.isfinite(found["points"]).all() else {}


def read_geometry(folder: Path) -> Arrays:
    """What `raymc.metrics.rank_isometry` found: C clusters and their ranks, and a histogram of b bins."""
    found = _arrays(folder / "geometry.npz", tuple(GEOMETRY))
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
