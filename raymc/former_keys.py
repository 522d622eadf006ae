"""Keys of earlier versions: those without effect, and those that have another name now. A line tells of each."""

from __future__ import annotations

import sys
from collections.abc import Container, Mapping
from functools import cache
from typing import TypeVar

T = TypeVar("T")

RETIRED = {"packed_seeds": "every seed trains by itself"}
"""Keys that are accepted and have no effect, with what holds instead."""

RENAMED = {"pretrain.augmentations": "pretrain.views_per_sample"}
"""Names of before -> those of now; where a method still has a key of the former name, that one is meant."""


@cache
def say_once(line: str) -> None:
    """Print a line to standard error, the first time that this process says it."""
    print(line, file=sys.stderr, flush=True)


def without_retired(values: Mapping[str, T]) -> dict[str, T]:
    """`values` without `RETIRED` keys, of each of which a line tells."""
    for key in RETIRED.keys() & values.keys():
        say_once(f"raymc: {key} is accepted and has no effect any more: {RETIRED[key]}")
    return {key: value for key, value in values.items() if key not in RETIRED}


def name_now(key: str, known: Container[str]) -> str:
    """What `key` is called now by a method that has the keys `known`; a line tells of a name of before."""
    now = RENAMED.get(key, key)
    if key in known or now not in known:
        return key
    if now != key:
        say_once(f"raymc: {key} is called {now} now; the old name is accepted")
    return now


def with_names_of_now(values: Mapping[str, T], known: Container[str]) -> dict[str, T]:
    """`values` under the names that their keys have now, see `name_now`; one that has both names keeps the new one."""
    former = {name_now(key, known): value for key, value in values.items() if key not in known}
    return former | {key: value for key, value in values.items() if key in known}
