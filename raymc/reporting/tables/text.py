"""A paper's table as text: the page of Markdown, and blocks for a terminal."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from raymc.reporting import words
from raymc.reporting.aligned import aligned, markdown_table
from raymc.reporting.tables.facts import Facts
from raymc.stability.paper_tables import METRICS, PaperTable, TableRow
from raymc.study.words import setting

WIDE = 2
"""So many metrics share a cell, with a column per dataset; more of them have a column each."""


def markdown(table: PaperTable, facts: Facts) -> str:
    """The page of Markdown."""
    lines = [f"# {table.title}", "", f"{table.source}. {_legend(table, facts)}", ""]
    lines += [table.note, ""] if table.note else []
    lines += markdown_table(_wide(facts) if len(table.metrics) <= WIDE else _long(facts))
    lines += ["", *(f"- {line}" for line in facts["general"])]
    lines += [f"- [{mark}] {text}" for mark, text in facts["notes"].items()]
    lines += ["", "## Rows", "", *(f"- {row.name}: {_row(row)}" for row in table.rows.values() if not row.quoted)]
    lines += ["", "## Data", "", *(f"- {line}" for line in facts["data"])] if facts["data"] else []
    return "\n".join([*lines, ""])


def text(table: PaperTable, facts: Facts, datasets: Sequence[str] | None = None, width: int | None = None) -> str:
    """The same for a terminal: a block for each of `datasets`, as many metrics beside each other as `width` holds."""
    width = width or shutil.get_terminal_size((120, 24)).columns
    lines = [f"{table.title} ({table.source})", _legend(table, facts), *([table.note] if table.note else [])]
    for dataset in datasets or facts["columns"]:
        rows = [row[1:] for row in _long(facts, [dataset])]
        for first, last in _chunks(rows, width):
            lines += ["", dataset, aligned([(*row[:2], *row[first:last]) for row in rows])]
    lines += ["", *facts["general"], *(f"[{mark}] {note}" for mark, note in facts["notes"].items())]
    return "\n".join(lines)


def _row(row: TableRow) -> str:
    """What a row is, in words."""
    every = {tuple(sorted(own.items())) for own in row.own.values()}
    own = dict(every.pop()) if len(every) == 1 else {}
    fixed = "".join(f", `{key}={setting(value)}`" for key, value in own.items())
    where = "" if set(row.datasets) == set(row.own) else f", on {words.listing(row.datasets)} alone"
    return f"`{row.key}`, {row.method} with preset `{row.preset}`{fixed}{', keys by dataset' if every else ''}{where}"


def _legend(table: PaperTable, facts: Facts) -> str:
    run, percent = facts["cells"], ", in percent" if facts["percent"] else ""
    return (
        "Before the bar ours, mean ± standard deviation over seeds (their number in brackets); behind it the "
        f"paper's{percent}. Blank: not run ({run['run']} of {run['of']} cells are)."
    )


def _wide(facts: Facts) -> list[list[str]]:
    """A row per algorithm and a column per dataset."""
    rows = [["/".join(METRICS[name][0] for name in facts["metrics"]), *facts["columns"]]]
    for row in facts["rows"]:
        cells = [row["cells"][dataset] for dataset in facts["columns"]]
        rows.append([_name(row), *(_beside(_joined(facts, cell), _printed(facts, cell)) for cell in cells)])
    return rows


def _joined(facts: Facts, cell: Facts) -> str:
    if cell["ours"] is None:
        return ""
    figures = [_figure(facts, cell["ours"], name) or "–" for name in facts["metrics"]]
    return f"{' / '.join(figures)} {_seeds(cell['ours'])}"


def _printed(facts: Facts, cell: Facts) -> str:
    if cell["paper"] is None:
        return ""
    star = "*" if cell["paper"]["starred"] else ""
    return "/".join(cell["paper"]["printed"].get(name, "–") for name in facts["metrics"]) + star


def _long(facts: Facts, datasets: Sequence[str] | None = None) -> list[list[str]]:
    """A row per dataset and algorithm, a column per metric."""
    rows = [["dataset", "algorithm", "seeds", *(METRICS[name][0] for name in facts["metrics"])]]
    for dataset in datasets or facts["columns"]:
        for row in facts["rows"]:
            cell = row["cells"][dataset]
            if cell["paper"] is None and dataset not in row["datasets"]:
                continue
            ours, paper = cell["ours"], cell["paper"] or {"printed": {}, "starred": False}
            star = "*" if paper["starred"] else ""
            printed = {name: f"{figure}{star}" for name, figure in paper["printed"].items()}
            figures = [
                _beside(_figure(facts, ours, name) if ours else "", printed.get(name, "")) for name in facts["metrics"]
            ]
            rows.append([dataset, _name(row), _seeds(ours) if ours else "", *figures])
    return rows


def _name(row: Facts) -> str:
    return f"{row['name']} (quoted, not run)" if row["quoted"] else str(row["name"])


def _seeds(ours: Facts) -> str:
    """`(5)`, with what marks the cell."""
    smoke = ", smoke" if ours["smoke"] else ""
    return f"({len(ours['seeds'])}{smoke})" + "".join(f"[{mark}]" for mark in ours["notes"])


def _figure(facts: Facts, ours: Facts, name: str) -> str:
    """`0.9749 ± 0.0031`; without a spread where there is a single seed, nothing where there is no such metric.

    A table in percent has it as `97.49 ± 0.31`.
    """
    found = ours["metrics"].get(name)
    if found is None:
        return ""
    scale, digits = (100, METRICS[name][1] - 2) if facts["percent"] else (1, METRICS[name][1])
    spread = f" ± {scale * found['std']:.{digits}f}" if found["n"] > 1 else ""
    return f"{scale * found['mean']:.{digits}f}{spread}"


def _beside(ours: str, paper: str) -> str:
    return f"{ours} | {paper}".strip() if ours or paper else ""


def _chunks(rows: Sequence[Sequence[str]], width: int) -> list[tuple[int, int]]:
    """Which columns from the third on stand beside each other in lines of `width`."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    start, found, used = 2, [], 0
    for i in range(2, len(widths)):
        room = used + 2 + widths[i] if i > start else sum(widths[:2]) + 4 + widths[i]
        if i > start and room > width:
            found.append((start, i))
            start, room = i, sum(widths[:2]) + 4 + widths[i]
        used = room
    return [*found, (start, len(widths))]
