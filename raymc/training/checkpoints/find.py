"""Where checkpoints are looked for, and which of them is of a stage's result."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

import raymc
from raymc.errors import InputError
from raymc.training.checkpoints.weights import read_digest

CARD = "card.json"
NEEDED = {"format": int, "stage": str, "key": str, "dataset": str, "facts": dict, "files": list, "curve": list}
LONG = {"data": "other samples", "architecture": "another net"}  # facts that say nothing to a reader


class Checkpoint(NamedTuple):
    """A checkpoint's folder and the content of its card, of which nothing has been checked but that it has its keys."""

    folder: Path
    card: Mapping[str, Any]


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
        for path in (*folder.glob(CARD), *sorted(folder.glob(f"*/{CARD}"))):  # it may be named itself
            try:
                card = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError):
                continue
            if isinstance(card, dict) and all(isinstance(card.get(key), kind) for key, kind in NEEDED.items()):
                yield Checkpoint(path.parent, card)


def find(key: str, reads: Mapping[str, nn.Module]) -> Checkpoint | None:
    """The checkpoint of a stage's result, trained behind the modules `reads`, which its stage only reads.

    Where these had other weights, a line on standard error says so and it is passed over.
    """
    found = next((one for one in checkpoints() if one.card["key"] == key), None)
    if found is None or found.card.get("read") == _digest(reads):
        return found
    other = f"other weights of {', '.join(reads)}" if found.card.get("read") else "weights that its card does not name"
    line = f"checkpoint {found.folder} was trained behind {other}: not taken"
    print(f"{found.card['stage']}: {line}", file=sys.stderr)
    return None


def _digest(reads: Mapping[str, nn.Module]) -> str | None:
    try:
        return read_digest(reads)
    except InputError:  # float16 cannot hold them: there is no checkpoint of them
        return "not in float16"


def unlike(stage: str, dataset: str, facts: Mapping[str, Any]) -> str:
    """`; checkpoint x is of pretrain.epochs=600, asked 1000` for the nearest one of these samples, or nothing.

    `facts` are the `stage_facts` of what was asked for, the stage before apart.
    """
    near = [
        (differences(stage, one.card["facts"], facts), one.folder.name)
        for one in checkpoints()
        if one.card["stage"] == stage
        and (one.card["dataset"] == dataset or one.card["facts"].get("data") == facts["data"])
    ]
    words, name = min(near, key=lambda pair: len(pair[0]), default=([], ""))
    return f"; checkpoint {name} is of {'; '.join(words)}" if words else ""


def differences(stage: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """How the `stage_facts` of a checkpoint differ from those asked for, in words, the settings first."""
    have, want = _named(stage, theirs), _named(stage, ours)
    changed = [key for key in want | have if have.get(key) != want.get(key)]
    return [LONG.get(key, f"{key}={have.get(key)}, asked {want.get(key)}") for key in changed]


def _named(stage: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts by the names that they are asked for by."""
    settings = facts.get("settings")
    named = {f"{stage}.{key}": value for key, value in settings.items()} if isinstance(settings, dict) else {}
    return named | {key: value for key, value in facts.items() if key not in ("settings", "previous")}
