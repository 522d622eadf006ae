"""Checkpoints: a stage's result as float16 shards with a card, small enough for git, from which others go on.

```
checkpoints/<name>/card.json                 what it is of: the stage's key and all that is hashed into it, files, curve
checkpoints/<name>/README.md                 the same to read
checkpoints/<name>/weights-00.safetensors    … of at most 14 MiB each
```
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

import raymc
from raymc.errors import InputError
from raymc.storage.stage_store import Entry
from raymc.training import shards
from raymc.training.stages import Weights, key_of, weights_of

FORMAT = 1
CARD = "card.json"
NEEDED = {"format": int, "stage": str, "key": str, "dataset": str, "facts": dict, "files": list, "curve": list}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's folder and the content of its card, of which nothing has been checked but that it has its keys."""

    folder: Path
    card: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name


def folders() -> list[Path]:
    """Where checkpoints are looked for: RAYMC_CHECKPOINTS, which is one folder or several as in PATH.

    Without it, or where it is empty, `checkpoints` here and in raymc's source tree. Raises InputError where it names
    what is no folder.
    """
    value = os.environ.get("RAYMC_CHECKPOINTS", "")
    if not value:
        tree = Path(raymc.__file__).parents[1]
        source = [tree / "checkpoints"] if (tree / "pyproject.toml").exists() else []
        return list(dict.fromkeys([Path("checkpoints").resolve(), *source]))
    given = [Path(word).expanduser() for word in value.split(os.pathsep) if word]
    for folder in given:
        if not folder.is_dir():
            raise InputError(f"RAYMC_CHECKPOINTS: {folder} is no folder")
    return given


def handed_on() -> str:
    """RAYMC_CHECKPOINTS for a process with another working folder."""
    return os.pathsep.join(str(folder.resolve()) for folder in folders() if folder.is_dir())


def take_over(handed: str) -> None:
    """Look where the process that `handed` this on looks, and nowhere else.

    Its folders that this machine lacks are left out; where it has none of them nothing is looked for.
    """
    here = [folder for folder in handed.split(os.pathsep) if folder and Path(folder).is_dir()]
    os.environ["RAYMC_CHECKPOINTS"] = os.pathsep.join(here) or os.pathsep  # a list of none, not an empty value


def checkpoints() -> Iterator[Checkpoint]:
    """All that have a readable card."""
    for folder in folders():
        for path in sorted(folder.glob(f"*/{CARD}")):
            try:
                card = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError):
                continue
            if isinstance(card, dict) and all(isinstance(card.get(key), kind) for key, kind in NEEDED.items()):
                yield Checkpoint(path.parent, card)


def find(key: str, reads: Mapping[str, nn.Module]) -> Checkpoint | None:
    """The checkpoint of a stage's result, trained behind the modules `reads`, which its stage only reads.

    Where these had other weights, that is told on standard error and it is passed over.
    """
    found = next((one for one in checkpoints() if one.card["key"] == key), None)
    if found is None or found.card.get("read") == _weights_read(reads):
        return found
    behind = f"other weights of {', '.join(reads)}" if found.card.get("read") else "weights that its card does not name"
    told = f"checkpoint {found.folder} was trained behind {behind}: not taken"
    print(f"{found.card['stage']}: {told}", file=sys.stderr)
    return None


def _weights_read(reads: Mapping[str, nn.Module]) -> str | None:
    """What a card says of the modules that its stage only reads, were it trained behind these."""
    try:
        return shards.weights_digest(weights_of(nn.ModuleDict(reads))) if reads else None
    except InputError:  # float16 cannot hold them: there is no checkpoint of them
        return "not in float16"


def load(key: str, expected: Weights, reads: Mapping[str, nn.Module]) -> Entry | None:
    """The result `key` from a checkpoint, told on standard error, as the store keeps it; None where there is none.

    `expected` are the modules that it is for, with tensors of the right shapes and types; for `reads` see `find`.
    Raises InputError, in one line, where a checkpoint says that it is of this key and is not whole or not of this net.
    """
    found = find(key, reads)
    if found is None:
        return None
    try:
        meta = _told(found.card) | {"checkpoint": found.name}
        state = {"weights": _checked(found, expected), "snapshots": {}}
    except InputError as error:
        raise InputError(f"checkpoint {found.folder}: {error}") from error
    print(f"{meta['stage']}: weights of checkpoint {found.folder} (float16), now in the store", file=sys.stderr)
    return Entry(state, meta)


def unlike(stage: str, dataset: str, facts: Mapping[str, Any]) -> str:
    """`; checkpoint x is of pretrain.epochs=600, asked 1000` for the nearest one of these samples, or nothing.

    `facts` are the `stage_facts` of what was asked for, the stage before apart.
    """
    near = [
        (differences(stage, one.card["facts"], facts), one.name)
        for one in checkpoints()
        if one.card["stage"] == stage
        and (one.card["dataset"] == dataset or one.card["facts"].get("data") == facts["data"])
    ]
    if not near:
        return ""
    told, name = min(near, key=lambda pair: len(pair[0]))
    return f"; checkpoint {name} is of {'; '.join(told)}" if told else ""


def differences(stage: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """How the `stage_facts` of a checkpoint differ from those asked for, in words, the settings first."""
    have, want = theirs.get("settings"), ours["settings"]
    have = have if isinstance(have, dict) else {}
    told = [f"{stage}.{key}={have.get(key)}, asked {want.get(key)}" for key in want if have.get(key) != want[key]]
    for key in ("augmentation", "precision", "seed"):
        if theirs.get(key) != ours[key]:
            told.append(f"{key}={theirs.get(key)}, asked {ours[key]}")
    for key, what in (("data", "other samples"), ("architecture", "another net")):
        if theirs.get(key) != ours[key]:
            told.append(what)
    rest = (theirs.keys() | ours.keys()) - {"settings", "augmentation", "precision", "seed", "data", "architecture"}
    changed = sorted(key for key in rest - {"previous"} if theirs.get(key) != ours.get(key))
    return told + ([f"other numerics ({', '.join(changed)})"] if changed else [])


def _told(card: Mapping[str, Any]) -> dict[str, Any]:
    """What the store keeps of a card. Raises InputError where it is not what a training writes."""
    told = {"stage": card["stage"], "curve": card["curve"], "scored": card.get("scored"), "made": card.get("made")}
    for row in told["curve"]:
        if not (isinstance(row, dict) and all(isinstance(value, str | int | float) for value in row.values())):
            raise InputError("its curve is no list of rows of words and numbers")
    for name, kind in (("scored", list), ("made", dict)):
        if not isinstance(told[name], kind | None):
            raise InputError(f"`{name}` in its {CARD} is neither null nor a {kind.__name__}")
    try:
        json.dumps(told, allow_nan=False)
    except ValueError as error:
        raise InputError(f"a number in its {CARD} is not finite") from error
    return told


def _checked(found: Checkpoint, expected: Weights) -> Weights:
    card = found.card
    if card["format"] != FORMAT:
        raise InputError(f"its format is {card['format']}, this raymc reads {FORMAT}")
    if key_of(card["facts"]) != card["key"]:
        raise InputError(f"the key in its {CARD} is not that of the facts in it")
    return shards.read(found.folder, card["files"], expected)
