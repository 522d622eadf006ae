"""What has been run of a paper's table: the content of `table.json`, which the page then words.

Figures of ours and of the paper stand side by side; what has not been run is left blank, and every way in which one
of our cells differs from what the table asks for is a note that it carries.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raymc.reporting import words
from raymc.stability.cells import CellResult, choose, read_cells, tables_root
from raymc.stability.paper_tables import Figure, PaperTable, TableRow
from raymc.study.words import duration, setting

Facts = dict[str, Any]


def table_facts(table: PaperTable, storage: str) -> Facts:
    """The content of `table.json`: figures of ours (None: not run) and of the paper, notes, where it was run."""
    root = tables_root(storage) / table.name
    ours = {
        (row.key, dataset): (chosen, [cell for cell in found if cell is not chosen])
        for row, dataset in table.cells()
        if (chosen := choose(found := read_cells(root / row.key / dataset))) is not None
    }
    notes_of = {place: _notes(*cells) for place, cells in ours.items()}
    general, marks = _marked(notes_of)
    rows = []
    for row in table.rows.values():
        cells = {}
        for dataset in table.columns:
            cell, _ = ours.get((row.key, dataset), (None, []))
            notes = [marks[text] for text in notes_of.get((row.key, dataset), ()) if text in marks]
            cells[dataset] = {
                "ours": _ours(cell, root, notes) if cell else None,
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


def _notes(cell: CellResult, others: Sequence[CellResult]) -> list[str]:
    """What a reader has to know of a cell of ours."""
    facts = cell.facts
    # The settings stand in the order of the stages.
    dotted = (key.partition(".")[0] for key in facts["settings"] if "." in key)
    first = next((part for part in dotted if part != "augment"), "")
    shared = "; the stages before were computed once and are shared, so that their luck is not in the spread"
    notes = [f"The seeds vary every stage from `{facts['seeds_from']}` on{shared * (facts['seeds_from'] != first)}."]
    if cell.smoke:
        notes.insert(0, "A smoke run: every length is shortened, and the figures mean nothing.")
    for name in dict.fromkeys(s.checkpoint for run in cell.finished for s in run.stages if s.checkpoint):
        notes.append(f"Started from the float16 weights of checkpoint `{name}`.")
    # `seeds_from` has words of its own.
    if changed := {key: value for key, value in facts["overrides"].items() if key != "seeds_from"}:
        notes.append(f"Not the table's own configuration, but with {_keys(changed)}.")
    if cell.missing:
        notes.append(f"{len(cell.seeds)} of {len(facts['seeds'])} seeds so far.")
    for state, count in cell.states.items():
        if state != "finished":
            notes.append(f"{count} of {len(cell.seeds)} seeds {words.state(state)}: not in these figures.")
    if not facts["clusters_by"].startswith("argmax"):
        notes.append(f"Clusters: {facts['clusters_by']}.")
    real = [other for other in others if not other.smoke and other.seeds]
    if real:
        others_run = words.listing(
            [f"{_keys(o.facts['overrides'])} ({words.count(len(o.seeds), 'seed')})" for o in real]
        )
        notes.append(f"Results of other configurations are in the storage and not shown: {others_run}.")
    return notes


def _keys(changed: Mapping[str, Any]) -> str:
    """`finetune.kappa=1, seeds_from=finetune`."""
    return ", ".join(f"`{key}={setting(value)}`" for key, value in changed.items()) or (
        "without changes by the command line"
    )


def _marked(notes_of: Mapping[tuple[str, str], Sequence[str]]) -> tuple[list[str], dict[str, str]]:
    """Notes that all of our cells share, and a mark for each of the others."""
    texts = list(dict.fromkeys(text for notes in notes_of.values() for text in notes))
    general = [text for text in texts if all(text in notes for notes in notes_of.values())]
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
    """Machines and versions of all sessions, and what the seeds took."""
    machines = dict.fromkeys(_machine(session) for cell in cells for session in cell.facts["sittings"])
    seconds = sum(run.seconds for cell in cells for run in cell.seeds)
    spent = [f"The seeds took {duration(seconds)} in sum; stages from the store cost nothing."] if cells else []
    return [*(f"Run on {machine}." for machine in machines), *spent]


def _machine(session: Facts) -> str:
    hardware, versions, git = session["hardware"], session["versions"], session["git"]
    gpus = f", {words.listing(hardware['gpus'])}" if hardware["gpus"] else ""
    revision = f" ({git[:12]}{'-dirty' * git.endswith('-dirty')})" if git else ""
    return (
        f"{hardware['cpu']}, {words.count(hardware['cores'], 'core')}{gpus}; raymc {versions['raymc']}{revision}, "
        f"torch {versions['torch']}, Python {versions['python']}"
    )


def _data(cells: Sequence[CellResult]) -> list[str]:
    """For each dataset the samples that were clustered."""
    facts = [cell.facts["data"] for cell in cells]
    held = {one["name"]: f", held out: {one['test_n']:,}" if one["test_n"] else "" for one in facts}
    lines = (f"{one['name']}: {one['split']}, {one['n']:,} samples{held[one['name']]}" for one in facts)
    return list(dict.fromkeys(lines))
