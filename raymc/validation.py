"""Strict types of settings, and the one place where pydantic's complaints become raymc's words."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from raymc.errors import InputError

Value = bool | int | float | str | None
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Number = Annotated[float, Field(allow_inf_nan=False)]
Whole = Annotated[int, BeforeValidator(_whole)]
"""A whole number, also one that is written 3.0."""


def _no_number(value: object) -> object:
    if type(value) in (int, float):  # as a literal 1 is True
        raise wrong(f"{value} is not one of auto, true, false")
    return value


Switch = Annotated[Literal["auto", True, False], BeforeValidator(_no_number)]
"""On, off, or as suits."""


class Limits(NamedTuple):
    """The least and the greatest value that a key can have; None: there is none, as where a bound is not a value."""

    low: float | None
    high: float | None


class Key(NamedTuple):
    """What a dotted key may be: the field `name` of the settings' class `of`."""

    of: type
    name: str

    @property
    def field(self) -> FieldInfo:
        """pydantic's record of the field: default, bounds, description."""
        fields: Mapping[str, FieldInfo] = vars(self.of)["__pydantic_fields__"]
        return fields[self.name]

    @property
    def default(self) -> Value:
        value: Value = self.field.default
        return value

    @property
    def optional(self) -> bool:
        """Whether null is a value."""
        return type(None) in get_args(self.field.annotation)

    @property
    def limits(self) -> Limits:
        """As the field declares them."""
        declared = self.field.metadata
        low, high = ([getattr(one, end) for one in declared if hasattr(one, end)] for end in ("ge", "le"))
        return Limits(max(low, default=None), min(high, default=None))

    @property
    def choices(self) -> tuple[str | bool, ...]:
        """The values of a key that has a list of them, else empty."""
        return get_args(self._annotation) if get_origin(self._annotation) is Literal else ()

    @property
    def kind(self) -> str:
        """`bool`, `int`, `float` or `str`."""
        return "str" if self.choices else str(self._annotation.__name__)

    def check(self, place: str, value: object) -> Value:
        """`value` in the key's type. Raises InputError that begins with `place` where it is no value of the key."""
        try:
            checked: Value = getattr(self.of(**{self.name: value}), self.name)
        except ValidationError as error:
            raise InputError(f"{place}: {reason(error.errors()[0])}") from error
        return checked

    @property
    def _annotation(self) -> Any:
        found: Any = self.field.annotation
        if self.optional:
            found = next(one for one in get_args(found) if one is not type(None))
        return get_args(found)[0] if get_origin(found) is Annotated else found


def wrong(text: str) -> PydanticCustomError:
    """The error that says `text`."""
    return PydanticCustomError("wrong", "{text}", {"text": text})


def reason(error: ErrorDetails) -> str:
    """What is wrong with a value, to stand behind the name of its place."""
    kind, value, limits = error["type"], error["input"], error.get("ctx", {})
    shown = repr(value) if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    if kind in ("wrong", "missing"):
        return error["msg"] if kind == "wrong" else "is missing"
    if kind == "string_too_short":
        return "is empty"
    if value is None and kind in (*_WANTED, "literal_error"):
        return "a value is needed, not null"
    if kind in ("float_type", "int_type") and isinstance(value, str):
        return f"{shown} is a text, not a number{number_hint(value)}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{shown} is not finite"
    if kind == "literal_error":
        choices = limits["expected"].replace("'", "").replace(" or ", ", ")
        return f"{shown} is not one of {choices.replace('True, False', 'true, false')}"
    if "min_length" in limits:
        return f"{shown} has not {limits['min_length']} values or more"
    for bound, words in (("ge", "is below"), ("le", "is above"), ("gt", "is not above")):
        if bound in limits:
            return f"{shown} {words} {limits[bound]:g}"
    return f"{shown} is not {_WANTED.get(kind, 'a mapping')}"


_WANTED = {
    "bool_type": "true or false",
    "string_type": "a text",
    "list_type": "a list",
    "float_type": "a number",
    "int_type": "a whole number",
}


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
