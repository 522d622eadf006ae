"""What the seeds of several configurations say about each other: which is better, and what they have in common."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from raymc.metrics.seeds import detectable, holm, p_better, paired, summary
from raymc.study.groups import seed_values
from raymc.study.records import Record, Row

METRICS = ("acc", "silhouette", "probe")
"""What arms are compared on: the first of these that all of them have. Of each, more is better."""

HOLM = {"p_wilcoxon": "p_holm", "p_t": "p_t_holm"}
"""The tests, each with its p value with all pairs of arms taken into account."""


def compare_groups(names: Sequence[str], found: Sequence[Record]) -> list[Row]:
    """A row for each pair of arms in their order; `found` are the records of their seeds.

    `p_better` is P(A > B) over all pairs of a seed of each; `p_wilcoxon`, `mean_difference` (a - b) and its 95 %
    interval `ci95` are over the `n` `common_seeds` that both finished, and so is `p_t` of the paired t test; `p_holm`
    and `p_t_holm` are `p_wilcoxon` and `p_t` with the same test of all rows taken into account; `resolves` is the
    difference of two means that so many seeds with the spread `pooled_std` find with 80 % power. None where there are
    too few seeds. `fixed` are the arms of the pair whose seeds all have one value.
    """
    metric = metric_of(found)
    values = [record.values(metric) if metric else {} for record in found]
    rows: list[Row] = [
        {"a": names[i], "b": names[j], "metric": metric} | _compared(values[i], values[j])
        for i, j in combinations(range(len(names)), 2)
    ]
    for row, (i, j) in zip(rows, combinations(range(len(names)), 2), strict=True):
        row["fixed"] = [names[k] for k in (i, j) if len(values[k]) > 1 and len(set(values[k].values())) == 1]
    for test, adjusted in HOLM.items():
        tested = [row for row in rows if row[test] is not None]
        for row, p in zip(tested, holm([row[test] for row in tested]), strict=True):
            row[adjusted] = p
    return rows


def metric_of(found: Sequence[Record]) -> str | None:
    """The first of `METRICS` that every arm has which finished a seed; None where there is none."""
    known = [seed_values(record.finished) for record in _with_finished(found)]
    return next((name for name in METRICS if known and all(name in values for values in known)), None)


def common_seeds(found: Sequence[Record]) -> list[int]:
    """The seeds that all arms finished; an arm that finished none is left out."""
    seeds = [set(_stages(record)) for record in _with_finished(found)]
    return sorted(set.intersection(*seeds)) if seeds else []


def shared_stages(found: Sequence[Record]) -> dict[str, list[str]]:
    """The stages whose result all arms had in common on each of their common seeds, each with its keys.

    One key: all seeds of all arms had the same result. Empty where fewer than two arms finished a seed.
    """
    seeds, groups = common_seeds(found), [_stages(record) for record in _with_finished(found)]
    if len(groups) < 2 or not seeds:
        return {}
    shared = {}
    for name in groups[0][seeds[0]]:
        keys = [[stages[seed].get(name) for stages in groups] for seed in seeds]
        if all(len(set(of_seed)) == 1 for of_seed in keys):
            shared[name] = list(dict.fromkeys(str(of_seed[0]) for of_seed in keys))
    return shared


def _compared(a: dict[int, float], b: dict[int, float]) -> Row:
    """Two arms' values by seed."""
    common = sorted(set(a) & set(b))
    found = paired([a[seed] for seed in common], [b[seed] for seed in common])
    spread = [summary(list(values.values()))["std"] for values in (a, b) if len(values) > 1]
    pooled = (sum(std**2 for std in spread) / 2) ** 0.5 if len(spread) == 2 else None
    return {
        "p_better": p_better(list(a.values()), list(b.values())) if a and b else None,
        "p_wilcoxon": found["p_wilcoxon"],
        "p_t": found["p_t"],
        **dict.fromkeys(HOLM.values()),
        "n": found["n"],
        "common_seeds": common,
        "mean_difference": found["mean"],
        "ci95": found["ci95"],
        "pooled_std": pooled,
        "resolves": None if pooled is None else detectable(pooled, min(len(a), len(b))),
    }


def _with_finished(found: Sequence[Record]) -> list[Record]:
    return [record for record in found if record.finished]


def _stages(record: Record) -> dict[int, dict[str, str]]:
    """The keys of the stages of each finished seed."""
    return {run.seed: {stage.name: stage.key for stage in run.stages} for run in record.finished}
