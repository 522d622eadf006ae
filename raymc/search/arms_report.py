"""Several arms on the same seeds: their tables, and in words what they share and what may be concluded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raymc.reporting.words import listing
from raymc.search.live import words
from raymc.search.records import FINISHED, Row
from raymc.search.stability_report import (
    aligned,
    bars,
    csv_text,
    json_text,
    metric_names,
    seed_rows,
    shown,
    statistics_lines,
)
from raymc.training.outputs import write_bytes

LEVEL = 0.05


def write_arms(folder: Path, result: Row, found: Sequence[Row]) -> Path:
    """Write `stability.md`, `.csv` and `.json` to `folder`; returns the path of the first."""
    page = folder / "stability.md"
    per_seed = [arm | {"per_seed": record["per_seed"]} for arm, record in zip(result["arms"], found, strict=True)]
    write_bytes(page, arms_markdown(result, found).encode())
    write_bytes(folder / "stability.csv", csv_text(_all_seeds(result, found)).encode())
    write_bytes(folder / "stability.json", json_text(result | {"report": str(page), "arms": per_seed}).encode())
    return page


def arms_text(result: Row, found: Sequence[Row]) -> str:
    """What the command prints: a line per seed, each arm's figures, what the arms share, the comparisons."""
    lines = [_by_seed(result, found)]
    for arm in result["arms"]:
        lines += [f"{arm['name']}: {line}" for line in statistics_lines(arm)]
    return "\n".join([*lines, *sharing_lines(result), *(line for row in comparison_lines(result) for line in row)])


def arms_markdown(result: Row, found: Sequence[Row]) -> str:
    """The page of Markdown; its table has a row per arm and metric and a column per seed, as MLC's Table 6."""
    names = [arm["name"] for arm in result["arms"]]
    first = result["arms"][0]
    lines = [f"# Stability of {listing(names)}", ""]
    lines += ["A smoke run: every length is shortened, and the figures mean nothing.", ""] if result["smoke"] else []
    lines += [f"On {first['dataset']} ({first['split']}), all arms on the same seeds.", ""]
    lines += [f"- **{arm['name']}**: {_settings(arm)}; clusters: {arm['clusters_by']}" for arm in result["arms"]]
    lines += ["", *bars(_by_arm(result, found)), "", "## What the arms have in common", ""]
    lines += [f"- {line}" for line in sharing_lines(result)]
    lines += ["", "## Comparisons", ""]
    lines += [f"- {' '.join(row)}" for row in comparison_lines(result)]
    for arm in result["arms"]:
        lines += ["", f"## {arm['name']}", "", *(f"- {line}" for line in statistics_lines(arm))]
    return "\n".join([*lines, ""])


def sharing_lines(result: Row) -> list[str]:
    """Which stage results the arms have in common, and which stages their seeds vary."""
    varied = {arm["name"]: arm["seeds_from"] for arm in result["arms"]}
    if len(set(varied.values())) == 1:
        line = f"The seeds vary every stage from `{result['arms'][0]['seeds_from']}` on."
    else:
        own = listing([f"{name} from `{stage}` on" for name, stage in varied.items()])
        line = f"The seeds vary different stages ({own}): the arms' spreads are not of the same kind."
    return [_shared(result), line]


def comparison_lines(result: Row) -> list[list[str]]:
    """For each pair of arms sentences that say how they differ, and what may be concluded from it."""
    rows = result["comparisons"]
    tests = sum(row["p_wilcoxon"] is not None for row in rows)
    return [[_difference(row, tests), _conclusion(row, tests), *_resolved(row)] for row in rows]


def _shared(result: Row) -> str:
    shared, seeds = result["shared_keys"], result["common_seeds"]
    # An arm without a finished seed says nothing about its stages; the others may still have something in common.
    arms = [arm for arm in result["arms"] if arm["states"].get(FINISHED)]
    which = "All arms" if len(arms) == len(result["arms"]) else listing([arm["name"] for arm in arms])
    if len(arms) < 2 or not seeds:
        return "Which stages the arms share is not known: there is no seed that two of them finished."
    if not shared:
        head = "The arms do" if which == "All arms" else f"{which} do"
        return f"{head} not share their first stage: their differences are not due to the later stages alone."
    name, keys = next(iter(shared.items()))
    rest = [f"`{other}`" for other in list(shared)[1:]]
    also = f" They share {listing(rest)} too." if rest else ""
    if len(keys) == 1:
        what = f"one stage `{name}` (key {keys[0][:8]}…): what another seed of it would change is not in these figures."
    else:
        what = f"the same stage `{name}`, seed by seed ({len(keys)} results)."
    return f"{which} start from {what}{also}"


def _difference(row: Row, tests: int) -> str:
    head = f"{row['a']} against {row['b']}"
    if row["mean_difference"] is None:
        metric = "" if row["metric"] else " with a metric in common"
        share = "" if row["p_better"] is None else f" {_share(row)}"
        return f"{head}: no seed that both finished{metric}.{share}"
    over = f"{row['metric']} {row['mean_difference']:+.4f} on average over {row['n']} common seed{'s' * (row['n'] > 1)}"
    if row["ci95"] is None:
        return f"{head}: {over}. {_share(row)}"
    low, high = row["ci95"]
    holm = f", {row['p_holm']:.2g} with all {tests} tests taken into account (Holm)" if tests > 1 else ""
    p = f"Wilcoxon's signed-rank test: p = {row['p_wilcoxon']:.2g}{holm}."
    return f"{head}: {over} (95 % interval of the paired difference {low:+.4f} to {high:+.4f}). {_share(row)} {p}"


def _share(row: Row) -> str:
    return f"P({row['a']} better) = {row['p_better']:.3f}: the share of all pairs of a seed of each, ties half."


def _conclusion(row: Row, tests: int) -> str:
    if row["p_wilcoxon"] is None:
        return "Nothing can be concluded from fewer than two common seeds."
    if row["ci95"] == [0, 0]:
        return "They are the same on every common seed: nothing tells them apart."
    mean, least = row["mean_difference"], tests * 2.0 ** (1 - row["n"])
    if row["p_holm"] <= LEVEL and (mean > 0) == (row["p_better"] > 0.5):
        return f"{row['a'] if mean > 0 else row['b']} is better, beyond the luck of its seeds (5 % level)."
    if row["p_holm"] <= LEVEL:
        return "They differ (5 % level), but the mean and the share of pairs point in different directions."
    few = f", which {row['n']} seeds could not do: p cannot fall below {min(1.0, least):.2g} here"
    return f"The test does not tell them apart (5 % level){few if least > LEVEL else ''}."


def _resolved(row: Row) -> list[str]:
    if not row["resolves"] or row["ci95"] in (None, [0, 0]):
        return []
    size = "smaller" if abs(row["mean_difference"]) < row["resolves"] else "not smaller"
    return [
        f"So many seeds with this spread (s = {row['pooled_std']:.4f}) resolve a difference of the means of about "
        f"{row['resolves']:.4f} (2.8 s √(2/n), 80 % power); this one is {size}."
    ]


def _settings(arm: Row) -> str:
    overrides = f" with {words(arm['overrides'])}" if arm["overrides"] else ""
    return f"{arm['method']}, {words(arm['params'])}{overrides}"


def _by_arm(result: Row, found: Sequence[Row]) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [("arm", "metric", *map(str, result["seeds"]), "mean", "std")]
    for arm, record in zip(result["arms"], found, strict=True):
        for name in [name for name in metric_names(found) if name in arm] or ["–"]:
            by_seed = {row["seed"]: _cell(row, name) for row in record["per_seed"]}
            ends = [shown(arm[name][key], 4) for key in ("mean", "std")] if name in arm else ["", ""]
            rows.append((arm["name"], name, *(by_seed.get(seed, "") for seed in result["seeds"]), *ends))
    return rows


def _by_seed(result: Row, found: Sequence[Row]) -> str:
    """A line per seed and a column per arm, of the metric by which they are compared."""
    metric = result["comparisons"][0]["metric"] or "–"
    cells = [{row["seed"]: _cell(row, metric) for row in record["per_seed"]} for record in found]
    rows = [("seed", *(f"{arm['name']} {metric}" for arm in result["arms"]))]
    rows += [(str(seed), *(column.get(seed, "") for column in cells)) for seed in result["seeds"]]
    return aligned(rows)


def _cell(row: Row, name: str) -> str:
    """A seed's figure, or its state where it has none."""
    return shown(row["metrics"].get(name), 4) if row["state"] == FINISHED else str(row["state"])


def _all_seeds(result: Row, found: Sequence[Row]) -> list[Sequence[str]]:
    """The table of seeds of every arm, one under the other."""
    names = metric_names(found)
    tables = [seed_rows(record, names, digits=None) for record in found]
    rows: list[Sequence[str]] = [("arm", *tables[0][0])]
    for arm, table in zip(result["arms"], tables, strict=True):
        rows += [(arm["name"], *row) for row in table[1:]]
    return rows
