"""Rows of a table as lines of text with aligned columns."""

from __future__ import annotations

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
