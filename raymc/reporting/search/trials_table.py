"""The table of all trials: the same rows for the page, where a click on a header sorts them, and for `trials.csv`."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from raymc.metrics.names import LABEL_METRICS, RANKED
from raymc.reporting import words
from raymc.reporting.search.cost import stage_use
from raymc.study.reader import Study
from raymc.study.records import FINISHED, Record
from raymc.study.words import setting
from raymc.values import written


@dataclass(frozen=True)
class Cell:
    """What is shown, and what is sorted by: a number, a text, or None, which sorts last either way."""

    text: str
    sort: float | str | None
    link: str = ""
    kind: str = "number"


@dataclass(frozen=True)
class Row:
    trial: int
    best: bool
    cells: tuple[Cell, ...]


def trial_table(study: Study, facts: Mapping[str, Any]) -> tuple[list[str], list[Row]]:
    """Headers and rows of the page's table, in the order of the trials."""
    metrics = _shown_metrics(study)
    best = (facts["winner"] or {}).get("trial")
    fresh = {one["trial"]: _on_fresh_seeds(one, study.objective.metric) for one in facts["confirmation"]}
    headers = ["trial", "state", "score", *(["fresh seeds"] if any(fresh.values()) else [])]
    headers += [*study.searched, *metrics, "seeds", "seconds", "stages reused", "MLflow"]
    rows = []
    for trial in study.trials:
        cells = [Cell(str(trial.trial), trial.trial), _state(study, trial), score_cell(trial.score)]
        if any(fresh.values()):
            cells.append(_fresh(fresh.get(trial.trial)))
        cells += [_setting(trial.params[key]) if key in trial.params else Cell("–", None) for key in study.searched]
        cells += [score_cell(trial.metrics.get(metric)) for metric in metrics]
        cells += _effort(trial, facts["tracking"]["runs"])
        rows.append(Row(trial.trial, trial.trial == best, tuple(cells)))
    return headers, rows


def write_csv(study: Study, path: Path) -> None:
    """All search trials, numbers unrounded, absent values empty; the value null of a key is `null`."""
    rows = [
        row | {f"param.{key}": written(trial.params[key]) for key in study.searched if key in trial.params}
        for row, trial in zip(trial_rows(study), study.trials, strict=True)
    ]
    names = list(dict.fromkeys(name for row in rows for name in row)) or list(BASE)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(row | {"seeds": len(row["seeds"])} for row in rows)


BASE = ("trial", "state", "score", "started", "seconds", "seeds", "stages_computed", "stages_reused", "run_id", "error",
        "waited")  # fmt: skip


def trial_rows(study: Study) -> list[dict[str, Any]]:
    """A row for each search trial: `BASE`, then each searched key as `param.KEY` and each metric as `metric.NAME`.

    `seeds` are those that ended. `seconds` are of training: from the start of each seed's training to its end, summed,
    `waited` of them for stages that other processes computed.
    """
    metrics = sorted({name for trial in study.trials for name in trial.metrics})
    rows = []
    for trial in study.trials:
        used, seeds = stage_use([trial]), [run.seed for run in trial.seeds]
        base = [trial.trial, trial.state, trial.score, trial.started, trial.seconds, seeds]
        base += [used["computed"], used["reused"], trial.run_id, trial.error, used["waited"]]
        rows.append(
            dict(zip(BASE, base, strict=True))
            | {f"param.{key}": trial.params.get(key) for key in study.searched}
            | {f"metric.{name}": trial.metrics.get(name) for name in metrics}
        )
    return rows


def _shown_metrics(study: Study) -> Sequence[str]:
    """The label metrics that are not the score already, and the held-out accuracy."""
    there = {name for trial in study.trials for name in trial.metrics}
    wanted = (*LABEL_METRICS, "test_acc", *RANKED)
    return [name for name in wanted if name in there and name != study.objective.metric]


def _state(study: Study, trial: Record) -> Cell:
    """How a trial ended, and whether it keeps to the constraint."""
    if trial.state == FINISHED and not study.feasible(trial):
        return Cell("infeasible", "infeasible", kind="state collapsed")
    return state_cell(trial.state)


def state_cell(state: str) -> Cell:
    """How a trial or a seed ended."""
    return Cell(words.state(state), state, kind=f"state {state}")


def score_cell(value: float | None) -> Cell:
    """A metric."""
    return Cell(words.score(value), value)


def effort_cells(seconds: float, reused: int, total: int) -> list[Cell]:
    """Seconds of training, and how many of its stages came from the store."""
    return [
        Cell(f"{seconds:,.1f}", seconds),
        Cell(f"{reused} of {total}" if total else "–", reused if total else None),
    ]


def _setting(value: Any) -> Cell:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(setting(value), value if is_number else setting(value), kind="number" if is_number else "text")


def _on_fresh_seeds(one: Mapping[str, Any], metric: str) -> Mapping[str, Any] | None:
    """Mean and spread of the objective; of one that a group has, the figure alone."""
    alone = {"mean": one["score"], "std": None} if one["score"] is not None else None
    found: Mapping[str, Any] | None = one["statistics"].get(metric)
    return found or alone


def _fresh(stats: Mapping[str, Any] | None) -> Cell:
    if stats is None:
        return Cell("–", None)
    spread = f" ± {words.score(stats['std'])}" if stats["std"] is not None else ""
    return Cell(words.score(stats["mean"]) + spread, stats["mean"])


def _effort(trial: Record, runs: str | None) -> list[Cell]:
    used = stage_use([trial])
    done = sum(run.state == "finished" for run in trial.seeds)
    link = f"{runs}{quote(trial.run_id, safe='')}" if runs and trial.run_id else ""
    return [
        Cell(f"{done} of {len(trial.seeds)}", done),
        *effort_cells(trial.seconds, used["reused"], used["computed"] + used["reused"]),
        Cell("run" if link else "–", trial.run_id if link else None, link=link, kind="text"),
    ]
