"""Formulas as pure functions: tensors in, tensors out."""

from raymc.ops.assignment import assignment_divergence, student_t_assignment, target_distribution
from raymc.ops.gumbel import gumbel_softmax
from raymc.ops.isometry import alignment_loss, cluster_means, isometry_loss, neighbours_within, ranking_loss
from raymc.ops.objectives import affinity_rows, mlc_objective, nmce_objective, tcr_objective
from raymc.ops.rates import cluster_coding_rate, coding_rate, coding_rates
from raymc.ops.sinkhorn import sinkhorn
from raymc.ops.views import cosine_similarity_mean, normalised_mean, similarity_to_mean, view_similarity

__all__ = [
    "affinity_rows",
    "alignment_loss",
    "assignment_divergence",
    "cluster_coding_rate",
    "cluster_means",
    "coding_rate",
    "coding_rates",
    "cosine_similarity_mean",
    "gumbel_softmax",
    "isometry_loss",
    "mlc_objective",
    "neighbours_within",
    "nmce_objective",
    "normalised_mean",
    "ranking_loss",
    "similarity_to_mean",
    "sinkhorn",
    "student_t_assignment",
    "target_distribution",
    "tcr_objective",
    "view_similarity",
]
