"""Writes the report of a run of `stability`: a page that needs no network, and the same as Markdown, CSV and JSON."""

from __future__ import annotations

import json
from pathlib import Path

from raymc.atomic import write_text
from raymc.reporting.page import render
from raymc.reporting.stability.beside import beside_kmeans
from raymc.reporting.stability.tables import all_seeds, csv_text
from raymc.reporting.stability.text import markdown
from raymc.reporting.stability.view import build_view
from raymc.stability.reader import StabilityResult, read_stability
from raymc.study.records import Row

STYLES = ("report.css", "stability.css")


def write_stability(folder: Path, out: Path) -> Path:
    """The report of the run in `folder`, finished or not, written to the folder `out`; the path of `stability.html`.

    Beside it `stability.md`, `.csv` (a row per seed) and `.json`. A report that is there already is replaced. Raises
    InputError where `folder` holds no readable run.
    """
    run = read_stability(folder)
    page = out / "stability.html"
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "stability.csv", csv_text(all_seeds(run)))
    write_text(out / "stability.json", json.dumps(_content(run, page), indent=1, allow_nan=False) + "\n")
    write_text(out / "stability.md", markdown(run))
    write_text(page, render("stability.html.j2", build_view(run), STYLES))
    return page


def _content(run: StabilityResult, page: Path) -> Row:
    """What `--json` prints, with each seed's results."""
    if not run.several:
        own = {"per_seed": run.records[0].row["per_seed"], "baseline": beside_kmeans(run)}
        return run.result | {"report": str(page)} | own
    groups = [group.result | {"report": str(page), "per_seed": group.record.row["per_seed"]} for group in run.groups]
    return run.result | {"report": str(page), "arms": groups}
