"""The hyperparameters of a whole training, and what augments its samples."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, ValidatorFunctionWrapHandler, WrapValidator
from pydantic.dataclasses import dataclass

from raymc.validation import STRICT, Key, Switch, Value, Whole, wrong

LEAST_CLUSTERS, MOST_CLUSTERS = 2, 50
"""Between which numbers of clusters `n_clusters: auto` chooses."""


def _or_range(value: object, number: ValidatorFunctionWrapHandler) -> object:
    if isinstance(value, Mapping) and value.keys() == {"low", "high"}:
        value = f"{value['low']}..{value['high']}"
    if value != "auto" and not (isinstance(value, str) and re.fullmatch(r"\d+\.\.\d+", value)):
        return number(value)
    low, high = cluster_range(value) or (0, 0)
    if not LEAST_CLUSTERS <= low < high:
        raise wrong(f"{low} to {high} is no range of numbers of clusters, which begins at {LEAST_CLUSTERS} or above")
    return value


ClusterCount = Annotated[Whole | None, Field(ge=LEAST_CLUSTERS), WrapValidator(_or_range)]
"""A number of clusters; or the texts `auto` and `LOW..HIGH` (in YAML also `{low, high}`), which type checkers need not
know of: only `cluster_range` reads them."""


def cluster_range(n_clusters: object) -> tuple[int, int] | None:
    """The smallest and the largest number of clusters among which one is found; None where it is given."""
    if n_clusters == "auto":
        return LEAST_CLUSTERS, MOST_CLUSTERS
    if not isinstance(n_clusters, str):
        return None
    low, _, high = n_clusters.partition("..")
    return int(low), int(high)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BareKeys:
    """The hyperparameters of a whole training: keys without a dot."""

    n_clusters: ClusterCount = Field(
        default=None,
        description="clusters; null: as many as the labels have; auto: MLC finds how many by coding length, "
        f"among {LEAST_CLUSTERS} to {MOST_CLUSTERS} or in {{low, high}}",
    )
    backbone: str = Field(
        default="mlp",
        description="name of a net in raymc.nets; for NMCE and MLC also package.module:function, of a net of your own, "
        "or timm:NAME",
    )
    mlp_width: Whole = Field(default=128, ge=1, description="width of each layer of the backbones mlp and mlp_bn")
    mlp_depth: Whole = Field(default=3, ge=1, description="layers of the backbones mlp and mlp_bn")
    feature_dim: Whole = Field(default=128, ge=2, description="width of the embedding z")
    pre_feature_dim: Whole = Field(default=4096, ge=0, description="width of the pre-feature layer; 0: none")
    augmentation: str = Field(default="none", description="policy of the views, see raymc.datasets.augmentation")
    clustering: Literal[
        "head", "membership", "ensc", "ssc_omp", "kmeans", "gmm", "spectral", "agglomerative", "hdbscan"
    ] = Field(
        default="head",
        description="labels from the cluster head, by spectral clustering of the membership (MLC), or by a method "
        "for z",
    )
    cluster_points: Whole = Field(
        default=10_000,
        ge=2,
        description="samples of the training split that are clustered where no head assigns; the rest follows them",
    )
    ensc_gamma: float = Field(default=50.0, gt=1, description="EnSC: weight of the self-expression error")
    ensc_tau: float = Field(default=0.9, gt=0, le=1, description="EnSC: share of the l1 norm")
    ssc_omp_nonzero: Whole = Field(default=10, ge=1, description="SSC-OMP: most coefficients of a code")
    ssc_omp_tolerance: float = Field(
        default=1e-6, gt=0, le=1, description="SSC-OMP: squared residual at which a code ends"
    )
    hdbscan_min_cluster_size: Whole = Field(
        default=5, ge=2, description="HDBSCAN: samples below which a group is noise and no cluster"
    )
    n_samples: Whole | None = Field(
        default=None,
        ge=2,
        description="train and score on so many samples of the training split, drawn once for all seeds; null: all",
    )
    scaling: Literal["standardise", "minmax", "unit", "none"] | None = Field(
        default=None,
        description="of vectors, by the training rows: standardise and minmax each column, unit centres them and "
        "gives each row length 1; null: unit for an encoder's features, standardise for other own data, known datasets "
        "as they are stored",
    )
    seed: Whole = Field(default=0, ge=0, description="seed of the training")
    seeds_from: str | None = Field(
        default=None, description="first stage that a group of seeds varies; null: the first stage that is searched"
    )
    varies: str = Field(
        default="all",
        description="what a seed changes in these stages, with commas: initialisation, order, augmentation, noise; "
        "the rest keeps the base seed",
    )
    workers: Whole = Field(default=1, ge=1, description="data-parallel workers")
    precision: Literal["auto", "float32", "bfloat16", "float64"] = Field(
        default="auto",
        description="of the operations; auto: bfloat16 on a GPU that has it, but for gcml, else float32; results say "
        "which",
    )
    compile: bool = Field(default=False, description="torch.compile the nets and, on a GPU, the augmentation")
    channels_last: Switch = Field(
        default="auto",
        description="memory format of image batches; auto: on a GPU, and for bfloat16 on a CPU with AMX",
    )
    evaluate_every: Whole = Field(default=10, ge=1, description="epochs between evaluations of a clustering stage")
    probes: bool = Field(
        default=False, description="fit SVM, k-NN and nearest-subspace probes with the labels (Table 2)"
    )
    geometry: bool = Field(
        default=False,
        description="RRE, trustworthiness, continuity, d-RMSE, LGD and CRA of the embedding (GCML's Table 3)",
    )
    downstream: bool = Field(
        default=False, description="fit MLP, random forest, SVM and logistic regression on the embedding with labels"
    )
    probe_views: Whole = Field(
        default=16,
        ge=0,
        description="augmented views whose features the second half of the probes averages; 0: no second half",
    )
    probe_features: str = Field(
        default="all", description="features that are probed, with commas: pool, pre_feature, projection, subspace"
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Augment:
    """The keys `augment.…`: what is done to the views of samples beside, or by, the policy `augmentation`.

    The first three are for vectors, the last for images: see `raymc.datasets.policy` and `raymc.training.neighbours`.
    """

    noise: float = Field(
        default=0.0,
        ge=0,
        description="vectors: Gaussian noise on every column, in units of its deviation over the training rows",
    )
    dropout: float = Field(
        default=0.0,
        ge=0,
        le=0.99,
        description="vectors: probability with which a column of a view is set to its mean over the training rows",
    )
    neighbours: Whole = Field(
        default=0,
        ge=0,
        description="vectors: the second and later views are of one of so many nearest neighbours, drawn in every "
        "step; 0: of the sample itself",
    )
    strength: float = Field(
        default=1.0, ge=0, le=2, description="images: scales the policy; 1: as it is, 0: no augmentation"
    )

    def keyed(self, views: int) -> dict[str, Value]:
        """The settings that differ from the defaults, of those that act where so many views of a sample are taken."""
        acting = {"noise", "dropout", "strength"} if views else set()
        acting |= {"neighbours"} if views > 1 else set()
        values = dataclasses.asdict(self)
        return {key: values[key] for key in sorted(acting) if values[key] != Key(Augment, key).default}
