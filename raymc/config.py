"""Typed, frozen configuration with one dotted name per hyperparameter.

`heads.weight_decay` is the same name in a space file, on the command line, in Optuna, in MLflow and in
the report. A key that a method's stage does not read is unknown for it, and an unknown key is an error.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any

import yaml

from raymc.errors import InputError
from raymc.rng import PARTS

Value = bool | int | float | str | None


def option(
    default: Value,
    text: str,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A configuration field: its default, one line of help, and the values that it may take.

    `low` is an inclusive, `above` an exclusive lower bound; `high` is an inclusive upper one.
    """
    metadata = {"help": text, "low": low, "above": above, "high": high, "choices": choices}
    return field(default=default, metadata=metadata)


PROBED = ("all", "pool", "pre_feature", "projection", "subspace", "embedding")
"""What `probe_features` may name; a model has some of them."""


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """Hyperparameters of one stage. A stage reads those that its `Stage.keys` names."""

    epochs: int = option(100, "passes over the data; 0 makes the hand-off and trains nothing", low=0)
    batch_size: int = option(1024, "samples of a step, over all workers together", low=2)
    optimizer: str = option("lars", "optimiser of the stage", choices=("lars", "adam", "sgd"))
    learning_rate: float = option(0.3, "not rescaled by batch size or workers", above=0)
    weight_decay: float = option(1e-4, "L2 term added to the gradient", low=0)
    adam_beta2: float = option(0.99, "Adam: share of the old squared gradient", low=0, high=0.9999)
    warmup_epochs: int = option(0, "linear warm-up of the learning rate", low=0)
    schedule: str = option("cosine", "learning rate over the epochs", choices=("cosine", "constant"))
    cluster_learning_rate: float = option(0.5, "of the cluster head's own SGD, constant", above=0)
    cluster_weight_decay: float | None = option(None, "of the cluster head; null: as weight_decay", low=0)
    eps_sq: float = option(0.2, "squared coding distortion (paper: epsilon)", above=0)
    similarity_weight: float = option(0.0, "weight of the views' cosine similarity (paper: lambda)", low=0)
    temperature: float = option(1.0, "of the Gumbel-softmax", above=0)
    straight_through: bool = option(False, "hard cluster samples with the soft ones' gradient")
    views: str = option(
        "separate",
        "separate: mean of the views' rates; mean: rate of the views' normalised mean; average: MLC's eq. 5, halved",
        choices=("separate", "mean", "average"),
    )
    augmentations: int = option(2, "augmented views of a sample in a step (MLC: A); 0: the sample as it is", low=0)
    feature_bank: int = option(
        0,
        "train behind the frozen backbone from its outputs for so many augmented views of each sample, computed once; "
        "0: augment anew in every step",
        low=0,
    )
    gamma: float = option(0.05, "weight of the membership's squared norm (MLC)", low=0)
    eta: float = option(0.175, "entropy of the membership's projection (MLC): a temperature", above=0)
    projection_iterations: int | None = option(
        None, "half-steps of the projection; null: until it has converged (published code: 5)", low=1
    )
    rate_factor: float = option(1.0, "of both coding rates (MLC's paper: 1; its authors' later code: 0.5)", above=0)
    cluster_net: str = option(
        "linear",
        "what the cluster head has of its own, copied once: linear: its last layer; shared_pre_feature: the same, and "
        "the pre-feature layer trains; pre_feature: also that layer; whole: the whole net, and all of both train",
        choices=("linear", "shared_pre_feature", "pre_feature", "whole"),
    )
    noise: float = option(0.2, "standard deviation of the noise on an autoencoder's input", low=0)
    alpha: float = option(0.1, "weight of the clustering loss (GCML), which decays to 0", low=0)
    beta: float = option(1.0, "weight of the isometry loss (GCML), which rises to this", low=0)
    kappa: float = option(3.0, "distances between the centres, over those in the input (GCML)", above=0)
    neighbours: int = option(5, "nearest neighbours of a point in the isometry loss (GCML: k)", low=1)
    rank_weight: float = option(1.0, "weight of the ranking loss (GCML)", low=0)
    align_weight: float = option(1.0, "weight of the alignment loss (GCML)", low=0)
    reconstruction_weight: float = option(1.0, "weight of the reconstruction loss while clustering", low=0)
    start_epoch: int = option(0, "epoch from which structure counts and weights move (GCML)", low=0)
    continuation_epochs: int = option(
        150, "epoch at which alpha has decayed to 0; beta rises over as many; 0: both stay as they are", low=0
    )
    whole_learning_rate: float | None = option(
        None, "of the update on all samples that ends an epoch (GCML); null: as learning_rate", above=0
    )
    alternating: bool = option(True, "isometry and alignment once an epoch on all samples, not in every batch (GCML)")
    loss_scales: str = option(
        "mean",
        "mean: KL per point, norms, distances as they are; published: GCML's code, with KL per point and cluster, and "
        "distances over the root of the dimension; paper: sums, and a reconstruction that does not decay with alpha",
        choices=("mean", "published", "paper"),
    )
    centers_by: str = option(
        "tsne",
        "first centres: by k-means on a t-SNE of the embedding, the likeliest of several Gaussian mixtures on it, or "
        "k-means on the embedding",
        choices=("tsne", "tsne_mixture", "kmeans"),
    )
    exaggeration: float = option(
        1.0, "of attraction in the t-SNE of the first centres: above 1 its islands are denser and further apart", low=1
    )
    anchor_epochs: int = option(
        0, "first epochs whose target is the clusters by which the centres were found (GCML); then eq. 2", low=0
    )
    center_points: int = option(10_000, "samples by which the first centres are found", low=2)
    keep_feature_head: bool = option(False, "the head of z starts as the stage before left it, not anew")
    train_pre_feature: bool = option(False, "also train the pre-feature layer (published code: no)")
    frozen_statistics: bool = option(True, "frozen modules' BatchNorm statistics stand still (published code: false)")


@dataclass(frozen=True, kw_only=True)
class OwnData:
    """The user's own data, as a space file names them (see `raymc.datasets.own`).

    Attributes:
        name: what they are called.
        path: an absolute path.
        label: the column of the labels; None: none.
        side: to which images of a folder are resized; None: to what suits them.
    """

    name: str
    path: str
    label: str | None = None
    side: int | None = None


@dataclass(frozen=True, kw_only=True)
class Config:
    """One training: a method on a dataset, the bare keys and one `StageConfig` per stage."""

    method: str
    dataset: str
    preset: str = "paper"
    own: OwnData | None = None
    n_clusters: int | None = option(None, "clusters; null: as many as the labels have", low=2)
    backbone: str = option("mlp", "name of a net in raymc.nets")
    feature_dim: int = option(128, "width of the embedding z", low=2)
    pre_feature_dim: int = option(4096, "width of the pre-feature layer; 0: none", low=0)
    augmentation: str = option("none", "policy of the views, see raymc.datasets.augmentation")
    clustering: str = option(
        "head",
        "labels from the cluster head, by spectral clustering of the membership (MLC), or by a method for z",
        choices=("head", "membership", "ensc", "ssc_omp", "kmeans", "gmm", "spectral"),
    )
    cluster_points: int = option(
        10_000, "samples of the training split that are clustered where no head assigns; the rest follows them", low=2
    )
    ensc_gamma: float = option(50.0, "EnSC: weight of the self-expression error", above=1)
    ensc_tau: float = option(0.9, "EnSC: share of the l1 norm", above=0, high=1)
    ssc_omp_nonzero: int = option(10, "SSC-OMP: most coefficients of a code", low=1)
    ssc_omp_tolerance: float = option(1e-6, "SSC-OMP: squared residual at which a code ends", above=0, high=1)
    n_samples: int | None = option(
        None, "train and score on so many samples of the training split, drawn once for all seeds; null: all", low=2
    )
    scaling: str | None = option(
        None,
        "of vectors' columns, by the training rows; null: standardise for own data, known datasets as they are stored",
        choices=("standardise", "minmax", "none"),
    )
    seed: int = option(0, "seed of the training", low=0)
    seeds_from: str | None = option(
        None, "first stage that a group of seeds varies; null: the first stage that is searched"
    )
    varies: str = option(
        "all",
        "what a seed changes in these stages, with commas: initialisation, order, augmentation, noise; the rest keeps "
        "the base seed",
    )
    workers: int = option(1, "data-parallel workers", low=1)
    precision: str = option(
        "auto", "auto: bfloat16 on a GPU that has it", choices=("auto", "float32", "bfloat16", "float64")
    )
    compile: bool = option(False, "torch.compile the nets and, on a GPU, the augmentation")
    channels_last: bool = option(False, "memory format of image batches")
    evaluate_every: int = option(10, "epochs between evaluations of a clustering stage", low=1)
    probes: bool = option(False, "fit SVM, k-NN and nearest-subspace probes with the labels (Table 2)")
    geometry: bool = option(
        False, "RRE, trustworthiness, continuity, d-RMSE, LGD and CRA of the embedding (GCML's Table 3)"
    )
    downstream: bool = option(False, "fit MLP, random forest, SVM and logistic regression on the embedding with labels")
    probe_views: int = option(
        16, "augmented views whose features the second half of the probes averages; 0: no second half", low=0
    )
    probe_features: str = option(
        "all", "features that are probed, with commas: pool, pre_feature, projection, subspace"
    )
    stages: Mapping[str, StageConfig] = field(default_factory=dict)

    def flat(self, stage_keys: Mapping[str, Iterable[str]]) -> dict[str, Value]:
        """The effective values under their dotted names, without method, dataset and preset."""
        flat: dict[str, Value] = {name: getattr(self, name) for name in BARE}
        for stage, keys in stage_keys.items():
            flat |= {f"{stage}.{key}": getattr(self.stages[stage], key) for key in keys}
        return flat


RETIRED = {"packed_seeds": "every seed trains by itself"}
"""Keys of earlier versions that are accepted and have no effect, with what holds instead."""

BARE = {f.name: f for f in dataclasses.fields(Config) if f.name not in ("method", "dataset", "preset", "own", "stages")}
STAGE = {f.name: f for f in dataclasses.fields(StageConfig)}


def known_keys(stage_keys: Mapping[str, Iterable[str]]) -> dict[str, dataclasses.Field[Any]]:
    """Every dotted key of a method with its field; `stage_keys` maps a stage to the keys it reads."""
    known: dict[str, dataclasses.Field[Any]] = dict(BARE)
    for stage, keys in stage_keys.items():
        known |= {f"{stage}.{key}": STAGE[key] for key in keys}
    return known


@cache
def say_once(line: str) -> None:
    """Print a line to standard error, the first time that this process says it."""
    print(f"raymc: {line}", file=sys.stderr, flush=True)


def without_retired(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` without `RETIRED` keys, of each of which a line tells."""
    for key in RETIRED.keys() & values.keys():
        say_once(f"{key} is accepted and has no effect any more: {RETIRED[key]}")
    return {key: value for key, value in values.items() if key not in RETIRED}


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the known name closest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def check_value(key: str, value: object, spec: dataclasses.Field[Any]) -> Value:
    """`value` in the type that the field `spec` wants.

    Raises InputError where the type, the range or the choice is wrong.
    """
    kind = str(spec.type)
    if value is None:
        if "None" in kind:
            return None
        raise InputError(f"{key}: a value is needed, not null")
    if kind.startswith("bool"):
        if not isinstance(value, bool):
            raise InputError(f"{key}: {value!r} is not true or false")
        return value
    if kind.startswith("str"):
        if not isinstance(value, str):
            raise InputError(f"{key}: {value!r} is not a text")
        choices = spec.metadata["choices"]
        if choices and value not in choices:
            raise InputError(f"{key}: {value!r} is not one of {', '.join(choices)}")
        return value
    if isinstance(value, str):
        raise InputError(f"{key}: {value!r} is a text, not a number{number_hint(value)}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{key}: {value!r} is not a number")
    if not math.isfinite(value):
        raise InputError(f"{key}: {value} is not finite")
    low, above = spec.metadata["low"], spec.metadata["above"]
    if low is not None and value < low:
        raise InputError(f"{key}: {value} is below {low:g}")
    if above is not None and value <= above:
        raise InputError(f"{key}: {value} is not above {above:g}")
    high = spec.metadata["high"]
    if high is not None and value > high:
        raise InputError(f"{key}: {value} is above {high:g}")
    if kind.startswith("int"):
        if value != int(value):
            raise InputError(f"{key}: {value} is not a whole number")
        return int(value)
    return float(value)


def number_hint(text: str) -> str:
    """How to write a number that YAML reads as a text (`1e-4`, `2e5`), or an empty string."""
    try:
        float(text)
    except ValueError:
        return ""
    mantissa, e, exponent = text.strip().lower().partition("e")
    if e:
        sign = "" if exponent[0] in "+-" else "+"
        mantissa += ("" if "." in mantissa else ".0") + f"e{sign}{exponent}"
    is_number = isinstance(yaml.safe_load(mantissa), int | float)
    return f" (write {mantissa})" if is_number else ""


def parse_overrides(words: Iterable[str]) -> dict[str, Value]:
    """`KEY=VALUE` words of a command line; `1e-3` is a number here.

    Raises InputError for a word without `=`.
    """
    flat: dict[str, Value] = {}
    for word in words:
        key, sign, text = word.partition("=")
        if not sign or not key:
            raise InputError(f"{word!r} is not KEY=VALUE")
        try:
            flat[key] = float(text) if not text.lstrip("+-").isdigit() else int(text)
        except ValueError:
            value = yaml.safe_load(text) if text in ("true", "false", "null") else text
            flat[key] = value
    return without_retired(flat)


def parts_of(varies: str) -> tuple[str, ...]:
    """The parts of a seed that the key `varies` names, in the order of `raymc.rng.PARTS`. Raises InputError."""
    words = [word.strip() for word in varies.split(",")]
    if words == ["all"]:
        return PARTS
    for word in words:
        if word not in PARTS:
            raise InputError(f"varies: {word!r} is not all or some of {', '.join(PARTS)}{nearest(word, PARTS)}")
    return tuple(name for name in PARTS if name in words)


def resolve(
    method: str,
    dataset: str,
    preset: str,
    stage_keys: Mapping[str, Iterable[str]],
    *layers: Mapping[str, Any],
    own: OwnData | None = None,
) -> Config:
    """The configuration of `layers` of dotted keys, the later ones winning.

    Raises InputError for an unknown key, naming the nearest known one, and for a bad value.
    """
    known = known_keys(stage_keys)
    bare: dict[str, Any] = {}
    staged: dict[str, dict[str, Any]] = {stage: {} for stage in stage_keys}
    for key, value in ((k, v) for layer in layers for k, v in layer.items()):
        if key not in known:
            raise InputError(f"unknown key {key} of {method}{nearest(key, known)}")
        checked = check_value(key, value, known[key])
        stage, dot, name = key.partition(".")
        if dot:
            staged[stage][name] = checked
        else:
            bare[key] = checked
    seeds_from = bare.get("seeds_from")
    if seeds_from is not None and seeds_from not in staged:
        raise InputError(f"seeds_from: {seeds_from!r} is not one of {', '.join(staged)}")
    for word in bare.get("probe_features", "all").replace(" ", "").split(","):
        if word not in PROBED:
            raise InputError(f"probe_features: {word!r} is not one of {', '.join(PROBED)}{nearest(word, PROBED)}")
    if "varies" in bare:
        parts = parts_of(bare["varies"])
        bare["varies"] = "all" if parts == PARTS else ",".join(parts)
    stages = MappingProxyType({name: StageConfig(**values) for name, values in staged.items()})
    return Config(method=method, dataset=dataset, preset=preset, own=own, stages=stages, **bare)
