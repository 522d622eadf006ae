"""What a study was begun with, compared with the words and the space file by which it is gone on with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from raymc.config import Value, known_keys
from raymc.errors import InputError
from raymc.former_keys import with_names_of_now
from raymc.methods import METHODS
from raymc.space.space import load_space
from raymc.study.records import Row, mapping
from raymc.values import written

ABSENT = object()
SHOWN = 3
"""Differences that a line names one by one."""


def check_words(manifest: Row, overrides: Mapping[str, Value], seed: int | None, seeds: int | None) -> None:
    """Raises InputError, naming both values, where the command line says another than the study was begun with."""
    name = manifest["study"]
    own: Row = {"--seed": manifest.get("seed"), "--seeds": len(manifest.get("seeds") or ())}
    for option, given in {"--seed": seed, "--seeds": seeds}.items():
        if given is not None and given != own[option]:
            raise InputError(f"study {name} was begun with {option} {own[option]}, not {given}; give another --name")
    method = METHODS.get(str(manifest.get("method")))
    known = known_keys(method.stage_settings) if method else {}
    before = {**mapping(manifest.get("fixed")), **mapping(manifest.get("overrides"))}
    before, searched = with_names_of_now(before, known), with_names_of_now(mapping(manifest.get("searched")), known)
    for key, value in with_names_of_now(overrides, known).items():
        if key in searched:
            raise InputError(f"study {name} searches {key}: {key}={_shown(value)} makes another study; give --name")
        if not _same(before.get(key, ABSENT), value):
            was = f"{key}={_shown(before[key])}" if key in before else f"no {key}"
            raise InputError(f"study {name} was begun with {was}, not {key}={_shown(value)}; give another --name")


def changed_since(manifest: Row, place: str) -> str | None:
    """What differs between the space file at `place` and the study's copy, and what to do; None: nothing does."""
    study = manifest["study"]
    copy = f"{study} goes on with its own copy"
    try:
        now = load_space(place).content
    except InputError as error:
        return f"study {copy} of the space: {error}"
    before = mapping(mapping(manifest.get("space")).get("content"))
    found = list(_differences(before, json.loads(json.dumps(now, default=str)), ""))
    if not found:
        return None
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    trials = mapping(now.get("budget")).get("trials", 0)
    extended = f"; --trials {trials} extends it" if trials > mapping(manifest.get("budget")).get("trials", 0) else ""
    return (
        f"{place} has changed since study {study} began: {'; '.join(found[:SHOWN])}{more}. "
        f"Study {copy}{extended}; for the file as it is now, leave out --resume and give another --name"
    )


def _differences(before: object, now: object, place: str) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys((*before, *now)):
            below = f"{place}.{key}" if place else str(key)
            yield from _differences(before.get(key, ABSENT), now.get(key, ABSENT), below)
    elif before is ABSENT:
        yield f"{place} is new ({_shown(now)})"
    elif now is ABSENT:
        yield f"{place} is gone ({_shown(before)})"
    elif before != now:
        yield f"{place} was {_shown(before)} and is {_shown(now)}"


def _same(before: object, now: object) -> bool:
    return before == now and isinstance(before, bool) == isinstance(now, bool)


def _shown(value: Any) -> str:
    text = written(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
