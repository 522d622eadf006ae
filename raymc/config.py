"""Typed, frozen configuration with one dotted name per hyperparameter.

`heads.weight_decay` is the same name in a space file, on the command line, in Optuna, in MLflow and in
the report. A key that a method's stage does not have is unknown for it, and an unknown key is an error.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from pydantic import Field, SkipValidation
from pydantic.dataclasses import dataclass

from raymc.bare_keys import Augment, BareKeys
from raymc.errors import InputError
from raymc.former_keys import with_names_of_now, without_retired
from raymc.rng import PARTS
from raymc.validation import STRICT, Key, Whole
from raymc.validation import Value as Value  # named from here by all that read a configuration
from raymc.values import parsed

PROBED = ("all", "pool", "pre_feature", "projection", "subspace", "embedding")
"""What `probe_features` may name; a model has some of them."""

NO_NUMBERS = ("seed", "workers", "packed_seeds", "evaluate_every", "channels_last")
"""Bare keys on which no figure hangs."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StageConfig:
    """Hyperparameters that every stage has. A method derives a class for each of its stages, beside its losses.

    All fields of a stage decide its numbers: they are in its key (see `raymc.training.stages`).

    Attributes:
        KEYED_IF_CHANGED: fields that came into the keys later, with their defaults of before: in a key only where they
            differ from these, so that results stored before are found.
        NULL_MEANS: fields whose null stands for the value of another field.
        SETTABLE: whether its fields are keys that a user may set; a stage that trains nothing has none.
    """

    KEYED_IF_CHANGED: ClassVar[Mapping[str, Value]] = {"adam_beta2": 0.99, "augmentations": 2}
    NULL_MEANS: ClassVar[Mapping[str, str]] = {}
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
