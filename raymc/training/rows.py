"""What a training leaves of every sample: its cluster and confidence as text, its embedding as an array."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from raymc.atomic import replaced
from raymc.datasets.base import Dataset, Split
from raymc.metrics.clustering import as_labels, confusion
from raymc.ops.blocks import ROWS

LABELS, TEST_LABELS, EMBEDDING, CONFUSION = "labels.csv", "labels_test.csv", "embedding.npy", "confusion.csv"
FILES = (LABELS, TEST_LABELS, EMBEDDING, CONFUSION)
CONSENSUS = "consensus.csv"
DIGITS = 6  # of a confidence


def write_rows(out: Path, data: Dataset, arrays: dict[str, Tensor], z: Tensor) -> None:
    """Write `FILES`, of which the test part's and the confusion are there where their split and labels are.

    `arrays` has `labels` and `confidence` `[n]`, and the same with `test_` before them; `z` is `[n, m]`.
    """
    for name in FILES:  # of an earlier training in this folder, which may have had a test part
        (out / name).unlink(missing_ok=True)
    write_labels(out / LABELS, data.samples, arrays["labels"], arrays["confidence"])
    if "test_labels" in arrays:
        write_labels(out / TEST_LABELS, data.test_samples, arrays["test_labels"], arrays["test_confidence"])
    write_embedding(out / EMBEDDING, z)
    if data.train.y is not None:
        write_confusion(out / CONFUSION, data.train, data.classes, arrays["labels"])


def write_labels(path: Path, samples: Sequence[str] | None, labels: Tensor, confidence: Tensor) -> None:
    """A line `sample,cluster,confidence` for each of n samples; without names a sample is the number of its row."""
    names: Sequence[str | int] = range(len(labels)) if samples is None else samples
    sure = confidence.double().clamp(0, 1).tolist()
    rows = zip(names, labels.tolist(), (round(one, DIGITS) for one in sure), strict=True)
    write_csv(path, ("sample", "cluster", "confidence"), rows)


def read_samples(path: Path) -> tuple[list[str], NDArray[np.float64]]:
    """Names and confidences `[n]` of a `labels.csv`."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        found = list(csv.reader(file))[1:]
    return [row[0] for row in found], np.array([float(row[2]) for row in found])


def write_consensus(
    path: Path, samples: Sequence[str] | None, labels: NDArray[np.int64], agreement: NDArray[np.float64]
) -> None:
    """A line `sample,cluster,agreement` for each of n samples: see `raymc.metrics.consensus.evidence_accumulation`."""
    names: Sequence[str | int] = range(len(labels)) if samples is None else samples
    rows = zip(names, labels.tolist(), agreement.round(DIGITS).tolist(), strict=True)
    write_csv(path, ("sample", "cluster", "agreement"), rows)


def write_confusion(path: Path, split: Split, classes: Sequence[str] | None, labels: Tensor) -> None:
    """Samples of each cluster by class: a line for each cluster that has any, a column for each class of the labels."""
    assert split.y is not None
    shown = [str(one) if classes is None else classes[one] for one in np.unique(as_labels(split.y)).tolist()]
    clusters = np.unique(as_labels(labels)).tolist()
    counts = confusion(split.y, labels).T.tolist()
    write_csv(path, ("cluster", *shown), ([one, *row] for one, row in zip(clusters, counts, strict=True)))


def write_embedding(path: Path, z: Tensor) -> None:
    """z `[n, m]` as an .npy of float32, block by block: there is no second copy of it in memory."""
    with replaced(path) as temporary:
        out = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=tuple(z.shape))
        for start in range(0, len(z), ROWS):
            out[start : start + ROWS] = z[start : start + ROWS].detach().float().cpu().numpy()
        out.flush()
        del out


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str | int | float]]) -> None:
    """Texts are quoted, numbers are not: so a name may hold commas, quotes and line breaks, and be a number."""
    # A file's name need not be UTF-8; its bytes come back as they were.
    with (
        replaced(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        csv.writer(file, lineterminator="\n").writerow(header)
        csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").writerows(rows)
