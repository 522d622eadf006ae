"""Plain methods: k-means, a Gaussian mixture, spectral and Ward's clustering, HDBSCAN of the samples themselves.

What a method that learns has to beat. Nothing is trained: the samples as a network sees them (vectors as they are
scaled, images as flat pixels from 0 to 1) are clustered by `raymc.clusterers`, by their Euclidean distances. Of more
than `cluster_points` samples so many are clustered, and the others follow.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from raymc.clusterers import FOR_POINTS
from raymc.config import Config, StageConfig, Value
from raymc.errors import InputError
from raymc.methods.base import Group, Method, Stage, Step
from raymc.nets.autoencoder import build_encoder
from raymc.validation import STRICT

IDENTITY = "identity"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Samples(StageConfig):
    """Settings of a stage that trains nothing: no keys."""

    SETTABLE: ClassVar[bool] = False

    epochs: int = 0


STAGES: dict[str, type[StageConfig]] = {"samples": Samples}


def of_samples(name: str) -> dict[str, Value]:
    """The keys of a plain method, `name` as in the key `clustering`."""
    return {"backbone": IDENTITY, "clustering": name, "geometry": False}


def stages(config: Config) -> tuple[Stage, ...]:
    """One, which trains nothing. Raises InputError for a net, and for clusterings that are not of points."""
    check_identity(config)
    if config.clustering not in FOR_POINTS:
        raise InputError(f"clustering: plain has {', '.join(FOR_POINTS)}, not {config.clustering}")
    return (Stage("samples", Step(no_loss, (Group(("encoder",)),))),)


def check_identity(config: Config) -> None:
    """Raises InputError for a backbone of a method that works on the samples themselves."""
    if config.backbone != IDENTITY:
        raise InputError(f"backbone: {config.method} works on the samples as they are; it is {IDENTITY}")


def no_loss(*args: object) -> tuple[Tensor, dict[str, Tensor]]:
    """Stands where a stage that trains has its loss; never called."""
    raise RuntimeError("a plain method trains nothing")


def build_module(name: str, config: Config, input_shape: tuple[int, ...], n_clusters: int) -> nn.Module:
    """`encoder`, which flattens samples `[b, ...]` to `[b, d]`."""
    if name == "encoder":
        return build_encoder(IDENTITY, 0, 0)
    raise ValueError(f"a plain method has no module {name}")


def features(model: nn.ModuleDict, x: Tensor) -> dict[str, Tensor]:
    """`embedding`: the flat samples `[n, d]`."""
    return {"embedding": model["encoder"](x)}


def heads(model: nn.ModuleDict, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """The flat samples `[n, d]` of samples `[n, ...]`; there is no cluster head."""
    return model["encoder"](x), None


METHOD = Method(
    name="plain",
    stages=stages,
    stage_settings=STAGES,
    build=build_module,
    presets={"own": {name: of_samples(name) for name in FOR_POINTS}},
    features=features,
    heads=heads,
    unit_rows=False,
    default_preset="kmeans",
)
