"""What may be said of a choice that was made without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from raymc.metrics.clustering import adjusted_rand
from raymc.metrics.seeds import paired
from raymc.reporting.words import count, listing, score
from raymc.stability.choice import Candidate
from raymc.stability.cluster import Clustering
from raymc.study.records import FINISHED, SeedRun

LIKE_KMEANS = 0.9
"""Adjusted Rand index from which clusters are called those of k-means."""

ALIKE, APART = 0.6, 0.3
"""Agreement with the other methods from which it supports a choice, and below which it supports none."""


def verdict(found: Clustering) -> str:
    """The first paragraph: what was found, how it was chosen, and whether k-means would have done."""
    chosen, n = found.chosen, len(found.dataset.train)
    number = len(set(chosen.labels[chosen.seed].tolist()))
    asked = "" if number == found.count.n else f"; {found.count.n} were asked for"
    head = f"{chosen.name} puts {count(n, 'sample')} in {count(number, 'cluster')}{asked}."
    return " ".join(filter(None, (head, how_chosen(found), beside_kmeans(found))))


def how_chosen(found: Clustering) -> str:
    """By what the method was taken, or why there was nothing to choose."""
    chosen = found.chosen
    others = [one.name for one in found.candidates if one is not chosen]
    if not others:
        if len(found.runs) > 1:
            return "No other method came to an end, so nothing was chosen."
        if found.left_out:
            return "No other method takes these data, so nothing was chosen."
        return "No other method was asked for, so nothing was chosen."
    agreed = f"(mean adjusted Rand index {score(chosen.scores.get('agreement'))})"
    if len(others) == 1:
        return f"It was taken as the first of two, which agree with each other alike {agreed}: labels had no say."
    return f"It was taken without labels: its clusters agree most with those of {listing(others)} {agreed}."


def beside_kmeans(found: Clustering) -> str:
    """Whether the chosen clusters are better than those of k-means, where that can be said."""
    chosen = found.chosen
    plain = next((one for one in found.candidates if one.name == "kmeans"), None)
    if plain is None:
        return ""
    if plain is chosen:
        mine = _accuracies(found.runs[chosen.name]) if found.labelled else {}
        return f"By the labels, which chose nothing, its ACC is {score(fmean(mine.values()))}." if mine else ""
    if found.labelled:
        return by_accuracy(*(_accuracies(found.runs[name]) for name in (chosen.name, plain.name)))
    alike = _alike(chosen, plain)
    same = "nearly those of k-means" if alike >= LIKE_KMEANS else "not those of k-means"
    return f"Its clusters are {same} (adjusted Rand index {score(alike)})."


def by_accuracy(mine: Mapping[int, float], its: Mapping[int, float]) -> str:
    """What the ACC by seed of the chosen method and of k-means says of the two."""
    common = sorted(set(mine) & set(its))
    if not common:
        return ""
    of, than = [mine[seed] for seed in common], [its[seed] for seed in common]
    gap = paired(of, than)
    both = f"ACC {score(fmean(of))}, k-means {score(fmean(than))}"
    if gap["ci95"] is None:
        if gap["mean"] <= 0:
            return f"It does not beat k-means on the same samples: {both}."
        return f"By the labels, which chose nothing, {both}, of one seed: too few to say that it beats k-means."
    low, high = gap["ci95"]
    interval = f"the 95 % interval of the difference over {len(common)} seeds is {score(low)} to {score(high)}"
    if low > 0:
        return f"By the labels, which chose nothing, it beats k-means: {both}; {interval}."
    if high < 0:
        return f"It is worse than k-means on the same samples: {both}; {interval}."
    return f"It does not beat k-means on the same samples: {both}; {interval}."


def trust(found: Clustering) -> list[str]:
    """How far the choice may be trusted."""
    chosen = found.chosen
    lines = []
    agreed, stable = chosen.scores.get("agreement"), chosen.scores.get("stability")
    if agreed is not None:
        if agreed >= ALIKE:
            lines.append(
                "The methods find much the same clusters. That is no proof: relatives (k-means, mixtures, spectral and "
                "Ward's clustering) agree on data without any clusters too."
            )
        elif agreed < APART:
            lines.append(
                "The methods find different clusters, and no score without labels can say which are right: look at the "
                "samples of each cluster below before you use them."
            )
        else:
            lines.append("The methods agree in part: large clusters are likely there, their borders are not certain.")
    if stable is not None:
        lines.append(
            f"Seeds of {chosen.name} agree with each other by {score(stable)} (mean adjusted Rand index). "
            "Disagreement refutes; agreement proves nothing, since all may be wrong alike."
        )
    if found.count.runs:
        found_by = ", ".join(str(int(run.metrics["clusters_found"])) for run in found.count.runs)
        lines.append(
            f"How many clusters was found by MLC's coding length (its seeds: {found_by}); all methods were given "
            f"{found.count.n}."
        )
    if not found.labelled:
        lines.append("There are no labels, so nothing here says how many samples are right.")
    return lines


def _accuracies(runs: Sequence[SeedRun]) -> dict[int, float]:
    return {run.seed: run.metrics["acc"] for run in runs if run.state == FINISHED and "acc" in run.metrics}


def _alike(a: Candidate, b: Candidate) -> float:
    return float(adjusted_rand(a.labels[a.seed], b.labels[b.seed]))
