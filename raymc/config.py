"""Typed, frozen configuration with one dotted name per hyperparameter.

`heads.weight_decay` is the same name in a space file, on the command line, in Optuna, in MLflow and in
the report. A key that a method's stage does not have is unknown for it, and an unknown key is an error.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SkipValidation, ValidatorFunctionWrapHandler, WrapValidator
from pydantic.dataclasses import dataclass

from raymc.errors import InputError
from raymc.former_keys import with_names_of_now, without_retired
from raymc.rng import PARTS
from raymc.validation import STRICT, Key, Switch, Whole, wrong
from raymc.validation import Value as Value  # named from here by all that read a configuration
from raymc.values import parsed

PROBED = ("all", "pool", "pre_feature", "projection", "subspace", "embedding")
"""What `probe_features` may name; a model has some of them."""

NO_NUMBERS = ("seed", "workers", "packed_seeds", "evaluate_every", "channels_last")
"""Bare keys on which no figure hangs."""

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
class StageConfig:
    """Hyperparameters that every stage has. A method derives a class for each of its stages, beside its losses.

    All fields of a stage decide its numbers: they are in its key (see `raymc.training.stages`).

    Attributes:
        KEYED_IF_CHANGED: fields that came into the keys later, with their defaults of before: in a key only where they
            differ from these, so that results stored before are found.
        SETTABLE: whether its fields are keys that a user may set; a stage that trains nothing has none.
    """

    KEYED_IF_CHANGED: ClassVar[Mapping[str, Value]] = {"adam_beta2": 0.99, "augmentations": 2}
    SETTABLE: ClassVar[bool] = True

    epochs: Whole = Field(
        default=100, ge=0, description="passes over the data; 0 makes the hand-off and trains nothing"
    )
    batch_size: Whole = Field(default=1024, ge=2, description="samples of a step, over all workers together")
    optimizer: Literal["lars", "adam", "sgd"] = Field(default="lars", description="optimiser of the stage")
    learning_rate: float = Field(default=0.3, gt=0, description="not rescaled by batch size or workers")
    weight_decay: float = Field(default=1e-4, ge=0, description="L2 term added to the gradient")
    adam_beta2: float = Field(default=0.99, ge=0, le=0.9999, description="Adam: share of the old squared gradient")
    warmup_epochs: Whole = Field(default=0, ge=0, description="linear warm-up of the learning rate")
    schedule: Literal["cosine", "constant"] = Field(default="cosine", description="learning rate over the epochs")

    @property
    def augmentations(self) -> int:
        """Augmented views of a sample in a step, 0: the sample as it is; a key of stages, of some by another name."""
        return 0

    @property
    def frozen_statistics(self) -> bool:
        """Whether frozen modules' BatchNorm statistics stand still; some stages have it as a key."""
        return True

    @property
    def feature_bank(self) -> int:
        """Augmented views in a bank of the backbone's outputs, 0: no bank; some stages have it as a key."""
        return 0

    def unread(self) -> frozenset[str]:
        """The fields without effect, given the others."""
        return frozenset() if self.optimizer == "adam" else frozenset({"adam_beta2"})

    def keyed(self) -> dict[str, Value]:
        """The settings in the stage's key: all that have an effect."""
        absent = object()
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name not in self.unread() and value != self.KEYED_IF_CHANGED.get(name, absent)
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnData:
    """The user's own data, as a space file names them (see `raymc.datasets.own`).

    Attributes:
        name: what they are called.
        path: an absolute path.
        label: the column of the labels; `folder`: those of a folder's first level; None: none, or what the files have.
        side: to which images of a folder are resized; None: to what suits them.
        test: an absolute path, of the part that is held out; None: there is none.
        id: the column of the samples' names; None: none.
        text: the column of texts that the encoder is given; None: the samples are images.
        encoder: the name of a frozen encoder, whose features take the samples' place; `path` may then name a known
            dataset.
        weights: an absolute path, of the encoder's weights; None: those of its package or the user's cache.
        features: whether the rows are features that an encoder made.
    """

    name: str
    path: str
    label: str | None = None
    side: int | None = None
    test: str | None = None
    id: str | None = None
    text: str | None = None
    encoder: str | None = None
    weights: str | None = None
    features: bool = False

    @property
    def unread(self) -> tuple[str, ...]:
        """Columns of a table that are left out."""
        return ()

    @property
    def known(self) -> bool:
        """Whether `path` is the name of a known dataset, whose samples the encoder is given."""
        return self.encoder is not None and not os.path.isabs(self.path)


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


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Config(BareKeys):
    """One training: a method on a dataset, the bare keys, those of the augmentation and the settings of each stage."""

    method: str
    dataset: str
    preset: str = "paper"
    own: SkipValidation[OwnData | None] = None
    augment: SkipValidation[Augment] = Augment()
    stages: SkipValidation[Mapping[str, StageConfig]] = dataclasses.field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle holds: a read-only mapping cannot be pickled."""
        return vars(self) | {"stages": dict(self.stages)}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state, stages=MappingProxyType(state["stages"]))

    def flat(self, stages: Iterable[str] | None = None) -> dict[str, Value]:
        """The effective values under their dotted names, without method, dataset and preset.

        `stages` leaves out those of other stages.
        """
        flat: dict[str, Value] = {field.name: getattr(self, field.name) for field in dataclasses.fields(BareKeys)}
        chosen = self.stages if stages is None else stages
        parts = {name: self.stages[name] for name in chosen if self.stages[name].SETTABLE}
        sections: dict[str, Augment | StageConfig] = {"augment": self.augment, **parts}
        for part, settings in sections.items():
            flat |= {f"{part}.{name}": value for name, value in dataclasses.asdict(settings).items()}
        return flat

    @property
    def views_alike(self) -> bool:
        """Whether all views of a sample are the same: nothing augments them."""
        by_policy = self.augmentation != "none" and self.augment.strength > 0
        return not (by_policy or self.augment.noise or self.augment.dropout or self.augment.neighbours)


Stages = Mapping[str, type[StageConfig]]
"""A method's stages in order, each with the class of its settings."""


def known_keys(stages: Stages) -> dict[str, Key]:
    """Every dotted key of a method."""
    known = {field.name: Key(BareKeys, field.name) for field in dataclasses.fields(BareKeys)}
    settable = {stage: of for stage, of in stages.items() if of.SETTABLE}
    sections: dict[str, type[Augment] | type[StageConfig]] = {"augment": Augment, **settable}
    for part, of in sections.items():
        known |= {f"{part}.{field.name}": Key(of, field.name) for field in dataclasses.fields(of)}
    return known


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the known name closest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


SECTIONS = ("method", "dataset", "preset", "space", "objective", "budget", "sampler", "pruner", "resources")
NO_KEYS = {"device": "; a GPU is used where there is one, and CUDA_VISIBLE_DEVICES= hides it"}
NO_KEYS |= dict.fromkeys(SECTIONS, "; it is no hyperparameter, and stands beside fixed: in the space file")
"""What is no key, and what there is in its place."""

LISTED = 40
"""Names up to which a complaint lists all that there are."""


def hint(name: str, known: Iterable[str]) -> str:
    """`nearest`, else what there is: ` (there are: X, Y)`; of more than `LISTED` names the first twelve."""
    known = list(known)
    some = known if len(known) <= LISTED else [*known[:12], f"and {len(known) - 12} more"]
    return nearest(name, known) or (f" (there {'are' if len(known) > 1 else 'is'}: {', '.join(some)})" if known else "")


def parse_overrides(words: Iterable[str]) -> dict[str, Value]:
    """`KEY=VALUE` words of a command line, read by `raymc.values.parsed`.

    Raises InputError for a word without `=`.
    """
    flat: dict[str, Value] = {}
    for word in words:
        key, sign, text = word.partition("=")
        if not sign or not key:
            raise InputError(f"{word!r} is not KEY=VALUE")
        flat[key] = parsed(text)
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
    stage_settings: Stages,
    *layers: Mapping[str, Any],
    own: OwnData | None = None,
) -> Config:
    """The configuration of `layers` of dotted keys, the later ones winning.

    Raises InputError for an unknown key, naming the nearest known one, and for a bad value.
    """
    known = known_keys(stage_settings)
    bare: dict[str, Any] = {}
    staged: dict[str, dict[str, Any]] = {part: {} for part in ("augment", *stage_settings)}
    for key, value in ((k, v) for layer in layers for k, v in with_names_of_now(layer, known).items()):
        if key not in known:
            raise InputError(
                f"unknown key {key} of {method}{NO_KEYS.get(key.partition('.')[0]) or nearest(key, known)}"
            )
        checked = known[key].check(key, value)
        part, dot, name = key.partition(".")
        if dot:
            staged[part][name] = checked
        else:
            bare[key] = checked
    seeds_from = bare.get("seeds_from")
    if seeds_from is not None and seeds_from not in stage_settings:
        raise InputError(f"seeds_from: {seeds_from!r} is not one of {', '.join(stage_settings)}")
    for word in bare.get("probe_features", "all").replace(" ", "").split(","):
        if word not in PROBED:
            raise InputError(f"probe_features: {word!r} is not one of {', '.join(PROBED)}{nearest(word, PROBED)}")
    if "varies" in bare:
        parts = parts_of(bare["varies"])
        bare["varies"] = "all" if parts == PARTS else ",".join(parts)
    augment = Augment(**staged["augment"])
    stages = MappingProxyType({name: of(**staged[name]) for name, of in stage_settings.items()})
    return Config(method=method, dataset=dataset, preset=preset, own=own, augment=augment, stages=stages, **bare)
