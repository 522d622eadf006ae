"""A stability run as text: what the command prints, and the page of Markdown."""

from __future__ import annotations

from itertools import chain

from raymc.reporting.aligned import aligned, markdown_table
from raymc.reporting.baseline import lines as lines_of
from raymc.reporting.baseline import sentence
from raymc.reporting.stability.beside import beside_kmeans
from raymc.reporting.stability.comparison_sentences import comparison_lines, sharing_lines
from raymc.reporting.stability.sentences import (
    agreement_lines,
    clusters_given,
    may,
    may_not,
    settings,
    statistics_lines,
    varied,
    verdict,
)
from raymc.reporting.stability.tables import (
    by_group,
    by_seed,
    metric_names,
    seed_rows,
    statistics_rows,
    statistics_text,
)
from raymc.reporting.words import SMOKE, listing
from raymc.stability.reader import StabilityResult
from raymc.study.words import about_the_data


def terminal_text(run: StabilityResult) -> str:
    """A line per seed, then each arm's figures; with several what they share and how they differ."""
    said = about_the_data(run.result["manifest"]["data"])
    return "\n".join([*([SMOKE] if run.result["smoke"] else []), *filter(None, [said]), *_figures(run)])


def _figures(run: StabilityResult) -> list[str]:
    if not run.several:
        record = run.groups[0].record
        table = aligned(seed_rows(record, metric_names([record]), digits=4), "right")
        beside = beside_kmeans(run)
        return [table, *statistics_lines(run.result), *filter(None, [sentence(beside)]), *lines_of(beside)]
    metric = run.result["comparisons"][0]["metric"] or "–"
    lines = [aligned(by_seed(run.groups, run.result["seeds"], metric), "right")]
    for group in run.groups:
        lines += [f"{group.name}: {line}" for line in statistics_lines(group.result)]
    lines += [*clusters_given(run), *sharing_lines(run.result)]
    return [*lines, *chain.from_iterable(comparison_lines(run.result))]


def markdown(run: StabilityResult) -> str:
    """The page of Markdown: the words and tables of the page, without its pictures."""
    first, names = run.groups[0].result, [group.name for group in run.groups]
    lines = [f"# Stability of {listing(names)}", "", verdict(run), ""]
    lines += [SMOKE, ""] if run.result["smoke"] else []
    lines += [f"On {first['dataset']} ({first['split']}){', all arms on the same seeds' if run.several else ''}.", ""]
    lines += [
        f"- **{group.name}**: {group.result['method']}, {settings(group)}; "
        f"clusters: {group.result['clusters_by']}. {varied(group)}"
        for group in run.groups
    ]
    lines += filter(None, [about_the_data(run.result["manifest"]["data"])])
    lines += _section("What may be concluded", may(run))
    lines += _section("What may not be concluded", may_not(run))
    lines += ["", "## Seed by seed", "", *markdown_table(by_group(run.groups, run.result["seeds"]), "---:")]
    if run.several:
        lines += _section("What the arms have in common", sharing_lines(run.result))
        lines += _section("Comparisons", [" ".join(row) for row in comparison_lines(run.result)])
    rows = statistics_rows(run.groups, metric_names(run.records))
    lines += ["", "## Statistics", "", *markdown_table(statistics_text(rows), "---:"), ""]
    lines += [f"- {group.name}: {line}" for group in run.groups for line in agreement_lines(group.result)]
    if started := run.result["manifest"]["command"]:
        lines += ["", "## Run", "", f"    {started}"]
    return "\n".join([*lines, ""])


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", f"## {title}", "", *(f"- {line}" for line in lines)]
