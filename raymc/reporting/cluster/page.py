"""Writes what `raymc cluster` leaves: labels by name, embedding, model, configuration, consensus, and the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from raymc.atomic import copy_file, write_json, write_text
from raymc.errors import unwritable
from raymc.metrics.consensus import evidence_accumulation, renamed
from raymc.program import own_command
from raymc.reporting import words
from raymc.reporting.charts.coding_lengths import length_curves
from raymc.reporting.cluster.folder import SCORES_FILE
from raymc.reporting.cluster.pictures import thumbnails
from raymc.reporting.cluster.samples import cluster_views
from raymc.reporting.cluster.sentences import trust, verdict
from raymc.reporting.page import render
from raymc.space.again import CONFIG, write_config
from raymc.stability.cluster import Clustering
from raymc.study.words import about_the_data
from raymc.training import model_files, rows

REPORT = "report.html"


def write_clustering(found: Clustering, out: Path) -> Path:
    """Write all files into `out`, in place of those of before; the path of the report. Raises InputError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        return _write(found, out)
    except OSError as error:
        raise unwritable(out, error) from error


def _write(found: Clustering, out: Path) -> Path:
    run, chosen = found.seed_run, found.chosen
    for name in rows.FILES:
        copy_file(run.folder / name, out / name)
    model_files.copy(run.folder / model_files.FOLDER, out / model_files.FOLDER)
    names, confidence = rows.read_samples(out / rows.LABELS)
    mine = chosen.labels[chosen.seed]
    agreed, share = evidence_accumulation(list(chosen.labels.values()))
    rows.write_consensus(out / rows.CONSENSUS, names, renamed(agreed, mine), share)
    own = found.configurations[chosen.name]
    write_config(out / CONFIG, own.space, own.space.config({"seed": chosen.seed}), smoke=own.smoke)
    write_json(out / SCORES_FILE, {**found.source.origin, "chosen": chosen.name, "arms": found.rows()})
    embedding = np.load(out / rows.EMBEDDING, mmap_mode="r", allow_pickle=False)
    views = cluster_views(names, mine, confidence, embedding, thumbnails(found))
    view = build_view(found, out) | {"clusters": views, "agreement": float(share.mean())}
    page = out / REPORT
    write_text(page, render("cluster.html.j2", view, ("report.css", "stability.css", "cluster.css")))
    return page


def build_view(found: Clustering, out: Path) -> dict[str, Any]:
    """Every name that `cluster.html.j2` uses, beside its style and script, and the clusters."""
    metrics = ("acc", "nmi", "ari") if found.labelled else ()
    classes = found.dataset.n_classes if found.labelled else None
    return {
        "name": found.source.name,
        "title": f"{found.source.name} in {words.count(found.count.n, 'cluster')}",
        "data": f"{found.dataset.name}: {found.dataset.split}",
        "smoke": found.smoke,
        "remarks": about_the_data({"remarks": found.dataset.remarks}),
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
        "command": own_command(),
        "details": str(found.run.folder),
    }
