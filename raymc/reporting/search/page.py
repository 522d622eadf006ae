"""Writes a study's report: one HTML file that needs no network, with `trials.csv` and `summary.json` beside it."""

from __future__ import annotations

import json
from pathlib import Path

from raymc.atomic import write_text
from raymc.reporting.page import render
from raymc.reporting.search.facts import gather
from raymc.reporting.search.running import running_now
from raymc.reporting.search.trials_table import write_csv
from raymc.reporting.search.view import build_view
from raymc.study.reader import read_study


def write_report(study_dir: Path, out: Path, refresh: int | None = None) -> Path:
    """The report of the study in `study_dir`, written to the folder `out`; returns the path of `index.html`.

    With `refresh` the page says what runs now, and loads itself again after so many seconds. A report that is there
    already is replaced. Raises InputError where `study_dir` holds no readable study.
    """
    study = read_study(study_dir)
    facts = gather(study)
    live = {} if refresh is None else {"refresh": refresh, "now": running_now(study)}
    page = render("report.html.j2", build_view(study, facts) | live)
    out.mkdir(parents=True, exist_ok=True)
    write_csv(study, out / "trials.csv")
    write_text(out / "summary.json", json.dumps(facts, indent=2, allow_nan=False) + "\n")
    write_text(out / "index.html", page)
    return out / "index.html"


def notebook_page(study_dir: Path) -> str:
    """What a notebook shows of a study: the verdict, the course of the search, its trials; a page of its own."""
    study = read_study(study_dir)
    return render("notebook.html.j2", build_view(study, gather(study)))
