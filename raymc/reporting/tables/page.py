"""A table of a paper with what was run of it: `table.md` to read, `table.json` for programs, lines for a terminal.

Figures of ours and of the paper stand side by side; what has not been run is left blank, and every way in which one
of our cells differs from what the table asks for is a note that it carries.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raymc.atomic import write_text
from raymc.reporting import words
from raymc.reporting.aligned import aligned
from raymc.stability.cells import CellResult, choose, read_cells, tables_root
from raymc.stability.paper_tables import METRICS, Figure, PaperTable, TableRow
from raymc.study.words import duration, setting

WIDE = 2
"""So many metrics share a cell, with a column per dataset; more of them have a column each."""

Facts = dict[str, Any]


def write_table(table: PaperTable, storage: str, folder: Path) -> Path:
    """Write `table.md` and `table.json` to `folder`; returns the path of the first. Raises OSError."""
    facts = table_facts(table, storage)
    page = folder / "table.md"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(page, markdown(table, facts))
    write_text(folder / "table.json", json.dumps(facts, indent=1, allow_nan=False) + "\n")
    return page


def table_facts(table: PaperTable, storage: str) -> Facts:
    """The content of `table.json`: figures of ours (None: not run) and of the paper, notes, where it was run."""
    root = tables_root(storage) / table.name
    ours = {
        (row.key, dataset): (chosen, [cell for cell in found if cell is not chosen])
        for row, dataset in table.cells()
        if (chosen := choose(found := read_cells(root / row.key / dataset))) is not None
    }
    told = {place: _notes(*cells) for place, cells in ours.items()}
    general, marks = _marked(told)
    rows = []
    for row in table.rows.values():
        cells = {}
        for dataset in table.columns:
            shown = ours.get((row.key, dataset))
            notes = [marks[text] for text in told.get((row.key, dataset), ()) if text in marks]
            cells[dataset] = {
                "ours": _ours(shown[0], root, notes) if shown else None,
                "paper": _paper(table, row, dataset),
            }
        names = {"row": row.key, "name": row.name, "quoted": row.quoted, "datasets": list(row.datasets)}
        rows.append({**names, "cells": cells})
    chosen_ones = [chosen for chosen, _ in ours.values()]
    return {
        "table": table.name,
        "title": table.title,
        "source": table.source,
        "metrics": list(table.metrics),
        "percent": table.percent,
        "columns": list(table.columns),
        "rows": rows,
        "notes": {mark: text for text, mark in marks.items()},
        "general": [*general, *_quoted(table), *_where(chosen_ones)],
        "data": _data(chosen_ones),
        "cells": {"run": len(ours), "of": len(table.cells())},
    }


def markdown(table: PaperTable, facts: Facts) -> str:
    """The page of Markdown."""
    lines = [f"# {table.title}", "", f"{table.source}. {_legend(table, facts)}", ""]
    lines += [table.note, ""] if table.note else []
    lines += _bars(_wide(facts) if len(table.metrics) <= WIDE else _long(facts))
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


def _notes(cell: CellResult, others: Sequence[CellResult]) -> list[str]:
    """What a reader has to know of a cell of ours."""
    facts = cell.facts
    # The settings stand in the order of the stages.
    first = next((key.partition(".")[0] for key in facts["settings"] if "." in key), "")
    varied = facts["seeds_from"]
    if varied == first:
        notes = [f"The seeds vary every stage from `{varied}` on."]
    else:
        notes = [
            f"The seeds vary every stage from `{varied}` on; the stages before were computed once and are shared, so "
            "that their luck is not in the spread."
        ]
    if cell.smoke:
        notes.insert(0, "A smoke run: every length is shortened, and the figures mean nothing.")
    for name in dict.fromkeys(s.checkpoint for run in cell.finished for s in run.stages if s.checkpoint):
        notes.append(f"Started from the float16 weights of checkpoint `{name}`.")
    if changed := _changed(facts):
        notes.append(f"Not the table's own configuration, but with {changed}.")
    if cell.missing:
        notes.append(f"{len(cell.seeds)} of {len(facts['seeds'])} seeds so far.")
    for state, count in cell.states.items():
        if state != "finished":
            notes.append(f"{count} of {len(cell.seeds)} seeds {words.state(state)}: not in these figures.")
    if not facts["clusters_by"].startswith("argmax"):
        notes.append(f"Clusters: {facts['clusters_by']}.")
    real = [other for other in others if not other.smoke and other.seeds]
    if real:
        told = words.listing([f"{_keys(o.facts['overrides'])} ({words.count(len(o.seeds), 'seed')})" for o in real])
        notes.append(f"Results of other configurations are in the storage and not shown: {told}.")
    return notes


def _changed(facts: Mapping[str, Any]) -> str:
    """What the command line changed, but for `seeds_from`, which has words of its own."""
    changed = {key: value for key, value in facts["overrides"].items() if key != "seeds_from"}
    return _keys(changed) if changed else ""


def _keys(changed: Mapping[str, Any]) -> str:
    """`finetune.kappa=1, seeds_from=finetune`."""
    told = ", ".join(f"`{key}={setting(value)}`" for key, value in changed.items())
    return told or "without changes by the command line"


def _marked(told: Mapping[tuple[str, str], Sequence[str]]) -> tuple[list[str], dict[str, str]]:
    """Notes that all of our cells share, and a mark for each of the others."""
    texts = list(dict.fromkeys(text for notes in told.values() for text in notes))
    general = [text for text in texts if all(text in notes for notes in told.values())]
    rest = [text for text in texts if text not in general]
    return general, {text: _letter(i) for i, text in enumerate(rest)}


def _letter(i: int) -> str:
    return (_letter(i // 26 - 1) if i >= 26 else "") + chr(ord("a") + i % 26)


def _ours(cell: CellResult, root: Path, notes: list[str]) -> Facts:
    return {
        "metrics": cell.statistics(),
        "seeds": [run.seed for run in cell.finished],
        "states": cell.states,
        "missing": cell.missing,
        "seeds_from": cell.facts["seeds_from"],
        "overrides": cell.facts["overrides"],
        "smoke": cell.smoke,
        "notes": notes,
        "clusters_by": cell.facts["clusters_by"],
        "seconds": sum(run.seconds for run in cell.seeds),
        "updated": cell.facts["updated"],
        "folder": os.path.relpath(cell.folder, root.parent.parent),
    }


def _paper(table: PaperTable, row: TableRow, dataset: str) -> Facts | None:
    """Its figures as numbers, and as they are printed."""
    figures: Sequence[Figure | None] = row.paper.get(dataset, ())
    found = {name: figure for name, figure in zip(table.metrics, figures, strict=bool(figures)) if figure is not None}
    if not found:
        return None
    return {
        "metrics": {name: figure.value for name, figure in found.items()},
        "std": {name: figure.std for name, figure in found.items() if figure.std is not None},
        "printed": {name: figure.text for name, figure in found.items()},
        "starred": any(figure.starred for figure in found.values()),
    }


def _quoted(table: PaperTable) -> list[str]:
    names = [row.name for row in table.rows.values() if row.quoted]
    return [f"Quoted from the paper, not run: {words.listing(names)}."] if names else []


def _where(cells: Sequence[CellResult]) -> list[str]:
    """Machines and versions of all sittings, and what the seeds took."""
    machines: dict[str, None] = {}
    for sitting in (sitting for cell in cells for sitting in cell.facts["sittings"]):
        hardware, versions = sitting["hardware"], sitting["versions"]
        gpus = f", {words.listing(hardware['gpus'])}" if hardware["gpus"] else ""
        git = f" ({sitting['git'][:12]}{'-dirty' * sitting['git'].endswith('-dirty')})" if sitting["git"] else ""
        told = f"{hardware['cpu']}, {words.count(hardware['cores'], 'core')}{gpus}; raymc {versions['raymc']}{git}"
        machines[f"{told}, torch {versions['torch']}, Python {versions['python']}"] = None
    seconds = sum(run.seconds for cell in cells for run in cell.seeds)
    spent = [f"The seeds took {duration(seconds)} in sum; stages from the store cost nothing."] if cells else []
    return [*(f"Run on {machine}." for machine in machines), *spent]


def _data(cells: Sequence[CellResult]) -> list[str]:
    """For each dataset the samples that were clustered."""
    facts = [cell.facts["data"] for cell in cells]
    held = {one["name"]: f", held out: {one['test_n']:,}" if one["test_n"] else "" for one in facts}
    return list(
        dict.fromkeys(f"{one['name']}: {one['split']}, {one['n']:,} samples{held[one['name']]}" for one in facts)
    )


def _row(row: TableRow) -> str:
    """What a row is, in words."""
    every = {tuple(sorted(own.items())) for own in row.own.values()}
    own = dict(every.pop()) if len(every) == 1 else {}
    fixed = "".join(f", `{key}={setting(value)}`" for key, value in own.items())
    where = "" if set(row.datasets) == set(row.own) else f", on {words.listing(row.datasets)} alone"
    return f"`{row.key}`, {row.method} with preset `{row.preset}`{fixed}{', keys by dataset' if every else ''}{where}"


def _legend(table: PaperTable, facts: Facts) -> str:
    run, unit = facts["cells"], ", in percent" if facts["percent"] else ""
    return (
        "Before the bar ours, mean ± standard deviation over seeds (their number in brackets); behind it the "
        f"paper's{unit}. Blank: not run ({run['run']} of {run['of']} cells are)."
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
            figures = []
            for name in facts["metrics"]:
                star = "*" if paper["starred"] else ""
                printed = f"{paper['printed'][name]}{star}" if name in paper["printed"] else ""
                figures.append(_beside(_figure(facts, ours, name) if ours else "", printed))
            rows.append([dataset, _name(row), _seeds(ours) if ours else "", *figures])
    return rows


def _name(row: Facts) -> str:
    return f"{row['name']} (quoted, not run)" if row["quoted"] else str(row["name"])


def _seeds(ours: Facts) -> str:
    """`(5)`, with what marks the cell."""
    smoke = ["smoke"] if ours["smoke"] else []
    return f"({', '.join([str(len(ours['seeds'])), *smoke])})" + "".join(f"[{mark}]" for mark in ours["notes"])


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


def _bars(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as a table of Markdown."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]


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
