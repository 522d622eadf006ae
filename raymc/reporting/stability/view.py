"""What the template of a stability report shows: sentences, tables, pictures, and by what it was run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raymc.metrics.names import LABEL_METRICS
from raymc.reporting import words
from raymc.reporting.charts.seed_curves import seed_curves
from raymc.reporting.charts.seeds import difference_strips, heat_map, seed_strips
from raymc.reporting.comparison import Row
from raymc.reporting.search.cost import stage_use
from raymc.reporting.search.trials_table import Cell
from raymc.reporting.stability import sentences as told
from raymc.reporting.stability.comparison_sentences import comparison_lines, sharing_lines
from raymc.reporting.stability.tables import by_arm, metric_names, other_metrics, statistics_rows
from raymc.reporting.steady import Arm, Steady


def build_view(run: Steady) -> dict[str, Any]:
    """Every name that `stability.html.j2` uses, beside its style and script."""
    names = [name for name in metric_names(run.records) if any(name in arm.result for arm in run.arms)]
    others = other_metrics(run.arms)
    first = run.arms[0].result
    return {
        "name": run.result["name"],
        "title": words.listing([arm.name for arm in run.arms]),
        "several": run.several,
        "smoke": run.result["smoke"],
        "created": run.result["manifest"]["created"][:10],
        "data": f"{first['dataset']}: {first['split']}",
        "verdict": told.verdict(run),
        "cards": _cards(run),
        "may": told.may(run),
        "may_not": told.may_not(run),
        "statistics": statistics_rows(run.arms, names),
        "others": statistics_rows(run.arms, others),
        "by_seed": by_arm(run.arms, run.result["seeds"]),
        "strip_plots": [(name, seed_strips(run.arms, name)) for name in names],
        "agreement": [_agreement(arm) for arm in run.arms if "agreement" in arm.result],
        "curves": [(arm.name, seed_curves(arm, told.main_metric(arm))) for arm in run.arms],
        "comparisons": _comparisons(run),
        "headers": [*(["arm"] if run.several else []), "seed", "state", *names, "seconds", "stages reused"],
        "rows": [_row(arm, i, names, run.several) for arm in run.arms for i in range(len(arm.runs.seeds))],
        "errors": _errors(run),
        "arms": [_arm(arm) for arm in run.arms],
        "cost": _cost(run),
        "stages": stage_use([arm.runs for arm in run.arms])["by_stage"],
        "command": run.result["manifest"]["command"],
        "rewrite": _rewrite(run),
        "manifest": _manifest(run),
    }


def _cards(run: Steady) -> list[Row]:
    """Of one arm the label metrics, or what stands for them; of several each one's main metric."""
    if run.several:
        mains = [(arm, told.main_metric(arm)) for arm in run.arms]
        return [{"head": f"{arm.name}: {name}", **arm.result[name]} for arm, name in mains if name]
    arm = run.arms[0]
    names = [*(name for name in LABEL_METRICS if name in arm.result), told.main_metric(arm)]
    return [{"head": name, **arm.result[name]} for name in dict.fromkeys(names) if name]


def _agreement(arm: Arm) -> Row:
    return {
        "arm": arm.name,
        "plot": heat_map(arm),
        **arm.result["pairwise_ari"],
        "certificate": arm.result["certificate"],
        "acc": arm.result["acc"]["mean"] if arm.labelled else None,
    }


def _comparisons(run: Steady) -> Row | None:
    if not run.several:
        return None
    rows = run.result["comparisons"]
    return {
        "rows": rows,
        "lines": comparison_lines(run.result),
        "sharing": sharing_lines(run.result),
        "tests": sum(row["p_wilcoxon"] is not None for row in rows),
        "plot": difference_strips(rows, run.arms),
    }


def _row(arm: Arm, i: int, names: Sequence[str], several: bool) -> list[Cell]:
    """A seed of the table that a click sorts."""
    run = arm.runs.seeds[i]
    reused = sum(stage.cached for stage in run.stages if stage.epochs)
    total = sum(bool(stage.epochs) for stage in run.stages)
    return [
        *([Cell(arm.name, arm.name, kind="text")] if several else []),
        Cell(str(run.seed), run.seed),
        Cell(words.state(run.state), run.state, kind=f"state {run.state}"),
        *(Cell(words.score(run.metrics.get(name)), run.metrics.get(name)) for name in names),
        Cell(f"{run.seconds:,.1f}", run.seconds),
        Cell(f"{reused} of {total}" if total else "–", reused if total else None),
    ]


def _errors(run: Steady) -> list[tuple[str, str]]:
    return [
        (f"{arm.name + ', ' if run.several else ''}seed {row['seed']}", str(row["error"]))
        for arm in run.arms
        for row in arm.record["per_seed"]
        if row.get("error")
    ]


def _arm(arm: Arm) -> Row:
    result = arm.result
    overrides = result.get("overrides")
    return {
        "name": arm.name,
        "settings": words.configured(result["params"]) + (f" with {words.configured(overrides)}" if overrides else ""),
        "method": result["method"],
        "space": result["space"],
        "clusters_by": result["clusters_by"],
        "varied": told.varied(arm),
        "config": result.get("config") or {},
    }


def _cost(run: Steady) -> list[str]:
    used = stage_use([arm.runs for arm in run.arms])
    spent = sum(seed.seconds for arm in run.arms for seed in arm.runs.seeds)
    seeds = sum(len(arm.runs.seeds) for arm in run.arms)
    wall = run.result["manifest"].get("wall_seconds")
    lines = [f"Wall clock: {words.duration(wall)}."] if wall else ["The run did not come to its end."]
    lines.append(
        f"{words.count(seeds, 'training')} took {words.duration(spent)} in sum, waiting for shared stages included; "
        "what ran at the same time counts in full."
    )
    total = used["computed"] + used["reused"]
    if used["reused"]:
        lines.append(
            f"{used['reused']:,} of {words.count(total, 'stage')} came from the store instead of being computed."
        )
    return lines


def _rewrite(run: Steady) -> str:
    """With the storage that the run is in, by its folder `<storage>/stability/<name>` where the run does not say it."""
    storage = str(run.result.get("storage") or Path(run.result["folder"]).parent.parent)
    return shlex.join(["python", "-m", "raymc.report", str(run.result["name"]), "--storage", storage])


def _manifest(run: Steady) -> list[tuple[str, str]]:
    facts: Mapping[str, Any] = run.result["manifest"]
    data = facts["data"]
    found = [
        ("versions", ", ".join(f"{name} {text}" for name, text in facts["versions"].items() if text)),
        ("hardware", words.hardware(facts["hardware"])),
        ("git revision", facts["git"]),
        ("data", f"{data['name']}, {data['n']:,} samples, fingerprint {data['fingerprint']}"),
        ("seeds", words.listing([str(seed) for seed in run.result["seeds"]])),
        ("tracking", run.result["tracking_uri"]),
        ("results", run.result["folder"]),
        ("created", facts["created"]),
    ]
    return [(name, str(value)) for name, value in found if value]
