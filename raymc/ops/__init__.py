"""Formulas as pure functions: tensors in, tensors out."""

from raymc.ops.gumbel import gumbel_softmax
from raymc.ops.objectives import nmce_objective, tcr_objective
from raymc.ops.rates import cluster_coding_rate, coding_rate, coding_rates
from raymc.ops.views import cosine_similarity_mean, normalised_mean, view_similarity

__all__ = [
    "cluster_coding_rate",
    "coding_rate",
    "coding_rates",
    "cosine_similarity_mean",
    "gumbel_softmax",
    "nmce_objective",
    "normalised_mean",
    "tcr_objective",
    "view_similarity",
]
