"""The names of search spaces and where their files are; light, so that an unknown one is refused at once."""

from __future__ import annotations

from pathlib import Path

from raymc.config import nearest
from raymc.errors import InputError
from raymc.space.yaml_text import read_yaml


def space_names() -> list[str]:
    """The names of the spaces that come with raymc."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def find_space(name_or_path: str | Path) -> Path:
    """The file of a name in `search_spaces/`, or the user's own. Raises InputError where there is none."""
    name = str(name_or_path)
    if name in space_names():
        return _folder() / f"{name}.yaml"
    path = Path(name).expanduser()
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


def _folder() -> Path:
    package = Path(__file__).parents[1]
    installed = package / "search_spaces"
    return installed if installed.is_dir() else package.parent / "search_spaces"
