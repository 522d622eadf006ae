"""Keys that exist only where others have a value (`when`): which of a space's keys a point has."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from raymc.errors import InputError
from raymc.space.parameter import Parameter, alike
from raymc.validation import Value
from raymc.values import written


def active(params: Mapping[str, Parameter], values: Mapping[str, Value]) -> dict[str, Value]:
    """Of the values those whose keys exist among them."""
    return {key: value for key, value in values.items() if key not in params or params[key].exists(values)}


def resolved(
    params: Mapping[str, Parameter], fixed: Mapping[str, Value], dropped: Collection[str] = ()
) -> dict[str, Parameter]:
    """The keys that can exist, those without a condition first, with the conditions on searched keys alone.

    `fixed` has the values of all keys that are not searched. A condition on one of them holds or not once and for all;
    where it does not, the key is left out if that follows from `dropped`, values of the command line. Raises
    InputError where it follows from the file, and for a condition on a key that has one itself or never has the value.
    """
    found = {}
    for key, parameter in params.items():
        never = _never(key, parameter, params, fixed)
        if never is None:
            left = tuple(pair for pair in parameter.when if pair[0] in params)
            found[key] = replace(parameter, when=left)
        elif never not in dropped:
            raise InputError(
                f"space.{key}.when: {never} is {written(fixed[never])} and not searched, so {key} never exists"
            )
    return dict(sorted(found.items(), key=lambda pair: bool(pair[1].when)))


def _never(key: str, parameter: Parameter, params: Mapping[str, Parameter], fixed: Mapping[str, Value]) -> str | None:
    """The key that keeps this one from ever existing, if there is one."""
    for name, value in parameter.when:
        other = params.get(name)
        if other is None:
            if not alike(fixed[name], value):
                return name
        elif name == key or other.when:
            raise InputError(f"space.{key}.when: {name} has a `when` itself; name a key that always exists")
        elif not other.contains(value):
            raise InputError(f"space.{key}.when: {name} is never {written(value)}: it is {other}")
    return None


def existing(params: Mapping[str, Parameter], point: Mapping[str, Value]) -> set[str]:
    """The keys that exist at a point."""
    return {key for key, parameter in params.items() if parameter.exists(point)}
