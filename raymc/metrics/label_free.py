"""What can be said of a clustering without labels, in one space for all trials of a study; and how well that chooses.

Silhouettes and probes in each trial's own embedding are not comparable with each other: a space that is easier to
cluster scores higher whether or not its clusters are better (Wang and Ye, arXiv:2403.14830, score all partitions in
common spaces for that reason). So they are taken in `reference_space`, which depends on the samples alone.

Shapes: n samples, m of them in the space, c its dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import scipy  # its parts are loaded where they are first used
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional

from raymc.metrics.clustering import Labels, as_labels
from raymc.rng import generator

Array = NDArray[np.float64]

ROWS, COMPONENTS = 5000, 64  # of the reference space
SIDE = 32  # pixels: larger images are averaged down to it
SILHOUETTE_ROWS = 2000  # all pairs of them are compared
FOLDS = 5
RIDGE = 1.0  # penalty of the probe, where the space's mean variance is 1

LEAST_TRIALS = 10
"""With fewer trials neither a rank correlation nor a regret is read as saying anything."""


def reference_rows(n: int) -> Tensor:
    """Positions of the samples in the reference space, `[m]`, m = min(n, 5000): one fixed draw, in its random order."""
    return torch.randperm(n, generator=generator(0, "label_free"))[:ROWS]


def reduced(x: Tensor) -> Tensor:
    """Inputs `[m, …]` as rows `[m, d]`, float32 on the CPU; images of more than 32 pixels a side are averaged to 32."""
    if x.dim() == 4:
        height, width = x.shape[2:]
        x = functional.adaptive_avg_pool2d(x, (min(SIDE, height), min(SIDE, width)))
    return x.flatten(1).float().cpu()


def reference_space(x: Tensor) -> Array:
    """The space `[m, c]` in which the clusters of all trials are scored, of inputs `[m, d]` as the network sees them.

    The leading principal components, 64 at most, scaled so that their mean variance is 1. It depends on the samples
    alone, not on a trial, a seed or labels. Raw pixels of photographs say little about what is in them: there a score
    in this space is weak evidence, and the rank correlation with ACC on labelled data shows how weak.
    """
    from sklearn.decomposition import PCA  # here, since scikit-learn takes a second to import

    rows = x.numpy()
    with np.errstate(invalid="ignore"), _one_thread():  # equal samples have no variance to take shares of
        points = PCA(min(COMPONENTS, *rows.shape), random_state=0).fit_transform(rows).astype(np.float64)
    scale = math.sqrt(float(np.square(points).mean()))
    return np.asarray(points / scale if scale > 0 else points, dtype=np.float64)


def label_free_scores(space: Array, labels: Labels) -> dict[str, float]:
    """`silhouette` and `probe` of clusters `[m]` found for the rows of a reference space; absent where undefined."""
    with _one_thread():
        found = {"silhouette": silhouette(space, labels), "probe": probe(space, labels)}
    return {name: value for name, value in found.items() if value is not None}


def silhouette(space: Array, labels: Labels) -> float | None:
    """The mean silhouette (Rousseeuw 1987) in [-1, 1] of the first 2000 rows of the space, in Euclidean distances.

    None for a single cluster, and where every row is a cluster of its own.
    """
    from sklearn.metrics import silhouette_score

    points, found = space[:SILHOUETTE_ROWS], as_labels(labels)[:SILHOUETTE_ROWS]
    if not 1 < len(np.unique(found)) < len(found):
        return None
    return float(silhouette_score(points, found))


def probe(space: Array, labels: Labels) -> float | None:
    """How well the found clusters are told apart linearly in the space: accuracy in [0, 1], cross-validated.

    As TURTLE chooses its hyperparameters (Gadetsky et al. 2024): a labelling that generalises is likelier to be a
    true one. A ridge classifier is fitted on four of five folds and asked about the fifth, which are every fifth row:
    the same for all trials. A cluster that the other folds do not have is always missed. One cluster for all is told
    perfectly, so the score means nothing without gates on the clusters' shares. None for fewer than two rows.
    """
    found = np.unique(as_labels(labels), return_inverse=True)[1]
    fold = np.arange(len(found)) % FOLDS
    if len(found) < 2:
        return None
    hits = sum(_hits(space, found, fold == one) for one in range(min(FOLDS, len(found))))
    return hits / len(found)


_one_thread = partial(threadpool_limits, 1, user_api="blas")
"""Several threads that wait for each other on a busy machine cost seconds, and sums depend on how many there are."""


def _hits(space: Array, found: NDArray[np.int64], asked: NDArray[np.bool_]) -> int:
    """How many of the rows asked about are told right by a ridge classifier of the others (RidgeClassifier's fit)."""
    known, clusters = space[~asked], np.eye(int(found.max()) + 1)[found[~asked]]
    centre, shares = known.mean(0), clusters.mean(0)
    moved = known - centre
    gram = moved.T @ moved + RIDGE * np.eye(space.shape[1])
    weights = np.linalg.solve(gram, moved.T @ (clusters - shares))
    predicted = ((space[asked] - centre) @ weights + shares).argmax(1)
    return int((predicted == found[asked]).sum())


def mean_rank(scores: Mapping[str, Sequence[float]]) -> list[float]:
    """Per trial the mean over the scores of its rank among the trials, as a share: 0 the worst of all, 1 the best.

    Args:
        scores: of each score (larger is better) its value per trial, in the same order. Ties share their mean rank;
            a trial alone has 0.5.

    Raises:
        ValueError: no score, scores of different length, or a value that is not finite.
    """
    table = [list(values) for values in scores.values()]
    if not table or len(set(map(len, table))) != 1:
        raise ValueError("mean ranks need scores, each with one value per trial")
    _finite(*table)
    n = len(table[0])
    if n < 2:
        return [0.5] * n
    means = np.mean([scipy.stats.rankdata(values) for values in table], axis=0)  # exact, so that equal means stay equal
    return [float(value) for value in (means - 1) / (n - 1)]


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rank correlation in [-1, 1] of values that belong together, ties by mean rank.

    None where one side does not vary, and for fewer than three pairs: of two it is 1 or -1, whatever they are.

    Raises:
        ValueError: not as many values in `a` as in `b`, or one that is not finite.
    """
    _paired(a, b)
    if len(a) < 3 or min(a) == max(a) or min(b) == max(b):
        return None
    return float(scipy.stats.spearmanr(a, b).statistic)


def rank_correlation_interval(rho: float, n: int) -> tuple[float, float] | None:
    """The 95 % interval of a rank correlation of n pairs: Fisher's z with variance (1 + rho^2/2)/(n - 3).

    Bonett and Wright 2000, for independent pairs; those of a search are not quite. None for fewer than 10 pairs and
    for a correlation of 1 or -1, where it does not hold.
    """
    if n < LEAST_TRIALS or abs(rho) >= 1:
        return None
    half = float(scipy.stats.norm.ppf(0.975)) * math.sqrt((1 + rho**2 / 2) / (n - 3))
    return math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half)


def selection_regret(acc: Sequence[float], score: Sequence[float]) -> float:
    """ACC of the best trial minus ACC of the trial with the best score: what choosing by the score would have cost.

    Where trials tie for the best score it is the mean over them, as if one of them were drawn.

    Raises:
        ValueError: no trials, not as many values in `acc` as in `score`, or one that is not finite.
    """
    _paired(acc, score)
    if not len(acc):
        raise ValueError("a regret needs a trial")
    best = max(score)
    tied = [value for value, one in zip(acc, score, strict=True) if one == best]
    return max(acc) - math.fsum(tied) / len(tied)


def _paired(a: Sequence[float], b: Sequence[float]) -> None:
    if len(a) != len(b):
        raise ValueError(f"pairs need as many values on each side, got {len(a)} and {len(b)}")
    _finite(a, b)


def _finite(*lists: Sequence[float]) -> None:
    if not all(math.isfinite(value) for values in lists for value in values):
        raise ValueError("scores must be finite")
