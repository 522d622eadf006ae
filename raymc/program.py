"""The program as it was started: for lines that a user pastes into whatever shell is at hand."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from raymc.masking import masked_words

SCRIPT = "raymc"


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


def same_command(command: str, *more: str) -> str:
    """This process's own command, with `more` words: from its working folder, since its paths may be relative."""
    return f"cd {shlex.quote(str(Path.cwd()))} && {command_line(command, [*sys.argv[1:], *more])}"
