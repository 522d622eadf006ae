"""The console script: `raymc COMMAND …` is `python -m raymc.COMMAND …`."""

from __future__ import annotations

import argparse
import importlib
import sys

from raymc import __version__
from raymc.cli import execute
from raymc.config import nearest

COMMANDS = {
    "cluster": "cluster photos, rows or embeddings: no space file and no labels are needed",
    "tune": "search a space's hyperparameters and confirm the best on seeds it never saw",
    "train": "train one configuration: a space's preset, or a study's winner",
    "predict": "label new samples by a trained model",
    "stability": "run one configuration, or several side by side, on many seeds",
    "studies": "list, show, compare, export and delete studies, and clean their storage",
    "report": "write the report of a study, finished or not, or of a paper's table",
    "check": "validate search spaces and run one step of each stage",
    "data": "list the known datasets, verify one, or download one",
    "embed": "write the features that a frozen encoder gives for images or texts",
    "checkpoint": "write a stage's result as float16 weights in small files",
    "completion": "print what makes a shell complete these words: bash, zsh or tcsh",
}
"""Each with what it does. `completion` is of the console script alone."""


def main() -> int:
    """Run the command that the first word names."""
    words = sys.argv[1:]
    if words and words[0] == "--version":
        print(f"raymc {__version__}")
        return 0
    if not words or words[0] not in COMMANDS:
        if words and words[0] in ("-h", "--help"):
            print(help_text())
            return 0
        wrong = f"raymc: unknown command {words[0]}{nearest(words[0], COMMANDS)}\n" if words else ""
        print(f"{wrong}{usage()}", file=sys.stderr)
        return 2
    sys.argv = words  # as `python -m raymc.COMMAND` has it; commands that print how to go on read it
    command = importlib.import_module(f"raymc.commands.{words[0]}")
    if words[0] == "completion":
        return execute(command.parser(), lambda args: command.run(args, whole_parser()), words[1:])
    return execute(command.parser(), command.run, words[1:])


def usage() -> str:
    return f"usage: raymc {{{','.join(COMMANDS)}}} … (each has --help)"


def help_text() -> str:
    """A line for each command."""
    lines = [f"  {name:11} {words}" for name, words in COMMANDS.items()]
    return "\n".join([usage(), "", *lines, "", "  --version   print the version", "  --help      print this"])


def whole_parser() -> argparse.ArgumentParser:
    """One parser of all commands, which completion scripts are made of."""
    whole = argparse.ArgumentParser(prog="raymc")
    whole.add_argument("--version", action="version", version=__version__)
    commands = whole.add_subparsers()
    for name, words in COMMANDS.items():
        own = importlib.import_module(f"raymc.commands.{name}").parser()
        commands.add_parser(name, parents=[own], add_help=False, help=words, description=words)
    return whole


if __name__ == "__main__":
    sys.exit(main())
