"""NMCE: Neural Manifold Clustering and Embedding (Li, Chen, LeCun, Sommer; arXiv 2201.10000).

A net maps a sample to a unit vector z and to a cluster; two augmented views of a sample constrain both.
    pretrain   -R(Z) + lambda D                    eq. 5, the total coding rate (TCR)
    heads      sum_j R(Z_j) - R(Z) + lambda D      eq. 4, new heads on the frozen net
    finetune   the same; the net trains too
D is minus the mean cosine similarity of the two views. Toy problems go straight to `finetune`; COIL stops after
`pretrain` and clusters z by EnSC.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from raymc.config import Config, StageConfig, Value
from raymc.errors import InputError
from raymc.methods.base import Batch, Group, Method, Stage, Step
from raymc.methods.nmce_init import kmeans_head, pre_features
from raymc.methods.nmce_presets import PRESETS
from raymc.methods.settings import ClusterHead, CodingRate, FeatureBank, check_views
from raymc.nets import UnitLinear, backbone_width, build_backbone, pre_feature_layer
from raymc.ops import gumbel_softmax, nmce_objective, tcr_objective
from raymc.validation import STRICT, Whole

SimilarityWeight = Annotated[float, Field(ge=0, description="weight of the views' cosine similarity (paper: lambda)")]
Views = Annotated[Whole, Field(ge=2, description="augmented views of a sample in a step")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Pretrain(CodingRate):
    """Settings of eq. 5."""

    KEYED_IF_CHANGED: ClassVar[Mapping[str, Value]] = {**CodingRate.KEYED_IF_CHANGED, "views_per_sample": 2}

    similarity_weight: SimilarityWeight = 0.0
    views: Literal["separate", "mean", "average"] = Field(
        default="separate",
        description="separate: mean of the views' rates; mean: rate of the views' normalised mean; average: MLC's "
        "eq. 5, halved",
    )
    views_per_sample: Whole = Field(
        default=2,
        ge=2,
        description="augmented views of a sample in a step; of three or more (EMP-SSL) the similarity is that to their "
        "mean",
    )

    @property
    def augmentations(self) -> int:
        """See `StageConfig.augmentations`."""
        return self.views_per_sample


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Clustering(ClusterHead):
    """Settings of eq. 4."""

    similarity_weight: SimilarityWeight = 0.0
    temperature: float = Field(default=1.0, gt=0, description="of the Gumbel-softmax")
    straight_through: bool = Field(default=False, description="hard cluster samples with the soft ones' gradient")
    augmentations: Views = 2


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Heads(Clustering):
    """Settings of eq. 4 on a frozen net."""

    KEYED_IF_CHANGED: ClassVar[Mapping[str, Value]] = {
        **Clustering.KEYED_IF_CHANGED,
        "feature_bank": 0,
        "cluster_init": "random",
    }

    keep_feature_head: bool = Field(
        default=False, description="the head of z starts as the stage before left it, not anew"
    )
    feature_bank: FeatureBank = 0
    cluster_init: Literal["random", "kmeans"] = Field(
        default="random",
        description="first weights of the cluster head: random (paper), or kmeans: by the nearest of its centres",
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Finetune(Clustering):
    """Settings of eq. 4 with the net."""

    train_pre_feature: bool = Field(default=False, description="also train the pre-feature layer (published code: no)")


STAGES: dict[str, type[StageConfig]] = {"pretrain": Pretrain, "heads": Heads, "finetune": Finetune}


def tcr_loss(
    model: nn.ModuleDict, batch: Batch, config: Pretrain, group: ProcessGroup | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. 5 on the projections of the views; how they enter the rate is `config.views`."""
    z = model["projection"](pre_features(model, torch.cat(batch.views)))
    views = z.chunk(len(batch.views))
    return tcr_objective(views, config.eps_sq, config.similarity_weight, config.views, group)


def nmce_loss(
    model: nn.ModuleDict, batch: Batch, config: Clustering, group: ProcessGroup | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. 4 on the views' mean z and mean membership, each membership a Gumbel-softmax sample of its own."""
    h = pre_features(model, torch.cat(batch.views))
    z = model["subspace"](h).chunk(len(batch.views))
    logits = model["cluster"](h).chunk(len(batch.views))
    pi = tuple(
        gumbel_softmax(
            view,
            batch.uniform(f"gumbel{index}", view.shape[1]),
            config.temperature,
            config.straight_through,
        )
        for index, view in enumerate(logits)
    )
    return nmce_objective(z, pi, config.eps_sq, config.similarity_weight, group)


def stages(config: Config) -> tuple[Stage, ...]:
    """The stages that a configuration runs.

    The published code fine-tunes all but the pre-feature layer; `finetune.train_pre_feature` trains it too, and
    so does a `finetune` that has no stage 1 to start from. With `heads.keep_feature_head` the head of z starts as
    stage 1 left it, as in MLC. Without a cluster head's labels only stage 1 runs; raises InputError where later
    stages would train heads that are not used, for MLC's membership, and where views of a sample would be the same.
    """
    for name in STAGES:
        check_views(config, name)
    pretrain, heads, finetune = (config.stages[name] for name in STAGES)
    assert isinstance(heads, Heads) and isinstance(finetune, Finetune)
    net = ("backbone", "pre_feature")
    first = Stage("pretrain", Step(tcr_loss, (Group((*net, "projection")),)))
    if config.clustering == "membership":
        raise InputError("clustering: membership is MLC's; nmce has head, ensc, ssc_omp, kmeans, spectral")
    if config.clustering != "head":
        if heads.epochs or finetune.epochs:
            name = config.clustering
            raise InputError(f"clustering {name} is on pretrain's z: heads.epochs and finetune.epochs must be 0")
        return (first,)
    keep_head = heads.keep_feature_head
    whole = finetune.train_pre_feature or pretrain.epochs == 0
    return (
        first,
        Stage(
            "heads",
            heads.step(nmce_loss, ("subspace",), ("cluster",)),
            reads=net,
            fresh=("cluster",) if keep_head else ("subspace", "cluster"),
            copies=(("subspace", "projection"),) if keep_head else (),
            drop=("projection",),
            clusters=True,
            begin=kmeans_head if heads.cluster_init == "kmeans" else None,
        ),
        Stage(
            "finetune",
            finetune.step(nmce_loss, (*(net if whole else net[:1]), "subspace"), ("cluster",)),
            reads=() if whole else net[1:],
            clusters=True,
        ),
    )


def build_module(name: str, config: Config, input_shape: tuple[int, ...], n_clusters: int) -> nn.Module:
    """One module of the model, untrained, from torch's global generator.

    `backbone` `[b, ...]` -> `[b, pool]`, `pre_feature` -> `[b, h]`, `projection` and `subspace` -> unit rows
    `[b, feature_dim]`, `cluster` -> logits `[b, n_clusters]`. Raises InputError for a backbone that is unknown or
    does not fit the samples.
    """
    if name == "backbone":
        return build_backbone(config.backbone, input_shape, config.mlp_width, config.mlp_depth)
    pool = backbone_width(config.backbone, input_shape, config.mlp_width)
    if name == "pre_feature":
        return pre_feature_layer(pool, config.pre_feature_dim)
    width = config.pre_feature_dim or pool
    if name == "cluster":
        return nn.Linear(width, n_clusters)
    if name in ("projection", "subspace"):
        return UnitLinear(width, config.feature_dim)
    raise ValueError(f"NMCE has no module {name}")


def features(model: nn.ModuleDict, x: Tensor) -> dict[str, Tensor]:
    """`pool`, `pre_feature` and z, under the name of the head that the model has, for samples `[n, ...]`."""
    pool = model["backbone"](x)
    h = model["pre_feature"](pool)
    heads = {name: model[name](h) for name in ("projection", "subspace") if name in model}
    return {"pool": pool, "pre_feature": h, **heads}


def heads(model: nn.ModuleDict, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """z `[n, d]` and the logits of the clusters `[n, k]`, None after stage 1, for samples `[n, ...]`."""
    h = pre_features(model, x)
    z = model["subspace" if "subspace" in model else "projection"](h)
    return z, model["cluster"](h) if "cluster" in model else None


METHOD = Method(
    name="nmce",
    stages=stages,
    stage_settings=STAGES,
    build=build_module,
    presets=PRESETS,
    features=features,
    heads=heads,
)
