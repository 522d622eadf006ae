"""The tables of a stability run: of seeds, of arms by seed as MLC's Table 6; aligned, as Markdown, as CSV."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence
from typing import Any

from raymc.metrics.names import LABEL_FREE_METRICS, LABEL_METRICS
from raymc.reporting import words
from raymc.reporting.comparison import finished, in_all
from raymc.reporting.steady import Arm

Row = dict[str, Any]

ORDER = (*LABEL_METRICS, *(f"test_{name}" for name in LABEL_METRICS), *LABEL_FREE_METRICS)
"""The metrics of the tables. What else was measured is in the JSON and in the page's details."""


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
    safe = [[html.escape(cell, quote=False).replace("|", "\\|") for cell in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in safe]
    return [lines[0], "|" + " ---: |" * len(rows[0]), *lines[1:]]


def csv_text(rows: Sequence[Sequence[str]]) -> str:
    """The rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def by_arm(arms: Sequence[Arm], seeds: Sequence[int]) -> list[list[str]]:
    """A head, then a row per metric and arm with a column per seed, mean and standard deviation, as MLC's Table 6."""
    names = metric_names([arm.record for arm in arms])
    rows = [["arm", "metric", *map(str, seeds), "mean", "std"]]
    for name in names or ["–"]:
        for arm in arms:
            by_seed = {row["seed"]: _cell(row, name) for row in arm.record["per_seed"]}
            found = arm.result.get(name)
            ends = [shown(found[key], 4) for key in ("mean", "std")] if found else ["", ""]
            rows.append([arm.name, name, *(by_seed.get(seed, "") for seed in seeds), *ends])
    return rows


def by_seed(arms: Sequence[Arm], seeds: Sequence[int], metric: str) -> list[Sequence[str]]:
    """A line per seed and a column per arm."""
    cells = [{row["seed"]: _cell(row, metric) for row in arm.record["per_seed"]} for arm in arms]
    rows: list[Sequence[str]] = [("seed", *(f"{arm.name} {metric}" for arm in arms))]
    return rows + [(str(seed), *(column.get(seed, "") for column in cells)) for seed in seeds]


def _cell(row: Row, name: str) -> str:
    """A seed's figure, or its state where it has none."""
    return shown(row["metrics"].get(name), 4) if row["state"] == "finished" else words.state(row["state"])


def all_seeds(arms: Sequence[Arm], names: Sequence[str]) -> list[Sequence[str]]:
    """The table of seeds of every arm, one under the other, every digit."""
    tables = [seed_rows(arm.record, names, digits=None) for arm in arms]
    rows: list[Sequence[str]] = [("arm", *tables[0][0])]
    for arm, table in zip(arms, tables, strict=True):
        rows += [(arm.name, *row) for row in table[1:]]
    return rows


def statistics_rows(arms: Sequence[Arm], names: Sequence[str]) -> list[Row]:
    """The statistics of these metrics, metric by metric and arm by arm, each with the names of both."""
    return [
        {"metric": name, "arm": arm.name, **arm.result[name]} for name in names for arm in arms if name in arm.result
    ]


def statistics_text(rows: Sequence[Row]) -> list[Sequence[str]]:
    """`statistics_rows` with a head, as text."""
    keys = ("mean", "std", "min", "median", "iqm", "max")
    head = ("metric", "arm", "n", *keys[:4], "IQM", "max", "95 % interval, t", "95 %, bootstrap")
    text: list[Sequence[str]] = [head]
    for row in rows:
        ends = [f"{low:.4f} to {high:.4f}" for low, high in (row["ci95"], row["ci95_bootstrap"])]
        text.append((row["metric"], row["arm"], str(row["n"]), *(f"{row[key]:.4f}" for key in keys), *ends))
    return text


def other_metrics(arms: Sequence[Arm]) -> list[str]:
    """What was measured beside `ORDER`."""
    found = dict.fromkeys(name for arm in arms for name in in_all(finished(arm.record)))
    return sorted(name for name in found if name not in ORDER)
