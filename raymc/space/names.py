"""The names of search spaces and where their files are; light, so that an unknown one is refused at once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from raymc.config import hint, nearest
from raymc.errors import InputError
from raymc.program import command_line
from raymc.space.yaml_text import read_yaml

DATA = (".csv", ".tsv", ".parquet", ".npz", ".npy")
"""How files of data end."""


def space_names() -> list[str]:
    """The names of the spaces that come with raymc."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def find_space(name_or_path: str | Path) -> Path:
    """The file of a name in `search_spaces/`, or the user's own. Raises InputError where there is none."""
    name = str(name_or_path)
    if name in space_names():
        return _folder() / f"{name}.yaml"
    path = Path(name).expanduser()
    if names_data(name):
        what = "a folder" if path.is_dir() else "data" if path.exists() else "not there, and would be data"
        ways = (
            f"{command_line('cluster', [name])} clusters data, and a space file names them by dataset: {{path: {name}}}"
        )
        raise InputError(f"{name} is {what}, not a search space: {ways}")
    if path.is_file():
        return path
    if names_file(name):
        raise InputError(f"{name}: no such file")
    known = space_names()
    near = nearest(name, known) or f" (known: {', '.join(known)})"
    raise InputError(f"unknown search space {name}{near}")


def checked_space(name_or_path: str | Path) -> None:
    """Raises InputError where `load_space` would for a name that is unknown or a file that is no YAML."""
    read_yaml(find_space(name_or_path))


def names_file(name: str) -> bool:
    """Whether a word can only be meant as a file."""
    path = Path(name)
    return path.suffix in (".yaml", ".yml") or len(path.parts) > 1


def names_data(name: str) -> bool:
    """Whether a word can only be meant as a file of data, or names a folder of some."""
    return Path(name).suffix.lower() in DATA or Path(name).expanduser().is_dir()


def word_of(path: Path) -> str:
    """What names a space on a command line, in any folder: its name if it comes with raymc, else its absolute path."""
    return path.stem if path.parent == _folder() else str(path.absolute())


def _folder() -> Path:
    package = Path(__file__).parents[1]
    installed = package / "search_spaces"
    return installed if installed.is_dir() else package.parent / "search_spaces"


def known_name(what: str, name: str, known: Iterable[str]) -> str:
    """The name itself. Raises InputError, with the nearest, where it is none of those that are `known`."""
    known = list(known)
    if name not in known:
        raise InputError(f"unknown {what} {name}{hint(name, known)}")
    return name
