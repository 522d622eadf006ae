"""Formulas as pure functions: tensors in, tensors out."""

from raymc.ops.gumbel import gumbel_softmax
from raymc.ops.objectives import affinity_rows, mlc_objective, nmce_objective, tcr_objective
from raymc.ops.rates import cluster_coding_rate, coding_rate, coding_rates
from raymc.ops.sinkhorn import sinkhorn
from raymc.ops.views import cosine_similarity_mean, normalised_mean, view_similarity

__all__ = [
    "affinity_rows",
    "cluster_coding_rate",
    "coding_rate",
    "coding_rates",
    "cosine_similarity_mean",
    "gumbel_softmax",
    "mlc_objective",
    "nmce_objective",
    "normalised_mean",
    "sinkhorn",
    "tcr_objective",
    "view_similarity",
]
