"""The console script: `raymc COMMAND …` is `python -m raymc.COMMAND …`."""

from __future__ import annotations

import importlib
import sys

from raymc.cli import execute
from raymc.config import nearest

COMMANDS = ("cluster", "tune", "train", "predict", "stability", "report", "check", "data", "embed", "checkpoint")


def main() -> int:
    """Run the command that the first word names."""
    words = sys.argv[1:]
    if not words or words[0] not in COMMANDS:
        usage = f"usage: raymc {{{','.join(COMMANDS)}}} … (raymc COMMAND --help)"
        if words and words[0] in ("-h", "--help"):
            print(usage)
            return 0
        wrong = f"raymc: unknown command {words[0]}{nearest(words[0], COMMANDS)}\n" if words else ""
        print(f"{wrong}{usage}", file=sys.stderr)
        return 2
    command = importlib.import_module(f"raymc.commands.{words[0]}")
    sys.argv = words  # as `python -m raymc.COMMAND` has it; commands that print how to go on read it
    return execute(command.parser(), command.run, words[1:])


if __name__ == "__main__":
    sys.exit(main())
