"""Settings of GCML's stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from raymc.config import StageConfig, Value
from raymc.methods.settings import Augmentations
from raymc.validation import STRICT, Whole


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Autoencoder(StageConfig):
    """What both stages have: all settings in the key, whatever they are."""

    KEYED_IF_CHANGED: ClassVar[Mapping[str, Value]] = {}

    augmentations: Augmentations = 2

    def unread(self) -> frozenset[str]:
        """None: Adam's setting has been in the key of every optimiser."""
        return frozenset()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Pretrain(Autoencoder):
    """Settings of the denoising autoencoder."""

    noise: float = Field(default=0.2, ge=0, description="standard deviation of the noise on an autoencoder's input")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Finetune(Autoencoder):
    """Settings of eq. 9 and eq. 10."""

    NULL_MEANS: ClassVar[Mapping[str, str]] = {"whole_learning_rate": "learning_rate"}

    alpha: float = Field(default=0.1, ge=0, description="weight of the clustering loss (GCML), which decays to 0")
    beta: float = Field(default=1.0, ge=0, description="weight of the isometry loss (GCML), which rises to this")
    kappa: float = Field(default=3.0, gt=0, description="distances between the centres, over those in the input (GCML)")
    neighbours: Whole = Field(
        default=5, ge=1, description="nearest neighbours of a point in the isometry loss (GCML: k)"
    )
    rank_weight: float = Field(default=1.0, ge=0, description="weight of the ranking loss (GCML)")
    align_weight: float = Field(default=1.0, ge=0, description="weight of the alignment loss (GCML)")
    reconstruction_weight: float = Field(
        default=1.0, ge=0, description="weight of the reconstruction loss while clustering"
    )
    start_epoch: Whole = Field(default=0, ge=0, description="epoch from which structure counts and weights move (GCML)")
    continuation_epochs: Whole = Field(
        default=150,
        ge=0,
        description="epoch at which alpha has decayed to 0; beta rises over as many; 0: both stay as they are",
    )
    whole_learning_rate: float | None = Field(
        default=None, gt=0, description="of the update on all samples that ends an epoch (GCML); null: as learning_rate"
    )
    alternating: bool = Field(
        default=True, description="isometry and alignment once an epoch on all samples, not in every batch (GCML)"
    )
    loss_scales: Literal["mean", "published", "paper"] = Field(
        default="mean",
        description="mean: KL per point, norms, distances as they are; published: GCML's code, with KL per point and"
        " cluster, and distances over the root of the dimension; paper: sums, and a reconstruction that "
        "does not decay with alpha",
    )
    centers_by: Literal["tsne", "tsne_mixture", "kmeans"] = Field(
        default="tsne",
        description="first centres: by k-means on a t-SNE of the embedding, the likeliest of several Gaussian "
        "mixtures on it, or k-means on the embedding",
    )
    exaggeration: float = Field(
        default=1.0,
        ge=1,
        description="of attraction in the t-SNE of the first centres: above 1 its islands are denser and further apart",
    )
    anchor_epochs: Whole = Field(
        default=0,
        ge=0,
        description="first epochs whose target is the clusters by which the centres were found (GCML); then eq. 2",
    )
    center_points: Whole = Field(default=10_000, ge=2, description="samples by which the first centres are found")
