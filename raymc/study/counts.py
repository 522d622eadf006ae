"""Whether the counts of a command line are counts: asked before anything large is imported."""

from __future__ import annotations

from collections.abc import Mapping

from raymc.config import Value
from raymc.errors import InputError


def check_numbers(overrides: Mapping[str, Value], **given: int | None) -> None:
    """Raises InputError for a count below one, a negative `seed`, and a seed among the keys."""
    for option, value in given.items():
        least = 0 if option == "seed" else 1
        if value is not None and value < least:
            raise InputError(f"--{option} {value}: at least {least} is needed")
    if "seed" in overrides:
        raise InputError("seed: there are several; the first one is --seed")
