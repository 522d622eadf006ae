"""The tables of a stability run: of seeds, of arms by seed as MLC's Table 6; aligned, as Markdown, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from raymc.metrics.names import LABEL_FREE_METRICS, LABEL_METRICS
from raymc.reporting import words
from raymc.stability.reader import GroupResult, StabilityResult
from raymc.study.groups import seed_values
from raymc.study.records import FINISHED, Record, Row, SeedRun

ORDER = (*LABEL_METRICS, *(f"test_{name}" for name in LABEL_METRICS), *LABEL_FREE_METRICS)
"""The metrics of the tables. What else was measured is in the JSON and in the page's details."""


def metric_names(found: Sequence[Record]) -> list[str]:
    """The metrics of a table on the seeds of these records, in its order."""
    has = {name for record in found for run in record.seeds for name in run.metrics}
    return [name for name in ORDER if name in has]


def seed_rows(record: Record, names: Sequence[str], digits: int | None) -> list[Sequence[str]]:
    """A head and one row per seed: its state, the metrics `names` with `digits` (None: all of them), seconds."""
    rows: list[Sequence[str]] = [("seed", "state", *names, "seconds")]
    for run in record.seeds:
        values = [shown(run.metrics.get(name), digits) for name in names]
        rows.append((str(run.seed), run.state, *values, f"{run.seconds:.1f}"))
    return rows


def shown(value: float | None, digits: int | None) -> str:
    """A figure of a table; nothing where there is none."""
    return "" if value is None else str(value) if digits is None else f"{value:.{digits}f}"


def csv_text(rows: Sequence[Sequence[str]]) -> str:
    """The rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def by_group(groups: Sequence[GroupResult], seeds: Sequence[int]) -> list[list[str]]:
    """A head, then a row per metric and arm with a column per seed, mean and standard deviation, as MLC's Table 6."""
    names = metric_names([group.record for group in groups])
    rows = [["arm", "metric", *map(str, seeds), "mean", "std"]]
    for name in names or ["–"]:
        for group in groups:
            by_seed = {run.seed: _cell(run, name) for run in group.record.seeds}
            found = group.result.get(name)
            ends = [shown(found[key], 4) for key in ("mean", "std")] if found else ["", ""]
            rows.append([group.name, name, *(by_seed.get(seed, "") for seed in seeds), *ends])
    return rows


def by_seed(groups: Sequence[GroupResult], seeds: Sequence[int], metric: str) -> list[Sequence[str]]:
    """A line per seed and a column per arm."""
    cells = [{run.seed: _cell(run, metric) for run in group.record.seeds} for group in groups]
    rows: list[Sequence[str]] = [("seed", *(f"{group.name} {metric}" for group in groups))]
    return rows + [(str(seed), *(column.get(seed, "") for column in cells)) for seed in seeds]


def _cell(run: SeedRun, name: str) -> str:
    """A seed's figure, or its state where it has none."""
    return shown(run.metrics.get(name), 4) if run.state == FINISHED else words.state(run.state)


def all_seeds(run: StabilityResult) -> list[Sequence[str]]:
    """The table of seeds of every arm, one under the other, every digit; of several with the arm of each."""
    names = metric_names(run.records)
    tables = [seed_rows(group.record, names, digits=None) for group in run.groups]
    if not run.several:
        return tables[0]
    named = [(group.name, *row) for group, table in zip(run.groups, tables, strict=True) for row in table[1:]]
    return [("arm", *tables[0][0]), *named]


def statistics_rows(groups: Sequence[GroupResult], names: Sequence[str]) -> list[Row]:
    """The statistics of these metrics, metric by metric and arm by arm, each with the names of both."""
    return [
        {"metric": name, "arm": group.name, **group.result[name]}
        for name in names
        for group in groups
        if name in group.result
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


def other_metrics(groups: Sequence[GroupResult]) -> list[str]:
    """What was measured beside `ORDER`."""
    found = dict.fromkeys(name for group in groups for name in seed_values(group.record.finished))
    return sorted(name for name in found if name not in ORDER)
