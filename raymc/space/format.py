"""The format of a search-space file: its sections, their defaults, and the words for what is wrong.

The structure is checked here; whether keys and values fit the method is checked in `raymc.space.space`.
"""

from __future__ import annotations

import math
from pathlib import PurePath
from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from raymc.datasets import NAMES
from raymc.encoders import check_name
from raymc.errors import InputError
from raymc.space.objective import Budget, Objective, against_budget
from raymc.space.pruner import Pruner
from raymc.space.resources import Resources
from raymc.space.sampler import TPE, Sampler
from raymc.space.section import Section
from raymc.validation import Number, reason, wrong
from raymc.values import setting


def _scalar(value: object) -> object:
    if value is not None and not isinstance(value, bool | int | float | str):
        raise wrong(f"{value} is not a single number or text")
    return value


Scalar = Annotated[
    Any,
    BeforeValidator(_scalar),
    WithJsonSchema({"type": ["boolean", "number", "string", "null"]}),
]


When = Annotated[
    dict[str, Scalar] | None,
    Field(description="values that other keys, searched or fixed, must have for this one to exist", min_length=1),
]


class Range(Section):
    """All numbers from `low` to `high`, both included."""

    low: Number = Field(description="smallest value")
    high: Number = Field(description="largest value, included")
    log: bool = Field(default=False, description="search the logarithm: for keys that span powers of ten")
    step: Number | None = Field(default=None, description="only low, low + step, low + 2 step, ... up to high", gt=0)
    when: When = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise wrong(f"low {setting(self.low)} is not below high {setting(self.high)}")
        if self.log and self.low <= 0:
            raise wrong(f"log needs low above 0, not {setting(self.low)}")
        if self.step is not None and self.log:
            raise wrong("step and log exclude each other")
        if self.step is not None and not on_grid(self.high, self.low, self.step):
            raise wrong(
                f"high {setting(self.high)} is not low {setting(self.low)} plus a multiple of step {setting(self.step)}"
            )
        return self


class Choices(Section):
    """A list of values, in no order."""

    choices: list[Scalar] = Field(description="two or more different values", min_length=2)
    when: When = None


class OwnFiles(Section):
    """Data of your own: a file or a folder of images."""

    path: str = Field(
        description=".npz (x, y), .npy, .csv, .parquet, .safetensors, .pt or a folder of images; from where the space "
        "file is",
        min_length=1,
    )
    label: str | None = Field(
        default=None,
        description="the column of the labels, of a .csv or .parquet; folder: the first level of folders is the class; "
        "left out: no labels, or those that the files have",
        min_length=1,
    )
    test: str | None = Field(
        default=None,
        description="a part that is held out, of the same kind as path; scored and never trained on",
        min_length=1,
    )
    id: str | None = Field(
        default=None,
        description="the column of the samples' names, of a .csv or .parquet; it is no data",
        min_length=1,
    )
    side: int | None = Field(
        default=None,
        description="pixels to which images of a folder are resized; left out: as they are, if all are square, equal "
        "and at most 64, else 64; with an encoder the side of its input; left out: its own",
        ge=8,
        le=1024,
    )
    encoder: str | None = Field(
        default=None,
        description="a frozen encoder, whose features are clustered in place of the images or texts: "
        "efficientnet_lite2, timm:NAME, sentence_transformers:ID and others; path may then name a known dataset",
        min_length=1,
    )
    weights: str | None = Field(
        default=None,
        description="a file of the encoder's weights, of some libraries a folder; from where the space file is; left "
        "out: those of its package, or of the library's cache",
        min_length=1,
    )
    text: str | None = Field(
        default=None,
        description="the column of texts that the encoder is given, of a .csv or .parquet",
        min_length=1,
    )
    features: bool = Field(default=False, description="whether the rows are features that an encoder made already")
    name: str | None = Field(
        default=None,
        description="what the data are called, not as a dataset that raymc knows; left out: the file's name",
        min_length=1,
    )

    @model_validator(mode="after")
    def _encoded(self) -> Self:
        if self.encoder is not None:
            try:
                check_name(self.encoder)
            except InputError as error:
                raise wrong(str(error)) from error
            if self.features:
                raise wrong("features: true is for rows that an encoder made before; leave it out beside encoder")
        for key in ("weights", "text"):
            if self.encoder is None and getattr(self, key) is not None:
                raise wrong(f"{key}: {getattr(self, key)} is for an encoder, and none is named")
        return self

    @property
    def called(self) -> str:
        """The name, or what the path gives: of a known dataset with the encoder's."""
        stem = PurePath(self.path).stem
        if self.name or self.encoder is None or stem not in NAMES:
            return self.name or stem
        return f"{stem}_{self.encoder.rpartition(':')[2].replace('/', '_')}"

    @model_validator(mode="after")
    def _own_name(self) -> Self:
        name = self.called
        if name in NAMES:
            given = "" if self.name else ", from its path,"
            raise wrong(f"the name {name}{given} is that of a known dataset; give another as name")
        if self.id is not None and self.id == self.label:
            raise wrong(f"{self.id} is named as id and as label; expected: two columns")
        if self.name and (not name.strip() or not name.isprintable() or {"/", "\\"} & set(name)):
            raise wrong(f"name {name!r} is no plain name; expected: letters and the like, no / and no \\")
        return self


def _kind(value: object) -> str:
    return "files" if isinstance(value, OwnFiles | dict) else "name"


Data = Annotated[Annotated[str, Tag("name")] | Annotated[OwnFiles, Tag("files")], Discriminator(_kind)]


def _shape(value: object) -> str:
    choices = isinstance(value, Choices | list) or (isinstance(value, dict) and "choices" in value)
    return "choices" if choices else "range"


def _listed(value: object) -> object:
    return {"choices": value} if isinstance(value, list) else value


Listed = Annotated[
    Choices,
    BeforeValidator(
        _listed,
        json_schema_input_type=Choices
        | Annotated[list[Scalar], Field(description="short for {choices: [...]}", min_length=2)],
    ),
]

Searched = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Listed, Tag("choices")],
    Discriminator(_shape),
]


ENDS = {"low", "high"}


class SpaceFile(Section):
    """A search space of raymc."""

    method: str = Field(description="clustering method")
    dataset: Data = Field(description="name of a dataset, or where data of your own are")
    preset: str | None = Field(
        default=None, description="the values that everything else starts from; left out: the method's own default"
    )
    question: str = Field(default="", description="what the study is to answer, in words; the report quotes it")
    fixed: dict[str, Scalar] = Field(default={}, description="values that differ from the preset and are not searched")
    space: dict[str, Searched] = Field(default={}, description="what is searched; empty: only the preset is trained")

    @field_validator("fixed", mode="before")
    @classmethod
    def _number_of_clusters(cls, value: object) -> object:
        """The one key whose value may be a mapping; what it may be is checked with all keys."""
        if isinstance(value, dict) and isinstance(among := value.get("n_clusters"), dict) and among.keys() == ENDS:
            return value | {"n_clusters": f"{among['low']}..{among['high']}"}
        return value

    first: list[dict[str, Scalar]] | None = Field(
        default=None, description="configurations that are tried first; left out: the preset's own"
    )
    objective: Objective = Field(default=Objective(uses_labels=True), description=Objective.__doc__)
    budget: Budget = Field(default=Budget(), description=Budget.__doc__)
    resources: Resources = Field(default=Resources(), description=Resources.__doc__)
    sampler: Sampler = Field(default=TPE(), description="what draws the next trial: a name, or a name with options")
    pruner: Pruner | None = Field(
        default=None,
        description="what stops bad trials early: a name, or a name with options; left out: asha where budget.fidelity "
        "is given",
    )

    @model_validator(mode="after")
    def _affordable(self) -> Self:
        why = against_budget(self.objective, self.budget)
        if why:
            raise wrong(why)
        return self


def parse_space(content: object) -> SpaceFile:
    """The sections of a space file. Raises InputError that names every key that is wrong."""
    if content is None:
        raise InputError("the file is empty")
    if not isinstance(content, dict):
        raise InputError("the file is not a mapping of keys to values")
    try:
        return SpaceFile.model_validate(content)
    except ValidationError as error:
        raise InputError(in_words(error)) from error


def in_words(error: ValidationError) -> str:
    """Every key that is wrong, in one line."""
    return "; ".join(_in_words(e) for e in error.errors())


def on_grid(value: float, low: float, step: float) -> bool:
    """Whether `value` is `low` plus a whole multiple of `step`, up to rounding."""
    steps = (value - low) / step
    return math.isclose(steps, round(steps), abs_tol=1e-9, rel_tol=1e-9)


def json_schema() -> dict[str, Any]:
    """The structure as a JSON Schema, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | SpaceFile.model_json_schema()


def _in_words(error: ErrorDetails) -> str:
    place = [part for part in error["loc"] if part != "[key]"]
    if place[:1] == ["space"] and len(place) > 2:
        del place[2]  # which kind of parameter it was taken for
    if place[:1] in (["dataset"], ["sampler"], ["pruner"]) and len(place) > 1:
        del place[1]
    if place[:1] == ["first"] and len(place) > 1:
        place[:2] = [f"first, entry {int(place[1]) + 1}"]
    where = ".".join(str(part) for part in place)
    return f"{where}: {reason(error)}" if where else reason(error)
