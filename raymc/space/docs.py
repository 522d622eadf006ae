"""`python -m raymc.space.docs`: write what is generated from the code for readers and editors of space files.

That is the JSON Schema and the table of keys in the documentation; a test says when they are out of date.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from raymc.config import BARE, STAGE, known_keys
from raymc.datasets import NAMES, POLICIES
from raymc.methods import METHODS, Method
from raymc.nets import BACKBONES
from raymc.space.format import json_schema

SCHEMA = Path(__file__).parent / "search_space.schema.json"
DOCS = Path(__file__).parent.parent / "docs" / "search_spaces.md"
BEGIN, END = "<!-- keys: begin -->", "<!-- keys: end -->"


def schema_text() -> str:
    """The JSON Schema of a space file, with the names of methods, datasets and keys for completion."""
    schema = json_schema()
    properties = schema["properties"]
    properties["method"]["enum"] = sorted(METHODS)
    named, _ = properties["dataset"]["oneOf"]
    named["enum"] = list(NAMES)
    keys = sorted({key for method in METHODS.values() for key in known_keys(method.stage_keys)})
    for section in (properties["fixed"], properties["space"], properties["first"]["anyOf"][0]["items"]):
        section["propertyNames"] = {"enum": keys}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def key_tables() -> str:
    """Markdown: for each method the bare keys, and each stage's, with default, allowed values and meaning."""
    return "\n\n".join(_tables(method) for method in METHODS.values())


def with_tables(text: str) -> str:
    """`text` with the part between the markers replaced by the tables of keys."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{key_tables()}\n\n{END}{after}"


def _tables(method: Method) -> str:
    rows = [f"### {method.name.upper()}: bare keys", "", *_head("key")]
    rows += [_row(f"`{name}`", field) for name, field in BARE.items()]
    rows += ["", f"### {method.name.upper()}: keys of the stages {', '.join(method.stage_keys)}", ""]
    rows += _head("key", "stages")
    for name, field in STAGE.items():
        stages = [stage for stage, keys in method.stage_keys.items() if name in keys]
        if stages:
            rows.append(_row(f"`<stage>.{name}` | {', '.join(stages)}", field))
    return "\n".join(rows)


def _head(*first: str) -> list[str]:
    columns = [*first, "default", "values", "meaning"]
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def _row(first: str, field: dataclasses.Field[Any]) -> str:
    default = json.dumps(field.default)
    return f"| {first} | {default} | {_values(field)} | {field.metadata['help']} |"


def _values(field: dataclasses.Field[Any]) -> str:
    choices, low, above, high = (field.metadata[name] for name in ("choices", "low", "above", "high"))
    kind, _, optional = str(field.type).partition(" ")
    words = {"bool": "true, false", "str": "text", "int": "whole number", "float": "number"}[kind]
    named = {"backbone": tuple(BACKBONES), "augmentation": tuple(POLICIES)}.get(field.name, choices)
    if named:
        words = ", ".join(named)
    if low is not None:
        words += f" from {low:g}"
    if above is not None:
        words += f" above {above:g}"
    if high is not None:
        words += f" up to {high:g}"
    return words + (", null" if optional else "")


def main() -> None:
    """Bring the schema and the documentation up to date."""
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    DOCS.write_text(with_tables(DOCS.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
