"""A stability run as text: what the command prints, and the page of Markdown."""

from __future__ import annotations

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
    aligned,
    bars,
    by_arm,
    by_seed,
    metric_names,
    seed_rows,
    statistics_rows,
    statistics_text,
)
from raymc.reporting.steady import Arm, Steady
from raymc.reporting.words import configured, listing


def terminal_text(run: Steady) -> str:
    """A line per seed, then each arm's figures; with several what they share and how they differ."""
    if not run.several:
        record = run.arms[0].record
        table = aligned(seed_rows(record, metric_names([record]), digits=4))
        return "\n".join([table, *statistics_lines(run.result)])
    lines = [aligned(by_seed(run.arms, run.result["seeds"], run.result["comparisons"][0]["metric"] or "–"))]
    for arm in run.arms:
        lines += [f"{arm.name}: {line}" for line in statistics_lines(arm.result)]
    told = (line for row in comparison_lines(run.result) for line in row)
    return "\n".join([*lines, *sharing_lines(run.result), *told])


def markdown(run: Steady) -> str:
    """The page of Markdown: the words and tables of the page, without its pictures."""
    first, names = run.arms[0].result, [arm.name for arm in run.arms]
    lines = [f"# Stability of {listing(names)}", "", verdict(run), ""]
    lines += (
        ["A smoke run: every length is shortened, and the figures mean nothing.", ""] if run.result["smoke"] else []
    )
    lines += [f"On {first['dataset']} ({first['split']}){', all arms on the same seeds' if run.several else ''}.", ""]
    lines += [
        f"- **{arm.name}**: {_settings(arm)}; clusters: {arm.result['clusters_by']}. {varied(arm)}" for arm in run.arms
    ]
    lines += _section("What may be concluded", may(run))
    lines += _section("What may not be concluded", may_not(run))
    lines += ["", "## Seed by seed", "", *bars(by_arm(run.arms, run.result["seeds"]))]
    if run.several:
        lines += _section("What the arms have in common", sharing_lines(run.result))
        lines += _section("Comparisons", [" ".join(row) for row in comparison_lines(run.result)])
    rows = statistics_rows(run.arms, metric_names(run.records))
    lines += ["", "## Statistics", "", *bars(statistics_text(rows)), ""]
    lines += [f"- {arm.name}: {line}" for arm in run.arms for line in agreement_lines(arm.result)]
    return "\n".join([*lines, "", "## Run", "", f"    {run.result['manifest']['command']}", ""])


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", f"## {title}", "", *(f"- {line}" for line in lines)]


def _settings(arm: Arm) -> str:
    given = arm.result.get("overrides")
    overrides = f" with {configured(given)}" if given else ""
    return f"{arm.result['method']}, {configured(arm.result['params'])}{overrides}"
