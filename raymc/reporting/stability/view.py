"""What the template of a stability report shows: sentences, tables, pictures, and by what it was run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raymc.metrics.names import LABEL_METRICS
from raymc.program import command_line
from raymc.reporting import baseline, words
from raymc.reporting.charts.coding_lengths import length_curves
from raymc.reporting.charts.seed_curves import seed_curves
from raymc.reporting.charts.seeds import difference_strips, heat_map, seed_strips
from raymc.reporting.search.cost import held, stage_use
from raymc.reporting.search.sentences import held as held_lines
from raymc.reporting.search.trials_table import Cell, effort_cells, score_cell, state_cell
from raymc.reporting.stability import sentences
from raymc.reporting.stability.beside import beside_kmeans
from raymc.reporting.stability.comparison_sentences import comparison_lines, sharing_lines
from raymc.reporting.stability.tables import by_group, metric_names, other_metrics, statistics_rows
from raymc.stability.reader import GroupResult, StabilityResult
from raymc.study.records import Record, Row, SeedRun
from raymc.study.words import duration


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
        "verdict": sentences.verdict(run),
        "cards": _cards(run),
        "baseline": beside_kmeans(run),
        "baseline_words": baseline.lines(beside_kmeans(run)),
        "may": sentences.may(run),
        "may_not": sentences.may_not(run),
        "statistics": statistics_rows(run.groups, names),
        "others": statistics_rows(run.groups, others),
        "by_seed": by_group(run.groups, run.result["seeds"]),
        "strip_plots": [(name, seed_strips(run.groups, name)) for name in names],
        "agreement": [_agreement(group) for group in run.groups if "agreement" in group.result],
        "curves": [(group.name, seed_curves(group, sentences.main_metric(group))) for group in run.groups],
        "counts": _counts(run),
        "comparisons": _comparisons(run),
        "headers": [*(["arm"] if run.several else []), "seed", "state", *names, "seconds", "stages reused"],
        "rows": [_row(group, seed, names, run.several) for group in run.groups for seed in group.record.seeds],
        "errors": _errors(run),
        "arms": [_group(group) for group in run.groups],
        "cost": _cost(run),
        "stages": stage_use(_all_records(run))["by_stage"],
        "command": run.result["manifest"]["command"],
        "rewrite": _rewrite(run),
        "manifest": _manifest(run),
    }


def _cards(run: StabilityResult) -> list[Row]:
    """Of one arm the label metrics, or what stands for them; of several each one's main metric."""
    if run.several:
        mains = [(group, sentences.main_metric(group)) for group in run.groups]
        return [{"head": f"{group.name}: {name}", **group.result[name]} for group, name in mains if name]
    group = run.groups[0]
    names = [*(name for name in LABEL_METRICS if name in group.result), sentences.main_metric(group)]
    return [{"head": name, **group.result[name]} for name in dict.fromkeys(names) if name]


def _agreement(group: GroupResult) -> Row:
    return {
        "arm": group.name,
        "plot": heat_map(group),
        **group.result["pairwise_ari"],
        "certificate": group.result["certificate"],
        "acc": group.result["acc"]["mean"] if group.labelled else None,
    }


def _counts(run: StabilityResult) -> list[tuple[str, Row]]:
    """Of each configuration that looked for its number of clusters, what it found."""
    classes = run.result["manifest"]["data"].get("n_classes")
    found = [(group.name, length_curves(group.record.finished, classes)) for group in run.groups]
    return [(name, one) for name, one in found if one]


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


def _row(group: GroupResult, run: SeedRun, names: Sequence[str], several: bool) -> list[Cell]:
    """A seed of the table that a click sorts."""
    stages = [stage for stage in run.stages if stage.epochs]
    return [
        *([Cell(group.name, group.name, kind="text")] if several else []),
        Cell(str(run.seed), run.seed),
        state_cell(run.state),
        *(score_cell(run.metrics.get(name)) for name in names),
        *effort_cells(run.seconds, sum(stage.cached for stage in stages), len(stages)),
    ]


def _errors(run: StabilityResult) -> list[tuple[str, str]]:
    seeds = [(f"{group.name}, " * run.several, seed) for group in run.groups for seed in group.record.seeds]
    return [(f"{head}seed {seed.seed}", seed.error) for head, seed in seeds if seed.error]


def _group(group: GroupResult) -> Row:
    result = group.result
    return {
        "name": group.name,
        "settings": sentences.settings(group),
        **{key: result[key] for key in ("method", "space", "clusters_by")},
        "varied": sentences.varied(group),
        "config": result.get("config") or {},
    }


def _all_records(run: StabilityResult) -> list[Record]:
    return [record for group in run.groups for record in (*group.stages, group.record)]


def _cost(run: StabilityResult) -> list[str]:
    used = stage_use(_all_records(run))
    spent = sum(seed.seconds for group in run.groups for seed in group.record.seeds)
    seeds = sum(len(group.record.seeds) for group in run.groups)
    waiting = f", {duration(used['waited'])} of it waiting for stages that others computed" if used["waited"] else ""
    wall = run.result["manifest"].get("wall_seconds")
    lines = [f"Wall clock: {duration(wall)}."] if wall else ["The run did not come to its end."]
    before = sum(stage.seconds for group in run.groups for stage in group.stages)
    shared = f"Shared stages took {duration(before)} before the seeds. " if before else ""
    lines.append(
        f"{shared}{words.count(seeds, 'training')} took {duration(spent)} in sum{waiting}; "
        "what ran at the same time counts in full."
    )
    hours = held(_all_records(run))
    if hours["assumed"] < hours["trainings"]:
        lines += held_lines(hours)
    return [*lines, f"{words.reused(used)}."] if used["reused"] else lines


def _rewrite(run: StabilityResult) -> str:
    """With the storage that the run is in, by its folder `<storage>/stability/<name>` where the run does not say it."""
    storage = str(run.result.get("storage") or Path(run.result["folder"]).parent.parent)
    return command_line("report", [str(run.result["name"]), "--storage", storage])


def _manifest(run: StabilityResult) -> list[tuple[str, str]]:
    facts: Mapping[str, Any] = run.result["manifest"]
    data = facts["data"]
    return words.manifest_rows(
        facts,
        ("data", f"{data['name']}, {data['n']:,} samples, fingerprint {data['fingerprint']}"),
        ("seeds", words.listing([str(seed) for seed in run.result["seeds"]])),
        ("computed in", words.precisions(seed for group in run.groups for seed in group.record.seeds)),
        ("tracking", run.result["tracking_uri"]),
        ("results", run.result["folder"]),
    )
