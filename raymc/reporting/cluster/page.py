"""Writes what `raymc cluster` leaves: labels by name, embedding, configuration, consensus, and the report."""

from __future__ import annotations

import csv
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raymc import datasets
from raymc.atomic import copy_file, write_json, write_text
from raymc.datasets import Dataset
from raymc.datasets.own import read_own
from raymc.errors import InputError
from raymc.masking import masked_words
from raymc.reporting import words
from raymc.reporting.charts.coding_lengths import length_curves
from raymc.reporting.cluster.samples import SIDE, Thumbnails, cluster_views
from raymc.reporting.cluster.sentences import trust, verdict
from raymc.reporting.page import render
from raymc.space.again import CONFIG, write_config
from raymc.stability.choice import consensus
from raymc.stability.cluster import Clustering
from raymc.training import rows

CONSENSUS, REPORT, SCORES_FILE = "consensus.csv", "report.html", "arms.json"


def write_clustering(found: Clustering, out: Path) -> Path:
    """Write all files into `out`, in place of those of before; the path of the report. Raises InputError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        return _write(found, out)
    except OSError as error:
        raise InputError(f"--out {out} cannot be written: {error.strerror}") from error


def _write(found: Clustering, out: Path) -> Path:
    run, chosen = found.seed_run, found.chosen
    for name in rows.FILES:
        copy_file(run.folder / name, out / name)
    names, confidence = read_labels(out / rows.LABELS)
    mine = chosen.labels[chosen.seed]
    agreed, share = consensus(list(chosen.labels.values()), mine)
    write_consensus(out / CONSENSUS, names, agreed, share)
    own = found.configurations[chosen.name]
    write_config(out / CONFIG, own.space, own.space.config({"seed": chosen.seed}))
    write_json(out / SCORES_FILE, {"chosen": chosen.name, "arms": found.rows()})
    views = cluster_views(names, mine, confidence, thumbnails(found))
    view = build_view(found, out) | {"clusters": views, "unanimous": float(np.mean(share == 1.0))}
    page = out / REPORT
    write_text(page, render("cluster.html.j2", view, ("report.css", "stability.css", "cluster.css")))
    return page


def build_view(found: Clustering, out: Path) -> dict[str, Any]:
    """Every name that `cluster.html.j2` uses, beside its style and script, and the clusters."""
    metrics = ("acc", "nmi", "ari") if found.labelled else ()
    classes = found.dataset.n_classes if found.labelled else None
    command = shlex.join(["raymc", "cluster", *masked_words(sys.argv[1:])])
    return {
        "name": found.source.name,
        "title": f"{found.source.name} in {words.count(found.count.n, 'cluster')}",
        "data": f"{found.dataset.name}: {found.dataset.split}",
        "smoke": found.run.groups[0].configuration.smoke,
        "verdict": verdict(found),
        "trust": trust(found),
        "rows": found.rows(),
        "chosen": found.chosen.name,
        "seed": found.chosen.seed,
        "seeds": len(found.chosen.labels),
        "columns": ("agreement", "stability", "probe", "silhouette", *metrics),
        "left_out": found.left_out,
        "labelled": found.labelled,
        "counts": length_curves(found.count.runs, classes),
        "files": sorted({path.name for path in out.iterdir() if path.name != REPORT}),
        "command": command,
        "details": str(found.run.folder),
    }


def read_labels(path: Path) -> tuple[list[str], NDArray[np.float64]]:
    """Names and confidences `[n]` of a `labels.csv`."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        found = list(csv.reader(file))[1:]
    return [row[0] for row in found], np.array([float(row[2]) for row in found])


def write_consensus(path: Path, names: list[str], labels: NDArray[np.int64], share: NDArray[np.float64]) -> None:
    """A line `sample,cluster,seeds` for each sample: what most seeds say, and the share of them that say it."""
    rows.write_csv(
        path,
        ("sample", "cluster", "seeds"),
        zip(names, labels.tolist(), share.round(rows.DIGITS).tolist(), strict=True),
    )


def thumbnails(found: Clustering) -> Thumbnails:
    """Pictures of the samples, where these are images or an encoder saw images."""
    dataset = _images(found)
    if dataset is None:
        return lambda row: None

    def image(row: int) -> NDArray[np.uint8]:
        pixels = dataset.train.x[row].permute(1, 2, 0).numpy()
        return np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)

    return image


def _images(found: Clustering) -> Dataset | None:
    """The samples where they are images, or the images that an encoder saw, small; else None."""
    own = found.space.own
    if own is None or own.encoder is None:
        return found.dataset if found.dataset.train.x.dim() == 4 else None
    if own.known:
        return datasets.load(own.path, found.data)
    if own.text is not None:
        return None
    seen = read_own(replace(own, encoder=None, weights=None, side=SIDE))
    return seen if seen.train.x.dim() == 4 else None
