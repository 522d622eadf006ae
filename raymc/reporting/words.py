"""Numbers and facts of a study as text: how values are printed, and the sentences that say what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from raymc.metrics.gates import Gates
from raymc.metrics.names import STUDY_METRICS
from raymc.metrics.seeds import by_t_alone, detectable
from raymc.study.reader import Study
from raymc.study.records import SeedRun
from raymc.study.words import setting

SMOKE = "This is a smoke run: every length is shortened, and the figures mean nothing."
METRIC_WORDS = {
    "acc": "clustering accuracy (clusters matched to classes by the Hungarian method)",
    "nmi": "normalised mutual information (arithmetic mean)",
    "ari": "adjusted Rand index",
    "rate_reduction": "rate reduction, which needs no labels",
    "probe": "how well a linear probe of the samples learns the clusters, which needs no labels",
    "silhouette": "silhouette of the clusters among the samples, which needs no labels",
    "stability": "agreement between seeds (mean pairwise ARI), which needs no labels",
    "rank_mean": "mean rank among the trials by all label-free metrics, which needs no labels",
}
AGGREGATE_WORDS = {
    "lower": "A trial's score is the mean of its seeds less one standard error of that mean.",
    "min": "A trial's score is that of its worst seed.",
}
STATE_WORDS = {"out_of_memory": "out of memory", "running": "unfinished"}


def score(value: float | None) -> str:
    """A metric: four decimals, or five significant digits where it is large; a dash where absent."""
    if value is None:
        return "–"
    shown = f"{value:.4f}" if abs(value) < 10 else f"{value:.5g}"
    return shown.replace("-", "−")


def correlation(value: float | None) -> str:
    """A rank correlation: two decimals, since more are never known; a dash where undefined."""
    return "–" if value is None else f"{value:.2f}".replace("-", "−")


def count(n: int, noun: str, plural: str = "") -> str:
    """`1 trial`, `3 trials`."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def from_checkpoints(names: Sequence[str]) -> str:
    """`checkpoint a`, `checkpoints a and b`."""
    return f"{'checkpoint' if len(names) == 1 else 'checkpoints'} {listing(names)}"


def listing(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else ""


def hardware(machine: Mapping[str, Any]) -> str:
    """A manifest's hardware in a line; what is not known is left out."""
    gpus = [str(gpu) for gpu in machine.get("gpus") or ()]
    parts = [
        machine.get("cpu"),
        count(machine["cores"], "core") if machine.get("cores") else None,
        f"{machine['memory_gib']:.1f} GiB" if machine.get("memory_gib") else None,
        f"GPUs: {listing(gpus)}" if gpus else "no GPU" if machine else None,
    ]
    return ", ".join(str(part) for part in parts if part)


def reused(use: Mapping[str, Any]) -> str:
    """`3 of 12 stages came from the store …`, without an end; `use` as of `stage_use`."""
    total = count(use["computed"] + use["reused"], "stage")
    return f"{use['reused']:,} of {total} came from the store instead of being computed"


def manifest_rows(manifest: Mapping[str, Any], *own: tuple[str, object]) -> list[tuple[str, str]]:
    """By what something was run and when, with rows of its `own`; what is not known is left out."""
    found = [
        ("versions", ", ".join(f"{name} {text}" for name, text in (manifest["versions"] or {}).items() if text)),
        ("hardware", hardware(manifest["hardware"] or {})),
        ("git revision", manifest["git"]),
        *own,
        ("created", manifest["created"]),
    ]
    return [(name, str(value)) for name, value in found if value is not None and value != ""]


def precisions(runs: Iterable[SeedRun]) -> str:
    """In what trainings were computed, e.g. `float32`; empty where their records do not say."""
    return listing(sorted({run.precision for run in runs} - {""}))


def state(name: str) -> str:
    """The state of a trial or seed in words."""
    return STATE_WORDS.get(name, name)


def searched_range(spec: Mapping[str, Any]) -> str:
    """The values that a searched key may take."""
    where = "".join(f", where {key} is {setting(value)}" for key, value in (spec.get("when") or {}).items())
    if "choices" in spec:
        return "one of " + ", ".join(setting(choice) for choice in spec["choices"]) + where
    scale = ", log scale" if spec.get("log") else ""
    return f"{setting(spec.get('low'))} to {setting(spec.get('high'))}{scale}{where}"


def objective(study: Study) -> str:
    """What the search made large or small, and whether labels took part in choosing the winner."""
    goal = study.objective
    verb = "lowest" if goal.mode == "min" else "highest"
    metric = METRIC_WORDS.get(goal.metric, goal.metric)
    sought = f"The search looked for the {verb} {goal.metric}: {metric}."
    if goal.second:
        also = METRIC_WORDS.get(goal.second, goal.second)
        sought += f" Beside it stood {goal.second}: {also}. The first one decides between trials of the front."
    if goal.aggregate in AGGREGATE_WORDS:
        sought += f" {AGGREGATE_WORDS[goal.aggregate]}"
    if goal.constraint:
        sought += f" A trial without {goal.constraint}, mean of its seeds, cannot win."
    if goal.gates:
        sought += f" {_gates(goal.gates)}"
    if goal.uses_labels:
        return (
            f"{sought} Labels chose the winner, so its figures show what a search with labels at hand can reach, "
            "not what would have been found without them."
        )
    return (
        f"{sought} No label took part in choosing the winner; labels, where there are any, only measured it afterwards."
    )


def _gates(gates: Gates) -> str:
    smallest, largest = setting(gates.smallest_share), setting(gates.largest_share)
    return (
        f"A training whose smallest cluster had fewer than {smallest} n/k points, whose largest had more than "
        f"{largest} n/k, or whose embedding had a rank below {setting(gates.rank)}, counted as collapsed."
    )


def seeds_varied(study: Study) -> str:
    """Which stages a seed changes in this study and which are shared, hiding their own variance."""
    stages, first = study.stage_names, study.get("seeds_from")
    if not first:
        return "The study does not say which stages its seeds vary."
    only = parts_varied(study.get("varies"))
    if first not in stages:
        return f"Seeds vary the stages from {first} on{only}."
    position = stages.index(first)
    if position == 0:
        return f"Seeds vary every stage ({listing(stages)}){only}."
    varied, shared = stages[position:], stages[:position]
    keep, their = ("keeps", "its") if len(shared) == 1 else ("keep", "their")
    return (
        f"Seeds vary {stages_named(varied)}{only}. Over all of them {stages_named(shared)} {keep} the base seed "
        f"{study.get('seed')}: the spread shown here leaves out what {their} own seed would add."
    )


def stages_named(names: Sequence[str]) -> str:
    """`the stage a`, `the stages a and b`."""
    return f"the {'stage' if len(names) == 1 else 'stages'} {listing(names)}"


def parts_varied(varies: object) -> str:
    """`, in their order alone` where a seed changes some of what it could (the key `varies`); else empty."""
    if not isinstance(varies, str) or varies == "all":
        return ""
    return f", in their {listing([word.strip() for word in varies.split(',')])} alone"


def conclusions(study: Study, best: Mapping[str, Any] | None) -> list[str]:
    """What the winner's confirmation allows one to say, and what not; `best` as in `facts.confirmation`."""
    metric = study.objective.metric
    found = (best or {}).get("statistics", {}).get(metric)
    if best is not None and not study.by_seed and best["score"] is not None:
        return [_of_the_group(study, best)]
    if best is None or found is None:
        return [
            f"Nothing about new seeds: no configuration has {metric} on seeds that the search did not use. The search "
            "score is the best of several and therefore optimistic."
        ]
    if found["n"] < 2 or found["std"] is None:
        return [f"Little: one fresh seed gave {metric} {score(found['mean'])} and says nothing about the spread."]
    rest = "Nothing here speaks of other data, other lengths of training, or values outside the ranges searched."
    return [*_of_several(metric, found), rest]


def _of_the_group(study: Study, best: Mapping[str, Any]) -> str:
    n = len(best["seeds"])
    if study.objective.metric in STUDY_METRICS:
        return (
            "A mean rank says which configuration is ahead of the others that were run, not how good it is. The "
            "figures of each metric on fresh seeds stand in the table."
        )
    return (
        f"The clusters of the {n} fresh seeds agree by {score(best['score'])} (adjusted Rand index, mean of "
        f"{n * (n - 1) // 2} pairs; the pairs share seeds, so there is no interval). Agreement can be had by being "
        "wrong in the same way: it bounds the accuracy from above and promises nothing."
    )


def _of_several(metric: str, found: Mapping[str, Any]) -> list[str]:
    n, (low, high) = found["n"], found["ci95"]
    if found["std"] == 0:
        return [f"All {n} fresh seeds gave {metric} {score(found['mean'])} exactly: they say nothing about the spread."]
    return [
        f"The mean {metric} of this configuration lies between {score(low)} and {score(high)} (95 % interval "
        f"{by_t(metric, found)}, {n} fresh seeds). One new training is less certain than that mean: the seeds seen "
        f"here ran from {score(found['min'])} to {score(found['max'])}.",
        f"With this spread, {n} seeds on each side tell two configurations apart (5 % level, 80 % power) only if they "
        f"differ by about {score(detectable(found['std'], n))} or more. Smaller gaps between trials are no evidence.",
    ]


def by_t(metric: str, found: Mapping[str, Any]) -> str:
    """By what the interval `ci95` of a metric's statistics is."""
    law = "by Student's t"
    return law if by_t_alone(found) else f"{law} on the logit scale, since else it passes what {metric} can be"


def empty_clusters(statistics: Mapping[str, Any], asked: object, what: str) -> str:
    """`each of 3 fresh seeds left clusters empty …`, without an end, where it is so of all finished ones; else empty.

    `asked` is the number of clusters, as far as it is known; `what` what a training is called.
    """
    smallest, used = statistics.get("smallest_share"), statistics.get("clusters_used")
    if smallest is None or used is None or smallest["max"] > 0:
        return ""
    low, high = (f"{used[end]:.0f}" for end in ("min", "max"))
    some = (low if low == high else f"{low} to {high}") + (f" of {asked}" if isinstance(asked, int) else "")
    each = f"the one {what}" if used["n"] == 1 else f"each of {used['n']} {what}s"
    return (
        f"{each} left clusters empty ({some} have samples): ask for fewer clusters, or set objective.gates, which "
        "count such a training as collapsed"
    )


def consensus(found: Mapping[str, Any] | None) -> str:
    """What seeds say together (`raymc.study.groups.Consensus.scores`), in a clause; empty where there is none."""
    if found is None:
        return ""
    how = f"acc {score(found['acc'])}, " if "acc" in found else ""
    return (
        f"the consensus of {found['n']} seeds (evidence accumulation): {how}mean agreement {score(found['agreement'])}"
    )
