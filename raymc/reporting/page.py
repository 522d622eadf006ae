"""Writes a study's report: one HTML file that needs no network, with `trials.csv` and `summary.json` beside it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from raymc.atomic import write_text
from raymc.reporting import words
from raymc.reporting.facts import gather
from raymc.reporting.study_reader import read_study
from raymc.reporting.table import write_csv
from raymc.reporting.view import build_view

HERE = Path(__file__).parent


def write_report(study_dir: Path, out: Path) -> Path:
    """The report of the study in `study_dir`, written to the folder `out`; returns the path of `index.html`.

    A report that is there already is replaced. Raises InputError where `study_dir` holds no readable study.
    """
    study = read_study(study_dir)
    facts = gather(study)
    page = render("report.html.j2", build_view(study, facts))
    out.mkdir(parents=True, exist_ok=True)
    write_csv(study, facts, out / "trials.csv")
    write_text(out / "summary.json", json.dumps(facts, indent=2, allow_nan=False) + "\n")
    write_text(out / "index.html", page)
    return out / "index.html"


def render(template: str, view: Mapping[str, Any], styles: Sequence[str] = ("report.css",)) -> str:
    """A page of these names, with its styles and script inlined."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "score": words.score, "setting": words.setting, "duration": words.duration, "state": words.state,
        "correlation": words.correlation, "coded": coded,
    }  # fmt: skip
    return environment.get_template(template).render({**view, **_inlined(styles)})


def coded(text: str) -> Markup:
    """`text` with what stands between backticks as code."""
    parts = text.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts))


def _inlined(styles: Sequence[str]) -> dict[str, Markup]:
    """Style and script with the hashes that the page's security policy allows: nothing else on it can run."""
    found: dict[str, Markup] = {}
    for name, files in (("style", styles), ("script", ["report.js"])):
        text = "".join((HERE / file).read_text(encoding="utf-8") for file in files)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        found |= {name: Markup(text), f"{name}_hash": Markup(digest)}
    return found
