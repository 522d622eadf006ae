"""The metrics that a search may be judged by: all of them are recorded by every clustering training."""

LABEL_METRICS = ("acc", "nmi", "ari")
"""They compare with the true labels."""

LABEL_FREE_METRICS = ("rate_reduction",)
"""They look at the embedding and the clusters alone."""

OBJECTIVES = LABEL_METRICS + LABEL_FREE_METRICS
