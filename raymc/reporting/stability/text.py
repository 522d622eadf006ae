"""A stability run as text: what the command prints, and the page of Markdown."""

from __future__ import annotations

from raymc.reporting.aligned import aligned
from raymc.reporting.stability.comparison_sentences import comparison_lines, sharing_lines
from raymc.reporting.stability.sentences import (
    agreement_lines,
    may,
    may_not,
    statistics_lines,
    varied,
    verdict,
)
from raymc.reporting.stability.tables import (
    bars,
    by_group,
    by_seed,
    metric_names,
    seed_rows,
    statistics_rows,
    statistics_text,
)
from raymc.reporting.words import listing
from raymc.stability.reader import GroupResult, StabilityResult
from raymc.study.words import configured


def terminal_text(run: StabilityResult) -> str:
    """A line per seed, then each arm's figures; with several what they share and how they differ."""
    if not run.several:
        record = run.groups[0].record
        table = aligned(seed_rows(record, metric_names([record]), digits=4), "right")
        return "\n".join([table, *statistics_lines(run.result)])
    metric = run.result["comparisons"][0]["metric"] or "–"
    lines = [aligned(by_seed(run.groups, run.result["seeds"], metric), "right")]
    for group in run.groups:
        lines += [f"{group.name}: {line}" for line in statistics_lines(group.result)]
    told = (line for row in comparison_lines(run.result) for line in row)
    return "\n".join([*lines, *sharing_lines(run.result), *told])


def markdown(run: StabilityResult) -> str:
    """The page of Markdown: the words and tables of the page, without its pictures."""
    first, names = run.groups[0].result, [group.name for group in run.groups]
    lines = [f"# Stability of {listing(names)}", "", verdict(run), ""]
    lines += (
        ["A smoke run: every length is shortened, and the figures mean nothing.", ""] if run.result["smoke"] else []
    )
    lines += [f"On {first['dataset']} ({first['split']}){', all arms on the same seeds' if run.several else ''}.", ""]
    lines += [
        f"- **{group.name}**: {_settings(group)}; clusters: {group.result['clusters_by']}. {varied(group)}"
        for group in run.groups
    ]
    lines += _section("What may be concluded", may(run))
    lines += _section("What may not be concluded", may_not(run))
    lines += ["", "## Seed by seed", "", *bars(by_group(run.groups, run.result["seeds"]))]
    if run.several:
        lines += _section("What the arms have in common", sharing_lines(run.result))
        lines += _section("Comparisons", [" ".join(row) for row in comparison_lines(run.result)])
    rows = statistics_rows(run.groups, metric_names(run.records))
    lines += ["", "## Statistics", "", *bars(statistics_text(rows)), ""]
    lines += [f"- {group.name}: {line}" for group in run.groups for line in agreement_lines(group.result)]
    return "\n".join([*lines, "", "## Run", "", f"    {run.result['manifest']['command']}", ""])


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", f"## {title}", "", *(f"- {line}" for line in lines)]


def _settings(group: GroupResult) -> str:
    given = group.result.get("overrides")
    overrides = f" with {configured(given)}" if given else ""
    return f"{group.result['method']}, {configured(group.result['params'])}{overrides}"
