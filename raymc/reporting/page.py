"""A page of a report: one HTML file that needs no network, its styles and script within it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from raymc.reporting import words
from raymc.study.words import duration, setting

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, view: Mapping[str, Any], styles: Sequence[str] = ("report.css",)) -> str:
    """A page of these names, with its styles and script inlined."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "score": words.score, "setting": setting, "duration": duration, "state": words.state,
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
        text = "".join((TEMPLATES / file).read_text(encoding="utf-8") for file in files)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        found |= {name: Markup(text), f"{name}_hash": Markup(digest)}
    return found
