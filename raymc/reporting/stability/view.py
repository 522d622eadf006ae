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
from raymc.reporting.search.cost import stage_use
from raymc.reporting.search.trials_table import Cell
from raymc.reporting.stability import sentences as told
from raymc.reporting.stability.comparison_sentences import comparison_lines, sharing_lines
from raymc.reporting.stability.tables import by_group, metric_names, other_metrics, statistics_rows
from raymc.stability.reader import GroupResult, StabilityResult
from raymc.study.records import Row
from raymc.study.words import configured, duration


def build_view(run: StabilityResult) -> dict[str, Any]:
    """Every name that `stability.html.j2` uses, beside its style and script."""
    names = [name for name in metric_names(run.records) if any(name in group.result for group in run.groups)]
    others = other_metrics(run.groups)
    first = run.groups[0].result
    return {
        "name": run.result["name"],
        "title": words.listing([group.name for group in run.groups]),
        "several": run.several,
        "smoke": run.result["smoke"],
        "created": run.result["manifest"]["created"][:10],
        "data": f"{first['dataset']}: {first['split']}",
        "verdict": told.verdict(run),
        "cards": _cards(run),
        "may": told.may(run),
        "may_not": told.may_not(run),
        "statistics": statistics_rows(run.groups, names),
        "others": statistics_rows(run.groups, others),
        "by_seed": by_group(run.groups, run.result["seeds"]),
        "strip_plots": [(name, seed_strips(run.groups, name)) for name in names],
        "agreement": [_agreement(group) for group in run.groups if "agreement" in group.result],
        "curves": [(group.name, seed_curves(group, told.main_metric(group))) for group in run.groups],
        "comparisons": _comparisons(run),
        "headers": [*(["arm"] if run.several else []), "seed", "state", *names, "seconds", "stages reused"],
        "rows": [_row(group, i, names, run.several) for group in run.groups for i in range(len(group.record.seeds))],
        "errors": _errors(run),
        "arms": [_group(group) for group in run.groups],
        "cost": _cost(run),
        "stages": stage_use([group.record for group in run.groups])["by_stage"],
        "command": run.result["manifest"]["command"],
        "rewrite": _rewrite(run),
        "manifest": _manifest(run),
    }


def _cards(run: StabilityResult) -> list[Row]:
    """Of one arm the label metrics, or what stands for them; of several each one's main metric."""
    if run.several:
        mains = [(group, told.main_metric(group)) for group in run.groups]
        return [{"head": f"{group.name}: {name}", **group.result[name]} for group, name in mains if name]
    group = run.groups[0]
    names = [*(name for name in LABEL_METRICS if name in group.result), told.main_metric(group)]
    return [{"head": name, **group.result[name]} for name in dict.fromkeys(names) if name]


def _agreement(group: GroupResult) -> Row:
    return {
        "arm": group.name,
        "plot": heat_map(group),
        **group.result["pairwise_ari"],
        "certificate": group.result["certificate"],
        "acc": group.result["acc"]["mean"] if group.labelled else None,
    }


def _comparisons(run: StabilityResult) -> Row | None:
    if not run.several:
        return None
    rows = run.result["comparisons"]
    return {
        "rows": rows,
        "lines": comparison_lines(run.result),
        "sharing": sharing_lines(run.result),
        "tests": sum(row["p_wilcoxon"] is not None for row in rows),
        "plot": difference_strips(rows, run.groups),
    }


def _row(group: GroupResult, i: int, names: Sequence[str], several: bool) -> list[Cell]:
    """A seed of the table that a click sorts."""
    run = group.record.seeds[i]
    reused = sum(stage.cached for stage in run.stages if stage.epochs)
    total = sum(bool(stage.epochs) for stage in run.stages)
    return [
        *([Cell(group.name, group.name, kind="text")] if several else []),
        Cell(str(run.seed), run.seed),
        Cell(words.state(run.state), run.state, kind=f"state {run.state}"),
        *(Cell(words.score(run.metrics.get(name)), run.metrics.get(name)) for name in names),
        Cell(f"{run.seconds:,.1f}", run.seconds),
        Cell(f"{reused} of {total}" if total else "–", reused if total else None),
    ]


def _errors(run: StabilityResult) -> list[tuple[str, str]]:
    return [
        (f"{group.name + ', ' if run.several else ''}seed {seed.seed}", seed.error)
        for group in run.groups
        for seed in group.record.seeds
        if seed.error
    ]


def _group(group: GroupResult) -> Row:
    result = group.result
    overrides = result.get("overrides")
    return {
        "name": group.name,
        "settings": configured(result["params"]) + (f" with {configured(overrides)}" if overrides else ""),
        "method": result["method"],
        "space": result["space"],
        "clusters_by": result["clusters_by"],
        "varied": told.varied(group),
        "config": result.get("config") or {},
    }


def _cost(run: StabilityResult) -> list[str]:
    used = stage_use([group.record for group in run.groups])
    spent = sum(seed.seconds for group in run.groups for seed in group.record.seeds)
    seeds = sum(len(group.record.seeds) for group in run.groups)
    waiting = f", {duration(used['waited'])} of it waiting for stages that others computed" if used["waited"] else ""
    wall = run.result["manifest"].get("wall_seconds")
    lines = [f"Wall clock: {duration(wall)}."] if wall else ["The run did not come to its end."]
    lines.append(
        f"{words.count(seeds, 'training')} took {duration(spent)} in sum{waiting}; "
        "what ran at the same time counts in full."
    )
    total = used["computed"] + used["reused"]
    if used["reused"]:
        lines.append(
            f"{used['reused']:,} of {words.count(total, 'stage')} came from the store instead of being computed."
        )
    return lines


def _rewrite(run: StabilityResult) -> str:
    """With the storage that the run is in, by its folder `<storage>/stability/<name>` where the run does not say it."""
    storage = str(run.result.get("storage") or Path(run.result["folder"]).parent.parent)
    return shlex.join(["python", "-m", "raymc.report", str(run.result["name"]), "--storage", storage])


def _manifest(run: StabilityResult) -> list[tuple[str, str]]:
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
