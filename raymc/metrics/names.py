"""The metrics that a search may go by."""

LABEL_METRICS = ("acc", "nmi", "ari")
"""They compare with the true labels; every clustering training of labelled data records them."""

LABEL_FREE_METRICS = ("rate_reduction", "probe", "silhouette")
"""They look at one training's samples, embedding and clusters alone; every clustering training records them."""

GROUP_METRICS = ("stability",)
"""They compare the clusters of a configuration's seeds with each other: two seeds or more have them."""

STUDY_METRICS = ("rank_mean",)
"""They compare a configuration with the others of its study, by `RANKED`."""

RANKED = (*GROUP_METRICS, *LABEL_FREE_METRICS)
"""What `rank_mean` is the mean rank by. Of each, more is better."""

EPOCH_METRICS = (*LABEL_METRICS, "rate_reduction")
"""What the evaluation of an epoch records: a trial may be stopped by them before its training ends."""

BOUNDED = ("clusters_used", "clusters_found", "smallest_share", "largest_share", "embedding_rank", "noise")
"""What a constraint may name beside an objective; trainings without `clusters_found` or `noise` have none of it."""

OBJECTIVES = LABEL_METRICS + LABEL_FREE_METRICS + GROUP_METRICS + STUDY_METRICS
"""What a space file may name."""

SHARES = (
    "acc", "nmi", "probe", "rank_mean", "error_rate", "noise", "largest_share", "smallest_share", "trustworthiness",
    "continuity",
)  # fmt: skip
"""Metrics that are a share, or are normalised to one."""

ACCURACIES = ("svm_", "knn_", "nearest_subspace_", "downstream_", "cra")
"""How the names of other shares begin: of supervised accuracies, and GCML's."""


def bounds(metric: str) -> tuple[float, float] | None:
    """The least and the greatest value that a metric can have; None where it has not both."""
    name = metric.removeprefix("test_").removeprefix("clustered_")
    if name in SHARES or name.startswith(ACCURACIES):
        return 0.0, 1.0
    return {"ari": (-0.5, 1.0), "stability": (-0.5, 1.0), "silhouette": (-1.0, 1.0)}.get(name)
