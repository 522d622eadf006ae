"""A table of a paper with what was run of it: `table.md` to read, `table.json` for programs, lines for a terminal."""

from __future__ import annotations

import json
from pathlib import Path

from raymc.atomic import write_text
from raymc.reporting.tables.facts import table_facts
from raymc.reporting.tables.text import markdown, text
from raymc.stability.paper_tables import PaperTable

__all__ = ["table_facts", "text", "write_table"]


def write_table(table: PaperTable, storage: str, folder: Path) -> Path:
    """Write `table.md` and `table.json` to `folder`; returns the path of the first. Raises OSError."""
    facts = table_facts(table, storage)
    page = folder / "table.md"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(page, markdown(table, facts))
    write_text(folder / "table.json", json.dumps(facts, indent=1, allow_nan=False) + "\n")
    return page
