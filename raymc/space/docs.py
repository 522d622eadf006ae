"""`python -m raymc.space.docs`: write what is generated from the code for readers and editors of space files.

That is the JSON Schema and the table of keys in the documentation; a test says when they are out of date.
"""

from __future__ import annotations

import json
from pathlib import Path

from raymc.config import known_keys
from raymc.datasets import NAMES, POLICIES
from raymc.methods import METHODS, Method
from raymc.nets import BACKBONES
from raymc.space.format import json_schema
from raymc.validation import Key

SCHEMA = Path(__file__).parents[1] / "search_space.schema.json"
DOCS = Path(__file__).parents[2] / "docs" / "search_spaces.md"
BEGIN, END = "<!-- keys: begin -->", "<!-- keys: end -->"


def schema_text() -> str:
    """The JSON Schema of a space file, with the names of methods, datasets and keys for completion."""
    schema = json_schema()
    properties = schema["properties"]
    properties["method"]["enum"] = sorted(METHODS)
    named, _ = properties["dataset"]["oneOf"]
    named["enum"] = list(NAMES)
    keys = sorted({key for method in METHODS.values() for key in known_keys(method.stage_settings)})
    ends = {"low": {"type": "integer"}, "high": {"type": "integer"}}
    among = {"type": "object", "properties": ends, "required": ["low", "high"], "additionalProperties": False}
    properties["fixed"]["properties"] = {"n_clusters": {"anyOf": [among, {"type": ["integer", "null", "string"]}]}}
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
    title = f"### {method.name.upper()}"
    bare: list[str] = []
    staged: dict[tuple[str, str], list[str]] = {}
    for name, key in known_keys(method.stage_settings).items():
        stage, _, short = name.partition(".")
        if stage in method.stage_settings:  # one row for what several stages have alike
            staged.setdefault((f"`<stage>.{short}`", _columns(key)), []).append(stage)
        else:
            bare.append(f"| `{name}` | {_columns(key)} |")
    rows = [f"{title}: bare keys", "", *_head("key"), *bare, ""]
    if not staged:
        return "\n".join(rows[:-1])
    rows += [f"{title}: keys of the stages {', '.join(method.stage_settings)}", "", *_head("key", "stages")]
    rows += [f"| {name} | {', '.join(stages)} | {columns} |" for (name, columns), stages in staged.items()]
    return "\n".join(rows)


def _head(*first: str) -> list[str]:
    columns = [*first, "default", "values", "meaning"]
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def _columns(key: Key) -> str:
    return f"{json.dumps(key.default)} | {_values(key)} | {key.field.description}"


def _values(key: Key) -> str:
    words = {"bool": "true, false", "str": "text", "int": "whole number", "float": "number"}[key.kind]
    named = {"backbone": tuple(BACKBONES), "augmentation": tuple(POLICIES)}.get(key.name, key.choices)
    if named:
        words = ", ".join(value if isinstance(value, str) else json.dumps(value) for value in named)
    for bound, word in (("ge", "from"), ("gt", "above"), ("le", "up to")):
        words += "".join(f" {word} {getattr(one, bound):g}" for one in key.field.metadata if hasattr(one, bound))
    return words + (", null" if key.optional else "")


def main() -> None:
    """Bring the schema and the documentation up to date."""
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    DOCS.write_text(with_tables(DOCS.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
