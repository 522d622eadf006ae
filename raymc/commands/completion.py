"""`raymc completion bash|zsh|tcsh`: the script that makes a shell complete raymc's words."""

from __future__ import annotations

import argparse

from raymc.cli import Parser
from raymc.errors import InputError

SHELLS = ("bash", "zsh", "tcsh")


def parser() -> Parser:
    """The options of `completion`."""
    text = "Print the script that makes a shell complete commands, options and files: bash, zsh or tcsh."
    parser = Parser(prog="raymc completion", description=text)
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(json=False)
    return parser


def run(args: argparse.Namespace, whole: argparse.ArgumentParser) -> None:
    """Print the script for the commands of `whole`. Raises InputError without shtab."""
    try:
        import shtab
    except ImportError as error:
        raise InputError("completion needs shtab: pip install 'raymc[completion]'") from error
    files_complete(whole)
    print(shtab.complete(whole, args.shell))


def files_complete(parser: argparse.ArgumentParser) -> None:
    """Complete files and folders where a command takes a path or a name of its own."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for own in dict.fromkeys(action.choices.values()):
                files_complete(own)
        elif not action.choices and action.nargs != 0:
            folder = action.dest in ("storage", "data")
            action.complete = shtab.DIRECTORY if folder else shtab.FILE  # type: ignore[attr-defined]
