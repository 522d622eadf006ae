"""A stage's result from a checkpoint, as the store keeps it, once all that its card says holds."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from torch import nn

from raymc.errors import InputError
from raymc.program import command_line
from raymc.storage.stage_store import Entry
from raymc.training.checkpoints.find import CARD, find
from raymc.training.checkpoints.weights import read
from raymc.training.stages import Weights, key_of

FORMAT = 2


def load(key: str, expected: Weights, reads: Mapping[str, nn.Module]) -> Entry | None:
    """The result `key` from a checkpoint, which a line on standard error names; None where there is none.

    `expected` are the modules that it is for, with tensors of the right shapes and types; for `reads` see `find`.
    Raises InputError, in one line, where a checkpoint says that it is of this key and is not whole or not of this net.
    """
    found = find(key, reads)
    if found is None:
        return None
    try:
        _check(found.card)
        meta = _meta(found.card) | {"checkpoint": found.folder.name}
        state = {"weights": read(found.folder, found.card["files"], expected), "snapshots": {}}
    except InputError as error:
        raise InputError(f"checkpoint {found.folder}: {error}") from error
    print(f"{meta['stage']}: weights of checkpoint {found.folder} (float16), now in the store", file=sys.stderr)
    return Entry(state, meta)


def _check(card: Mapping[str, Any]) -> None:
    if card["format"] != FORMAT:
        again = f": write it again with {command_line('checkpoint', [])}" if card["format"] < FORMAT else ""
        raise InputError(f"its format is {card['format']}, this raymc reads {FORMAT}{again}")
    if key_of(card["facts"]) != card["key"]:
        raise InputError(f"the key in its {CARD} is not that of the facts in it")


def _meta(card: Mapping[str, Any]) -> dict[str, Any]:
    """What the store keeps of a card. Raises InputError where it is not what a training writes."""
    meta = {key: card.get(key) for key in ("stage", "curve", "scored", "made")}
    for row in card["curve"]:
        if not (isinstance(row, dict) and all(isinstance(value, str | int | float) for value in row.values())):
            raise InputError("its curve is no list of rows of words and numbers")
    for name, kind in (("scored", list), ("made", dict)):
        if not isinstance(meta[name], kind | None):
            raise InputError(f"`{name}` in its {CARD} is neither null nor a {kind.__name__}")
    try:
        json.dumps(meta, allow_nan=False)
    except ValueError as error:
        raise InputError(f"a number in its {CARD} is not finite") from error
    return meta
