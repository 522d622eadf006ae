"""The table of a stability run, and its small summary as Markdown, CSV and JSON; of several arms: `arms_report`."""

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
    write_bytes(folder / "stability.csv", csv_text(seed_rows(record, metric_names([record]), digits=None)).encode())
    write_bytes(folder / "stability.json", json_text(result | {"per_seed": record["per_seed"]}).encode())
    return folder / "stability.md"


def table(record: Row) -> str:
    """One line per seed with aligned columns."""
    return aligned(seed_rows(record, metric_names([record]), digits=4))


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
    rows = seed_rows(record, metric_names([record]), digits=4)
    head = [f"# Stability of {result['name']}", ""]
    head += [f"{result['method']} on {result['dataset']} ({result['split']}), {words(result['params'])}."]
    head += [f"Clusters: {result['clusters_by']}."]
    head += [f"The seeds vary every stage from `{result['seeds_from']}` on.", ""]
    head += ["A smoke run: every length is shortened.", ""] if result["smoke"] else []
    return "\n".join([*head, *(f"- {line}" for line in statistics_lines(result)), "", *bars(rows), ""])


def metric_names(found: Sequence[Row]) -> list[str]:
    """The metrics of a table on the seeds of these records, in its order."""
    has = {name for record in found for row in record["per_seed"] for name in row["metrics"]}
    return [name for name in ORDER if name in has]


def seed_rows(record: Row, names: Sequence[str], digits: int | None) -> list[Sequence[str]]:
    """A head and one row per seed: its state, the metrics `names` with `digits` (None: all of them), seconds."""
    rows: list[Sequence[str]] = [("seed", "state", *names, "seconds")]
    for row in record["per_seed"]:
        values = [shown(row["metrics"].get(name), digits) for name in names]
        rows.append((str(row["seed"]), row["state"], *values, f"{row['seconds']:.1f}"))
    return rows


def shown(value: float | None, digits: int | None) -> str:
    """A figure of a table; nothing where there is none."""
    return "" if value is None else str(value) if digits is None else f"{value:.{digits}f}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """The rows with aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def bars(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as a table of Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "|" + " ---: |" * len(rows[0]), *lines[1:]]


def csv_text(rows: Sequence[Sequence[str]]) -> str:
    """The rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def json_text(content: Row) -> str:
    """A JSON object, indented."""
    return json.dumps(content, indent=1, allow_nan=False) + "\n"
