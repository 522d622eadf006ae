"""The table of a stability run, and its small summary as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from raymc.metrics.names import LABEL_METRICS
from raymc.search.live import words
from raymc.search.records import Row
from raymc.training.outputs import write_bytes

ORDER = (*LABEL_METRICS, *(f"test_{name}" for name in LABEL_METRICS), "rate_reduction")


def write_stability(folder: Path, result: Row, record: Row) -> Path:
    """Write `stability.md`, `.csv` and `.json` to `folder`; returns the path of the first."""
    result = result | {"report": str(folder / "stability.md")}
    write_bytes(folder / "stability.md", markdown(result, record).encode())
    write_bytes(folder / "stability.csv", _csv(record).encode())
    content = json.dumps(result | {"per_seed": record["per_seed"]}, indent=1, allow_nan=False)
    write_bytes(folder / "stability.json", (content + "\n").encode())
    return folder / "stability.md"


def table(record: Row) -> str:
    """One line per seed with aligned columns."""
    rows = _rows(record, digits=4)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def statistics_lines(result: Row) -> list[str]:
    """`acc: mean ± std, min to max, 95 % interval of the mean …` for each metric in the table."""
    lines = []
    for name in [name for name in ORDER if name in result]:
        found = result[name]
        low, high = found["ci95"]
        lines.append(
            f"{name}: {found['mean']:.4f} ± {found['std']:.4f} over {found['n']} seeds, {found['min']:.4f} to "
            f"{found['max']:.4f}, 95 % interval of the mean {low:.4f} to {high:.4f}"
        )
    if "pairwise_ari" in result:
        agreement = result["pairwise_ari"]
        lines.append(f"agreement between seeds (ARI): {agreement['mean']:.4f}, at least {agreement['min']:.4f}")
    lost = {state: count for state, count in result["states"].items() if state != "finished"}
    lines += [f"{count} of {len(result['seeds'])} seeds {state}: not in these figures" for state, count in lost.items()]
    return lines


def markdown(result: Row, record: Row) -> str:
    """The summary as a page of Markdown."""
    rows = _rows(record, digits=4)
    head = [f"# Stability of {result['name']}", ""]
    head += [f"{result['method']} on {result['dataset']} ({result['split']}), {words(result['params'])}."]
    head += [f"The seeds vary every stage from `{result['seeds_from']}` on.", ""]
    head += ["A smoke run: every length is shortened.", ""] if result["smoke"] else []
    bars = ["| " + " | ".join(row) + " |" for row in rows]
    bars.insert(1, "|" + " ---: |" * len(rows[0]))
    return "\n".join([*head, *(f"- {line}" for line in statistics_lines(result)), "", *bars, ""])


def _rows(record: Row, digits: int | None) -> list[Sequence[str]]:
    found = {name for row in record["per_seed"] for name in row["metrics"]}
    names = [name for name in ORDER if name in found]

    def shown(value: float | None) -> str:
        return "" if value is None else str(value) if digits is None else f"{value:.{digits}f}"

    rows: list[Sequence[str]] = [("seed", "state", *names, "seconds")]
    for row in record["per_seed"]:
        values = [shown(row["metrics"].get(name)) for name in names]
        rows.append((str(row["seed"]), row["state"], *values, f"{row['seconds']:.1f}"))
    return rows


def _csv(record: Row) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(_rows(record, digits=None))
    return text.getvalue()
