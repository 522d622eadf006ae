"""Several arms in sentences: which stages they share, how each two differ, and what may be concluded from it."""

from __future__ import annotations

from typing import Any

from raymc.reporting.words import listing, parts_varied

Row = dict[str, Any]

LEVEL = 0.05


def sharing_lines(result: Row) -> list[str]:
    """Which stage results the arms have in common, and which stages their seeds vary."""
    groups = result["arms"]
    varied = {one["name"]: f"from `{one['seeds_from']}` on{parts_varied(one.get('varies'))}" for one in groups}
    if len(set(varied.values())) == 1:
        line = f"The seeds vary every stage {next(iter(varied.values()))}."
    else:
        own = listing([f"{name} {what}" for name, what in varied.items()])
        line = f"The seeds vary different stages ({own}): the arms' spreads are not of the same kind."
    return [_shared(result), line]


def comparison_lines(result: Row) -> list[list[str]]:
    """For each pair of arms sentences that say how they differ, and what may be concluded from it."""
    rows = result["comparisons"]
    tests = sum(row["p_wilcoxon"] is not None for row in rows)
    return [[_difference(row, tests), _conclusion(row, tests), *_resolved(row)] for row in rows]


def better(row: Row) -> str | None:
    """The arm of a pair that is better, beyond the luck of its seeds; None where nothing says so."""
    if row["p_holm"] is None or row["p_holm"] > LEVEL or row["fixed"]:
        return None
    mean = row["mean_difference"]
    # The mean and the share of pairs may point in different directions: then neither is called better.
    return str(row["a"] if mean > 0 else row["b"]) if (mean > 0) == (row["p_better"] > 0.5) else None


def _shared(result: Row) -> str:
    shared, seeds = result["shared_keys"], result["common_seeds"]
    # An arm without a finished seed says nothing about its stages; the others may still have something in common.
    groups = [one for one in result["arms"] if one["states"].get("finished")]
    which = "All arms" if len(groups) == len(result["arms"]) else listing([one["name"] for one in groups])
    if len(groups) < 2 or not seeds:
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
    holm_t = f", {row['p_t_holm']:.2g} with all {tests}" if tests > 1 else ""
    p = f"Wilcoxon's signed-rank test: p = {row['p_wilcoxon']:.2g}{holm}; paired t test: p = {row['p_t']:.2g}{holm_t}."
    return f"{head}: {over} (95 % interval of the paired difference {low:+.4f} to {high:+.4f}). {_share(row)} {p}"


def _share(row: Row) -> str:
    return f"P({row['a']} better) = {row['p_better']:.3f}: the share of all pairs of a seed of each, ties half."


def _conclusion(row: Row, tests: int) -> str:
    if row["p_wilcoxon"] is None:
        return "Nothing can be concluded from fewer than two common seeds."
    if row["ci95"] == [0, 0]:
        return "They are the same on every common seed: nothing tells them apart."
    if row["fixed"]:
        same = f"All seeds of {listing(row['fixed'])} have the same {row['metric']}"
        return f"{same}: that may be one piece of evidence, and the tests above count it as {row['n']}."
    least = tests * 2.0 ** (1 - row["n"])
    best = better(row)
    if best is not None:
        return f"{best} is better, beyond the luck of its seeds (5 % level)."
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
