"""MLC: Manifold Linearizing and Clustering (Ding, Tong, Chan, Dai, Ma, Haeffele; ICCV 2023).

A net maps a sample to a unit vector z and to a unit vector c; how much two samples belong together is the doubly
stochastic projection of |c_i . c_j|.
    pretrain   -R((Z + Z')/2) - lambda sum |z_i . z'_i|       eq. 5, or NMCE's stage 1
    heads      R_c(Z, Pi) - R(Z) + gamma/2 |Pi|_F^2           eq. 4 on A augmentations (eq. 6), backbone frozen
Before `heads` the cluster head is copied from the feature head, once: the membership starts from what stage 1 found
(section 2.3). Clusters come from spectral clustering of Pi. Stage 1 is computed by NMCE's own loss, so that the two
methods share its result wherever its settings agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from raymc.config import Config, StageConfig, Value
from raymc.errors import InputError
from raymc.methods import nmce
from raymc.methods.base import Batch, Group, Method, Stage, Step
from raymc.methods.mlc_presets import PRESETS
from raymc.methods.settings import Augmentations, ClusterHead, FeatureBank, check_views
from raymc.ops import mlc_objective
from raymc.validation import STRICT, Whole

NET = ("backbone", "pre_feature")
OWN = {"linear": (), "shared_pre_feature": (), "shared_whole": (), "pre_feature": ("pre_feature",), "whole": NET}
"""By `cluster_net`: the modules of which the cluster head has a copy of its own, named `cluster_…`."""
SHARED = {"shared_pre_feature": ("pre_feature",), "shared_whole": NET}
"""By `cluster_net`: the modules that both heads have and that train with them."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Heads(ClusterHead):
    """Settings of eq. 4."""

    KEYED_IF_CHANGED: ClassVar[Mapping[str, Value]] = {"adam_beta2": 0.99, "feature_bank": 0}

    gamma: float = Field(default=0.05, ge=0, description="weight of the membership's squared norm (MLC)")
    eta: float = Field(default=0.175, gt=0, description="entropy of the membership's projection (MLC): a temperature")
    projection_iterations: Whole | None = Field(
        default=None, ge=1, description="half-steps of the projection; null: until it has converged (published code: 5)"
    )
    rate_factor: float = Field(
        default=1.0, gt=0, description="of both coding rates (MLC's paper: 1; its authors' later code: 0.5)"
    )
    cluster_net: Literal["linear", "shared_pre_feature", "shared_whole", "pre_feature", "whole"] = Field(
        default="linear",
        description="what the cluster head has of its own, copied once: linear: its last layer; shared_pre_feature: "
        "the same, and the pre-feature layer trains; shared_whole: the same, and the whole net trains (CPP); "
        "pre_feature: also that layer; whole: the whole net, and all of both train",
    )
    augmentations: Augmentations = 2
    feature_bank: FeatureBank = 0


STAGES: dict[str, type[StageConfig]] = {"pretrain": nmce.Pretrain, "heads": Heads}


def mlc_loss(
    model: nn.ModuleDict, batch: Batch, config: Heads, group: ProcessGroup | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. 4 with eq. 6's means over the views of the batch."""
    z, c = (rows.chunk(len(batch.views)) for rows in heads(model, torch.cat(batch.views)))
    return mlc_objective(
        z,
        c,
        config.eps_sq,
        config.gamma,
        config.eta,
        config.projection_iterations,
        config.rate_factor,
        group,
        batch.counts,
    )


def heads(model: nn.ModuleDict, x: Tensor) -> tuple[Tensor, Tensor]:
    """z `[n, d]` and c `[n, d]`, unit rows, of samples `[n, ...]`; c is z where there is no cluster head yet."""
    pool = model["backbone"](x)
    h = model["pre_feature"](pool)
    z = model["projection"](h)
    if "cluster" not in model:
        return z, z
    if "cluster_backbone" in model:
        pool = model["cluster_backbone"](x)
    if "cluster_pre_feature" in model:
        h = model["cluster_pre_feature"](pool)
    return z, model["cluster"](h)


def stages(config: Config) -> tuple[Stage, ...]:
    """The stages that a configuration runs: `heads.cluster_net` says what the two heads have of their own.

    Without `heads.epochs` the membership is that of stage 1's z. Raises InputError where a cluster head is asked to
    assign, and where stage 1's views of a sample would be the same.
    """
    check_views(config, "pretrain")
    if config.clustering == "head":
        raise InputError(
            "clustering: mlc has no head that assigns; it is membership, ensc, ssc_omp, kmeans or spectral"
        )
    first = Stage("pretrain", Step(nmce.tcr_loss, (Group((*NET, "projection")),)))
    settings = config.stages["heads"]
    assert isinstance(settings, Heads)
    if settings.epochs == 0:
        return (first,)
    own = OWN[settings.cluster_net]
    shared = SHARED.get(settings.cluster_net, ())
    copies = (("cluster", "projection"), *((f"cluster_{name}", name) for name in own))
    trained = (*own, *shared, "projection")
    step = settings.step(mlc_loss, trained, tuple(name for name, _ in copies))
    reads = tuple(name for name in NET if name not in trained)
    return (first, Stage("heads", step, reads=reads, copies=copies, clusters=True))


def build_module(name: str, config: Config, input_shape: tuple[int, ...], n_clusters: int) -> nn.Module:
    """One module of the model, untrained, from torch's global generator; all but the heads are NMCE's.

    `cluster`, like `projection`, gives unit rows `[b, feature_dim]`: it has no clusters, and `n_clusters` no say.
    """
    of = "projection" if name == "cluster" else name.removeprefix("cluster_")
    return nmce.build_module(of, config, input_shape, n_clusters)


METHOD = Method(
    name="mlc",
    stages=stages,
    stage_settings=STAGES,
    build=build_module,
    presets=PRESETS,
    features=nmce.features,
    heads=heads,
)
