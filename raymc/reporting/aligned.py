"""Rows of a table as text: lines with aligned columns, or Markdown."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text


def aligned(rows: Sequence[Sequence[str]], justify: Literal["left", "right"] = "left") -> str:
    """The rows with columns as wide as their widest cell, two spaces apart; nothing is wrapped or cut."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for _ in rows[0]:
        table.add_column(justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    out = Console(file=io.StringIO(), width=sum(max(map(len, column)) + 2 for column in zip(*rows, strict=True)))
    with out.capture() as text:
        out.print(table)
    return "\n".join(line.rstrip() for line in text.get().splitlines())


def markdown_table(rows: Sequence[Sequence[str]], rule: str = "---") -> list[str]:
    """The rows as a table of Markdown, the first of them its head; `rule` `---:` aligns the columns right."""
    safe = [[html.escape(cell, quote=False).replace("|", "\\|") for cell in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in safe]
    return [lines[0], "|" + f" {rule} |" * len(rows[0]), *lines[1:]]
