"""Files that a training leaves in its output folder; each is written whole or not at all."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

GALLERY_COMPONENTS = 6
GALLERY_IMAGES = 8
GALLERY_SIDE = 32  # pixels: larger images are reduced, so that a report stays small
GALLERY_CLUSTERS = 20


def write_json(path: Path, content: object) -> None:
    """Write strict JSON (no NaN) atomically."""
    write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def write_curve(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one JSON object a line."""
    write_bytes(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def write_arrays(path: Path, arrays: Mapping[str, Tensor]) -> None:
    """Write tensors as a compressed npz."""
    temporary = _temporary(path)
    with temporary.open("wb") as file:
        np.savez_compressed(file, **{name: value.cpu().numpy() for name, value in arrays.items()})  # type: ignore[arg-type]
    os.replace(temporary, path)


def write_model(path: Path, content: Mapping[str, Any]) -> None:
    """Write weights and their configuration, to be read with `torch.load(path, weights_only=True)`."""
    temporary = _temporary(path)
    torch.save(dict(content), temporary)
    os.replace(temporary, path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write to a temporary name and rename."""
    temporary = _temporary(path)
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


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


def _reduced(images: Tensor) -> Tensor:
    if max(images.shape[2:]) <= GALLERY_SIDE:
        return images
    size = (GALLERY_SIDE, GALLERY_SIDE)
    small = torch.nn.functional.interpolate(images.float(), size, mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8)


def _temporary(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
