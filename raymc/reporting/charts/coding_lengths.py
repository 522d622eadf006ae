"""How many clusters: the coding length at each number, a line per seed, and the number that each seed took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from raymc.reporting.charts.svg import Panel, axis
from raymc.study.files import load_json
from raymc.study.records import SeedRun, numbers

Lengths = Mapping[int, float]


def read_lengths(runs: Sequence[SeedRun]) -> dict[int, Lengths]:
    """By seed, the coding length in nats by number of clusters; empty where the number was given."""
    found = {run.seed: numbers((load_json(run.folder / "metrics.json") or {}).get("coding_lengths")) for run in runs}
    return {seed: {int(k): v for k, v in lengths.items()} for seed, lengths in found.items() if lengths}


def chosen(lengths: Lengths) -> int:
    """The number of clusters of the least coding length, the smallest of several."""
    return min(lengths, key=lambda count: (lengths[count], count))


def length_curves(runs: Sequence[SeedRun], classes: int | None = None) -> dict[str, Any] | None:
    """`plot`, and the `words` on what was found; None where the number of clusters was given.

    `classes` of the labels stand beside it, where there are any.
    """
    found = read_lengths(runs)
    if not found:
        return None
    counts = [count for lengths in found.values() for count in lengths]
    values = [value for lengths in found.values() for value in lengths.values()]
    panel = Panel(axis(counts, "clusters"), axis(values, "nats"))
    marks: list[Markup] = []
    for seed, lengths in found.items():
        marks.append(panel.line(sorted(lengths.items()), "curve", f"seed {seed}"))
        best = chosen(lengths)
        marks.append(panel.dot(best, lengths[best], "bar", f"seed {seed}: {best} clusters"))
    taken = [chosen(lengths) for lengths in found.values()]
    which = ", ".join(map(str, taken)) if len(set(taken)) > 1 else f"{taken[0]} (all seeds)"
    beside = f" The labels have {classes}." if classes else ""
    words = f"Clusters that each seed took, at its least coding length: {which}.{beside}"
    return {"plot": panel.draw(marks, "coding length by number of clusters, one line per seed"), "words": words}
