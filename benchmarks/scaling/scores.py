"""Measured on this machine's CPU: what a training computes of its embedding at an evaluation, and when it ends.

CPU seconds of one thread, medians: unlike those on the wall they say the same on a busy machine. With a head that
assigns, at the sizes of NMCE on CIFAR: 50,000 rows of 128 in 20 clusters. The forward passes are not among them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.scaling.counts import CLUSTERS, IMAGE, IMAGES
from raymc.datasets.base import Split
from raymc.metrics.label_free import label_free_scores, reduced, reference_rows, reference_space
from raymc.metrics.spectra import group_spectra
from raymc.metrics.subspace import subspace_tables
from raymc.training import evaluate, outputs

WIDTH, RANK, TIMES = 128, 8, 3
"""Columns of z, dimensions of a cluster's subspace, repetitions."""

Parts = dict[str, Callable[[], object]]


def measured_scores(rows: int = IMAGES) -> dict[str, dict[str, float]]:
    """CPU seconds of each part of an `evaluation` and of the `end` of a training, of an embedding of so many rows."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            sides = _parts(*_drawn(rows), Path(folder))
            return {side: {name: _seconds(part) for name, part in parts.items()} for side, parts in sides.items()}
    finally:
        torch.set_num_threads(threads)


def _parts(images: Tensor, z: Tensor, labels: Tensor, y: Tensor, folder: Path) -> dict[str, Parts]:
    some = reference_rows(len(z))
    space = reference_space(reduced(images[some].float() / 255))  # once for all trainings of a process
    evaluation: Parts = {
        "ranks and coding rates": lambda: group_spectra(z, labels, y),
        "labels": lambda: evaluate.scores(Split(z, y), labels),
    }
    end: Parts = {
        "ranks and coding rates": lambda: group_spectra(z, labels),
        "geometry": lambda: subspace_tables(z, labels, y, *group_spectra(z, labels)),
        "reference space": lambda: label_free_scores(space, labels[some]),
        "gallery": lambda: outputs.write_arrays(folder / "gallery.npz", outputs.gallery(images, z, labels)),
        "similarity": lambda: outputs.write_arrays(folder / "similarity.npz", outputs.similarity_map(z, labels)),
    }
    return {"evaluation": evaluation, "end": end}


def _drawn(rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, unit rows near a subspace for each class, found labels of which six in ten are right, and classes."""
    draws = torch.Generator().manual_seed(0)
    y = torch.randint(CLUSTERS, (rows,), generator=draws)
    bases = torch.randn(CLUSTERS, RANK, WIDTH, generator=draws)
    z = 0.05 * torch.randn(rows, WIDTH, generator=draws)
    for cluster, basis in enumerate(bases):
        mine = y == cluster
        z[mine] += torch.randn(int(mine.sum()), RANK, generator=draws) @ basis
    labels = torch.where(torch.rand(rows, generator=draws) < 0.6, y, torch.randint(CLUSTERS, (rows,), generator=draws))
    images = torch.randint(256, (rows, *IMAGE), dtype=torch.uint8, generator=draws)
    return images, functional.normalize(z, dim=1), labels, y


@torch.no_grad()
def _seconds(part: Callable[[], object]) -> float:
    """CPU seconds of a part, once it has run."""
    found = []
    for _ in range(TIMES + 1):
        begun = time.process_time()
        part()
        found.append(time.process_time() - begun)
    return statistics.median(found[1:])
