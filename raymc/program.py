"""The program as it was started: for lines that a user pastes into whatever shell is at hand."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from raymc.masking import masked, masked_words

SCRIPT = "raymc"
HEEDED = ("RAYMC_STORAGE", "RAYMC_DATA", "RAYMC_CHECKPOINTS", "RAYMC_DATABASE", "MLFLOW_TRACKING_URI")
"""Variables of the environment that stand for options; another shell may not have them."""


def program(command: str) -> list[str]:
    """The words that start a command: `raymc tune` where the console script was, else `/path/python -m raymc.tune`.

    A script that is not the one on PATH is named by its path.
    """
    path = _script()
    if path is None:
        return [sys.executable or "python", "-m", f"raymc.{command}"]
    found = shutil.which(SCRIPT)
    return [SCRIPT if found and Path(found).samefile(path) else str(path.absolute()), command]


def is_script() -> bool:
    """Whether this process is the console script `raymc`."""
    return _script() is not None


def _script() -> Path | None:
    word = next((word for word in sys.orig_argv[1:] if word == "-m" or not word.startswith("-")), "-m")
    return Path(word) if Path(word).stem == SCRIPT and Path(word).is_file() else None


def command_line(command: str, words: Sequence[str]) -> str:
    """A command as it can be pasted, with `***` for passwords."""
    return shlex.join([*program(command), *masked_words(words)])


def from_here(line: str, heeded: Sequence[str] = HEEDED) -> str:
    """`line` for any shell: in this working folder, since its paths may be relative, with the variables `heeded`.

    One that holds a password is left out.
    """
    found = {name: os.environ[name] for name in heeded if os.environ.get(name)}
    words = [f"{name}={shlex.quote(value)}" for name, value in found.items() if masked(value) == value]
    return f"cd {shlex.quote(str(Path.cwd()))} && {' '.join([*words, line])}"


def same_command(command: str, *more: str) -> str:
    """This process's own command, with `more` words."""
    return from_here(command_line(command, [*sys.argv[1:], *more]))


def own_command() -> str:
    """The command line by which this process was started, for any shell; empty where it is none of raymc's."""
    words = sys.orig_argv
    path = _script()
    if path is not None:
        rest = words[next(i for i, word in enumerate(words) if i and Path(word) == path) + 1 :]
    elif "-m" in words[:-1] and (module := words[words.index("-m") + 1]).partition(".")[0] == SCRIPT:
        rest = [*module.split(".")[1:], *words[words.index("-m") + 2 :]]
    else:
        return ""
    return from_here(command_line(rest[0], rest[1:])) if rest else ""


def beside_python(name: str) -> list[str]:
    """The words that start another package's program of this environment: its name where that is on PATH."""
    found = shutil.which(name)
    here = found is not None and Path(found).parent == Path(sys.executable).parent
    return [name] if here else [sys.executable or "python", "-m", name]
