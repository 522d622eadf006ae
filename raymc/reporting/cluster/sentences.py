"""What may be said of a choice that was made without labels."""

from __future__ import annotations

from raymc.metrics.clustering import adjusted_rand
from raymc.reporting.words import count, listing, score
from raymc.stability.choice import Candidate
from raymc.stability.cluster import Clustering

LIKE_KMEANS = 0.9
"""Adjusted Rand index from which clusters are called those of k-means."""

ALIKE, APART = 0.6, 0.3
"""Agreement with the other methods from which it supports a choice, and below which it supports none."""


def verdict(found: Clustering) -> str:
    """The first paragraph: what was found, how it was chosen, and whether k-means would have done."""
    chosen, n = found.chosen, len(found.dataset.train)
    number = len(set(chosen.labels[chosen.seed].tolist()))
    head = f"{chosen.name} puts {count(n, 'sample')} in {count(number, 'cluster')}."
    if len(found.candidates) == 1:
        why = "No other method came to an end, so nothing was chosen."
    else:
        others = listing([one.name for one in found.candidates if one is not chosen])
        agreed = f"(mean adjusted Rand index {score(chosen.scores.get('agreement'))})"
        why = f"It was taken without labels: its clusters agree most with those of {others} {agreed}."
    return " ".join(filter(None, (head, why, beside_kmeans(found))))


def beside_kmeans(found: Clustering) -> str:
    """Whether the chosen clusters are better than those of k-means, where that can be said."""
    chosen, rows = found.chosen, {row["name"]: row for row in found.rows()}
    plain = next((one for one in found.candidates if one.name == "kmeans"), None)
    if plain is None or plain is chosen:
        return ""
    if found.labelled:
        mine, its = rows[chosen.name]["acc"], rows["kmeans"]["acc"]
        if mine <= its:
            return f"It does not beat k-means on the same samples: ACC {score(mine)}, k-means {score(its)}."
        return f"By the labels, which chose nothing, ACC is {score(mine)}, that of k-means {score(its)}."
    alike = _alike(chosen, plain)
    same = "nearly those of k-means" if alike >= LIKE_KMEANS else "not those of k-means"
    return f"Its clusters are {same} (adjusted Rand index {score(alike)})."


def trust(found: Clustering) -> list[str]:
    """How far the choice may be trusted."""
    chosen = found.chosen
    lines = []
    agreed, stable = chosen.scores.get("agreement"), chosen.scores.get("stability")
    if agreed is not None:
        if agreed >= ALIKE:
            lines.append("Methods that work in different ways find much the same clusters: the samples have them.")
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


def _alike(a: Candidate, b: Candidate) -> float:
    return float(adjusted_rand(a.labels[a.seed], b.labels[b.seed]))
