"""One searched key: what it may be, and whether that fits the key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from raymc.errors import InputError
from raymc.former_keys import with_names_of_now
from raymc.space.format import Choices, Range, on_grid
from raymc.space.names import known_name
from raymc.validation import Key, Value
from raymc.values import setting, written

NOT_SEARCHED = (
    *("seed", "seeds_from", "varies", "workers", "evaluate_every", "n_samples"),
    *("probes", "probe_views", "probe_features", "geometry", "downstream"),
)
"""Keys that say how a training is run or watched, not what it is."""


@dataclass(frozen=True)
class Parameter:
    """What a searched key may be: the range [low, high] of a `kind` "int" or "float", or `choices`.

    Whole-number keys have whole bounds; `log` searches the logarithm, `step` the grid low, low + step, ...
    `when` are the values that other searched keys must have for this one to exist.
    """

    kind: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    choices: tuple[Value, ...] = ()
    when: tuple[tuple[str, Value], ...] = ()

    def exists(self, values: Mapping[str, Value]) -> bool:
        """Whether the key exists where others have these values."""
        return all(key in values and alike(values[key], value) for key, value in self.when)

    @property
    def count(self) -> int | None:
        """How many values it has; None of a range without steps."""
        if self.choices:
            return len(self.choices)
        step = self.step or (1 if self.kind == "int" else None)
        if self.low is None or self.high is None or step is None:
            return None
        return round((self.high - self.low) / step) + 1 if self.step else int(self.high - self.low) + 1

    def contains(self, value: Value) -> bool:
        """Whether `value` can be drawn from this parameter."""
        if self.choices:
            return any(value == choice and (value is None) == (choice is None) for choice in self.choices)
        if self.low is None or self.high is None or isinstance(value, str) or value is None:
            return False
        return self.low <= value <= self.high and (self.step is None or on_grid(value, self.low, self.step))

    def ends(self) -> tuple[Value, Value]:
        """The lowest and the highest value, or the first and the last choice."""
        return (self.choices[0], self.choices[-1]) if self.choices else (self.low, self.high)

    def as_dict(self) -> dict[str, Any]:
        """The bounds as a study's manifest holds them."""
        when = {"when": dict(self.when)} if self.when else {}
        if self.choices:
            return {"choices": list(self.choices)} | when
        step = {} if self.step is None else {"step": self.step}
        return {"low": self.low, "high": self.high, "log": self.log} | step | when

    def __str__(self) -> str:
        if self.choices:
            return f"the choices {', '.join(written(choice) for choice in self.choices)}"
        steps = f" in steps of {setting(self.step)}" if self.step else ""
        return f"the range {setting(self.low)} to {setting(self.high)}{steps}"


def make_parameter(key: str, spec: Range | Choices, known: Key) -> Parameter:
    """The parameter of the dotted name `key`, of which `known` says what it may be.

    Raises InputError where the key is not for searching or a bound or choice is no value of it.
    """
    if key in NOT_SEARCHED:
        raise InputError(f"space.{key}: is not searched")
    kind = known.kind
    when = tuple((spec.when or {}).items())
    if isinstance(spec, Choices):
        return Parameter(kind, choices=_choices(key, spec, known), when=when)
    if kind not in ("int", "float"):
        wanted = "true or false" if kind == "bool" else "a text"
        raise InputError(f"space.{key}: is {wanted}; give choices, not a range")
    low, high, step = (_number(f"{key}.{name}", getattr(spec, name), known) for name in ("low", "high", "step"))
    return Parameter(kind, low, high, spec.log, step, when=when)


def alike(value: Value, other: Value) -> bool:
    """Whether two values of a key are the same one: 1 is 1.0, and not true."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _choices(key: str, spec: Choices, known: Key) -> tuple[Value, ...]:
    values = tuple(known.check(f"space.{key}.choices", value) for value in spec.choices)
    for i, value in enumerate(values):
        if value in values[:i]:
            raise InputError(f"space.{key}.choices: {written(value)} stands twice")
    return values


def _number(key: str, value: float | None, known: Key) -> float | None:
    checked = None if value is None else known.check(f"space.{key}", value)
    assert checked is None or isinstance(checked, int | float)  # a number's field gives a number
    return checked


def parameter_of(key: str, spec: Range | Choices, known: Mapping[str, Key]) -> Parameter:
    """The parameter of a key, its conditions in the types of their keys. Raises InputError."""
    parameter, place = make_parameter(key, spec, known[key]), f"space.{key}.when"
    when = with_names_of_now(dict(parameter.when), known)
    for name in when:
        known_name(f"key in {place}:", name, known)
    checked = tuple((name, known[name].check(f"{place}.{name}", value)) for name, value in when.items())
    return replace(parameter, when=checked)
