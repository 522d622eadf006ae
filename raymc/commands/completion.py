"""`raymc completion bash|zsh|tcsh`: the script that makes a shell complete raymc's words."""

from __future__ import annotations

import argparse

from raymc.cli import Parser
from raymc.errors import InputError
from raymc.space.names import space_names

SHELLS = ("bash", "zsh", "tcsh")

NAMED = ("space", "spaces", "target", "study", "name", "names", "vs")
"""Arguments that are names of search spaces or studies, or files."""

STUDIES = '$(command ls "${RAYMC_STORAGE:-raymc-storage}/studies" 2>/dev/null)'
BY_NAME = {
    "bash": """_raymc_names() {
  compgen -W "{spaces} {studies}" -- $1
  _shtab_compgen_files $1
}""",
    "zsh": """_raymc_names() {
  compadd -- {spaces} ${(f)"{studies}"}
  _files
}""",
}
"""What completes them: the spaces that come with raymc, the studies of the folder's storage, and files."""


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
    names_complete(whole)
    spaces = " ".join(space_names())
    before = BY_NAME.get(args.shell, "").replace("{spaces}", spaces).replace("{studies}", STUDIES)
    print(shtab.complete(whole, args.shell, preamble=before))


def names_complete(parser: argparse.ArgumentParser) -> None:
    """Complete names, files and folders where a command takes them."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for own in dict.fromkeys(action.choices.values()):
                names_complete(own)
        elif not action.choices and action.nargs != 0:
            folder = shtab.DIRECTORY if action.dest in ("storage", "data") else shtab.FILE
            by_name = {"bash": "_raymc_names", "zsh": "_raymc_names", "tcsh": "f"}
            action.complete = by_name if action.dest in NAMED else folder  # type: ignore[attr-defined]
