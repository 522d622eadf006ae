"""YAML as space files are read; light, so that a torn file is refused at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from raymc.errors import InputError


def read_yaml(path: Path) -> object:
    """The content of a file. Raises InputError, in one line that begins with the file."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def parse_yaml(text: str) -> object:
    """The content of a YAML text. Raises InputError where it is no YAML or a key stands twice."""
    try:
        return yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise InputError(f"{line}{error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or tagged number that is none
        raise InputError(f"not YAML: {error}") from error


class Loader(yaml.SafeLoader):
    """YAML that refuses what PyYAML passes over: a key that stands twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict):
                raise ConstructorError(None, None, "a key is not a single word", key_node.start_mark)
            if key in seen:
                raise ConstructorError(None, None, f"{key} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)
