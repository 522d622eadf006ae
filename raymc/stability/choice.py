"""Which of several methods' clusters to take, without labels, and which of its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raymc.metrics.clustering import adjusted_rand, as_labels
from raymc.metrics.labellings import most_agreeing, pairwise_ari
from raymc.study.groups import labels_of
from raymc.study.records import SeedRun

Ints = NDArray[np.int64]

SCORES = ("stability", "probe", "silhouette", "agreement")
"""What stands beside each method, of all of which more is better: see `Candidate`."""

CHOSEN_BY = "agreement"

SAME = 1 - 1e-9
"""Adjusted Rand index from which two methods' clusters are one and the same: they have one voice."""


@dataclass(frozen=True)
class Candidate:
    """A method's finished seeds.

    Attributes:
        labels: `[n]` by seed.
        seed: the one that agrees most with the method's others.
        scores: means over the seeds of `probe` and `silhouette`; `stability`, from two seeds on, the mean adjusted Rand
            index of each two; `agreement`, with other methods beside it, the mean adjusted Rand index of `seed` and
            theirs, of which those that are the same as its own or as each other's count once or not at all.
    """

    name: str
    labels: Mapping[int, Ints]
    seed: int
    scores: Mapping[str, float]


def make_candidates(runs: Mapping[str, Sequence[SeedRun]]) -> list[Candidate]:
    """Of the finished seeds of each method; methods without one are left out."""
    found = {name: {seed: as_labels(one) for seed, one in labels_of(some).items()} for name, some in runs.items()}
    found = {name: labels for name, labels in found.items() if labels}
    seeds = {name: list(labels)[most_agreeing(list(labels.values()))[0]] for name, labels in found.items()}
    distinct: list[Ints] = []
    for name, labels in found.items():
        if all(adjusted_rand(labels[seeds[name]], one) < SAME for one in distinct):
            distinct.append(labels[seeds[name]])
    candidates = []
    for name, labels in found.items():
        metrics = [run.metrics for run in runs[name] if run.seed in labels]
        scores = {
            score: float(np.mean([one[score] for one in metrics]))
            for score in ("probe", "silhouette")
            if all(score in one for one in metrics)
        }
        if len(labels) > 1:
            scores["stability"] = pairwise_ari(list(labels.values()))["mean"]
        mine = labels[seeds[name]]
        others = [alike for one in distinct if (alike := adjusted_rand(mine, one)) < SAME]
        if len(found) > 1:
            scores["agreement"] = float(np.mean(others)) if others else 1.0
        candidates.append(Candidate(name, labels, seeds[name], scores))
    return candidates


def choose(candidates: Sequence[Candidate]) -> Candidate:
    """The one of the highest `CHOSEN_BY`, of equal ones the first; the only one where there is one."""
    return max(candidates, key=lambda one: one.scores.get(CHOSEN_BY, 0.0))
