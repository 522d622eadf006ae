"""A stability run in sentences: what was found, what may be concluded from it and what may not, what arms share."""

from __future__ import annotations

from collections.abc import Sequence

from raymc.metrics.seeds import detectable
from raymc.reporting import words
from raymc.reporting.baseline import sentence
from raymc.reporting.stability.beside import beside_kmeans
from raymc.reporting.stability.comparison_sentences import better, comparison_lines
from raymc.reporting.stability.tables import ORDER
from raymc.reporting.words import SMOKE, count, listing, score
from raymc.rng import PARTS
from raymc.stability.comparison import METRICS
from raymc.stability.reader import GroupResult, StabilityResult
from raymc.study.groups import seed_values
from raymc.study.records import Row
from raymc.study.words import configured

WEAK = 10
"""Seeds below which the word is "weak"."""

ENOUGH = 6
"""Pairs below which Wilcoxon's signed-rank test cannot reach the 5 % level."""


def main_metric(group: GroupResult) -> str | None:
    """What an arm is judged by: ACC, else the first metric that needs no labels."""
    return next((name for name in METRICS if name in group.result), None)


def verdict(run: StabilityResult) -> str:
    """What was found: of one arm its figures, of several which are better."""
    if not run.several:
        return " ".join(filter(None, (_found(run.groups[0]), sentence(beside_kmeans(run)))))
    lost = [f"{group.name}: no seed finished." for group in run.groups if main_metric(group) is None]
    return " ".join(_better(run) + lost) or "There is nothing to compare."


def _found(group: GroupResult) -> str:
    result, metric = group.result, main_metric(group)
    who = f"{result['method']} on {result['dataset']}"
    if metric is None:
        return f"{who}: no seed finished."
    found = result[metric]
    if found["n"] == 1:
        return f"{who} reaches {metric} {score(found['mean'])} on one seed: nothing is known of its spread."
    return (
        f"{who} reaches {metric} {score(found['mean'])} ± {score(found['std'])} over {found['n']} seeds "
        f"(from {score(found['min'])} to {score(found['max'])})."
    )


def _better(run: StabilityResult) -> list[str]:
    """The pairs of arms that can be told apart, and those that cannot."""
    beaten: dict[str, list[str]] = {}
    alike = []
    for row in run.result["comparisons"]:
        best = better(row)
        if best is not None:
            beaten.setdefault(best, []).append(row["b"] if best == row["a"] else row["a"])
        elif row["n"]:
            alike.append(f"{row['a']} and {row['b']}")
    metric = run.result["comparisons"][0]["metric"] if beaten else ""
    known = [f"{best} has better {metric} than {listing(others)}" for best, others in beaten.items()]
    lines = [f"{', '.join(known)}, beyond the luck of the seeds."] if known else []
    return [*lines, f"Not told apart: {', '.join(alike)}."] if alike else lines


def may(run: StabilityResult) -> list[str]:
    """What may be concluded, in words."""
    each = [
        [*_mean(group), *_resolved(group, run.several), *_certified(group), *_together(group)] for group in run.groups
    ]
    return [*_conclusions(run, apart=True), *_by_group(run, each), *clusters_given(run)] or [
        "Nothing: no two seeds finished."
    ]


def may_not(run: StabilityResult) -> list[str]:
    """What must not be concluded: what the seeds did not vary, how few they are, what was lost."""
    lines = [SMOKE] if run.result["smoke"] else []
    if run.result.get("missing_arms"):
        lines.append(f"The run was interrupted before it came to {listing(run.result['missing_arms'])}.")
    lines += _few(run) + _conclusions(run, apart=False)
    lines += _by_group(run, [[*lost_lines(group.result), *_hidden(group), *_chosen(group)] for group in run.groups])
    if not any(group.labelled for group in run.groups) and any(main_metric(group) for group in run.groups):
        lines.append("There are no labels: nothing here says whether the clusters are the right ones.")
    return [*lines, "Nothing here speaks of other data, other lengths of training or other settings."]


def _conclusions(run: StabilityResult, apart: bool) -> list[str]:
    """Of each pair of arms that is told apart, or that is not, the sentence that says so."""
    if not run.several:
        return []
    lines = []
    for row, (_, said, *_rest) in zip(run.result["comparisons"], comparison_lines(run.result), strict=True):
        if (better(row) is not None) == apart:
            text = said if said.startswith((row["a"], row["b"])) else said[:1].lower() + said[1:]
            lines.append(f"{row['a']} against {row['b']}: {text}")
    return lines


def _by_group(run: StabilityResult, each: Sequence[Sequence[str]]) -> list[str]:
    """The arms' lines, each with its arm's name; what is so for all of them is said once, first."""
    shared = [line for line in each[0] if all(line in lines for lines in each)]
    own = [
        f"{group.name}: {line}."
        for group, lines in zip(run.groups, each, strict=True)
        for line in lines
        if line not in shared
    ]
    return [f"{line[:1].upper()}{line[1:]}." for line in shared] + own


def clusters_given(run: StabilityResult) -> list[str]:
    """Of arms that were given the number of clusters that another one's seeds found."""
    found = {group.name: seed_values(group.record.finished).get("clusters_found", []) for group in run.groups}
    given: dict[tuple[str, int], list[str]] = {}
    for group in run.groups:
        if finder := group.result.get("n_clusters_by"):
            given.setdefault((finder, group.result["config"]["n_clusters"]), []).append(group.name)
    return [
        f"{listing(names)} {'was' if len(names) == 1 else 'were'} given {n} clusters, the median of what the seeds of "
        f"{finder} found by coding length ({', '.join(f'{value:.0f}' for value in found.get(finder, []))})."
        for (finder, n), names in given.items()
    ]


def varied(group: GroupResult) -> str:
    """What differed between the seeds of an arm."""
    stages, first = _stages(group), str(group.result["seeds_from"])
    later = stages[stages.index(first) :] if first in stages else [first]
    which = words.stages_named(later) if later != stages else "every stage"
    return f"The seeds vary {which}{words.parts_varied(group.result.get('varies'))}."


def settings(group: GroupResult) -> str:
    """The configuration, and what the command line changed of it."""
    overrides = group.result.get("overrides")
    return configured(group.result["params"]) + (f" with {configured(overrides)}" if overrides else "")


def statistics_lines(result: Row) -> list[str]:
    """`acc: mean ± std, min to max, 95 % interval of the mean …` for each metric in the table."""
    lines = [
        f"{name}: {found['mean']:.4f} ± {found['std']:.4f} over {found['n']} seeds, {found['min']:.4f} to "
        f"{found['max']:.4f}, 95 % interval of the mean {found['ci95'][0]:.4f} to {found['ci95'][1]:.4f}"
        for name, found in ((name, result[name]) for name in ORDER if name in result)
    ]
    return lines + agreement_lines(result) + lost_lines(result)


def agreement_lines(result: Row) -> list[str]:
    """How alike the clusters of two seeds are; none with fewer than two seeds."""
    if "pairwise_ari" not in result:
        return []
    found = result["pairwise_ari"]
    return [f"agreement between seeds (ARI): {found['mean']:.4f}, at least {found['min']:.4f}"]


def lost_lines(result: Row) -> list[str]:
    """The seeds that are in no figure, and why; and that those which are left clusters empty."""
    lost = {state: n for state, n in result["states"].items() if state != "finished"}
    seeds = len(result["seeds"]) + len(result.get("missing", ()))
    lines = [f"{n} of {seeds} seeds {words.state(state)}: not in these figures" for state, n in lost.items()]
    if result.get("missing"):
        lines.append(f"{len(result['missing'])} of {seeds} seeds unfinished: not in these figures")
    empty = words.empty_clusters(result, result["config"].get("n_clusters"), "seed")
    return [*lines, *filter(None, [empty])]


def _mean(group: GroupResult) -> list[str]:
    metric, found = _main(group)
    if found.get("n", 0) < 2:
        return []
    if found["std"] == 0:
        return [f"the {found['n']} seeds have the same {metric}: they say nothing about its spread"]
    low, high = found["ci95"]
    return [
        f"the mean {metric} lies between {score(low)} and {score(high)} (95 % interval "
        f"{words.by_t(str(metric), found)}); one new training is less certain than that mean"
    ]


def _resolved(group: GroupResult, several: bool) -> list[str]:
    """How large a difference so many seeds find; with several arms the comparisons say it in the metric's own units."""
    _, found = _main(group)
    n = found.get("n", 0)
    if n < 2 or not found["std"]:
        return []
    if n < ENOUGH:
        return [
            f"{n} seeds a side are too few for the test used here, which needs {ENOUGH} to tell two apart (5 % level)"
        ]
    own = "" if several else f"{score(detectable(found['std'], n))} on, "
    return [
        f"{n} seeds a side with this spread tell two configurations apart (5 % level, 80 % power) from a difference of "
        f"{own}{detectable(1.0, n):.2f} standard deviations{' on' if several else ''}"
    ]


def _main(group: GroupResult) -> tuple[str | None, Row]:
    metric = main_metric(group)
    return metric, group.result[metric] if metric else {}


def _certified(group: GroupResult) -> list[str]:
    found = group.result.get("certificate")
    if found is None:
        return []
    measured = f"; measured with the labels: {score(group.result['acc']['mean'])}" if group.labelled else ""
    return [
        f"two seeds disagree on {100 * found['mean_disagreement']:.1f} % of the samples on average, clusters matched; "
        f"so whatever the true classes are, the mean ACC is at most {score(found['acc_at_most'])} (1 − d/2){measured}"
    ]


def _together(group: GroupResult) -> list[str]:
    """What the seeds say together, beside what one of them says on average."""
    said = words.consensus(group.result.get("consensus"))
    return [said] if said else []


def _few(run: StabilityResult) -> list[str]:
    n = min(filter(None, (len(group.record.finished) for group in run.groups)), default=WEAK)
    weak = f"{count(n, 'seed')} {'is' if n == 1 else 'are'} weak evidence: below {WEAK} the spread itself is uncertain."
    return [weak] if n < WEAK else []


def _hidden(group: GroupResult) -> list[str]:
    """Whose own variance the figures leave out."""
    stages, first = _stages(group), str(group.result["seeds_from"])
    shared = stages[: stages.index(first)] if first in stages else []
    lines = []
    if shared:
        lines.append(
            f"all seeds share one result of {words.stages_named(shared)}: what another "
            f"seed of {'them' if len(shared) > 1 else 'it'} would change is not in the spread"
        )
    if parts := _in_common(group):
        others = "another" if len(parts) == 1 else "others"
        lines.append(f"the seeds have {listing(parts)} in common: what {others} would change is not in the spread")
    if group.record.checkpoints:
        halved = words.from_checkpoints(group.record.checkpoints)
        lines.append(f"trainings started from weights that were rounded to float16: {halved}")
    return lines


def _in_common(group: GroupResult) -> list[str]:
    """The parts of a seed that are the same for all seeds (the key `varies`)."""
    varies = group.result.get("varies", "all")
    return [] if varies == "all" else [name for name in PARTS if name not in varies.split(",")]


def _chosen(group: GroupResult) -> list[str]:
    """By what a study chose its winner."""
    found = group.result.get("chosen_by")
    if not found or not found["uses_labels"]:
        return []
    return [
        f"labels chose this configuration (its study searched by {found['metric']}): the figures show what a search "
        "with labels reaches, not one without"
    ]


def _stages(group: GroupResult) -> list[str]:
    runs = [[stage.name for stage in run.stages if stage.epochs] for run in group.record.seeds]
    return max(runs, key=len, default=[])
