"""Values of keys as text: no two that differ read alike, but for the last digits of a number that was drawn."""

from __future__ import annotations

import json

from raymc.validation import Value

EXACT = 12
"""Significant digits up to which a number is shown as it is: somebody wrote it. One that was drawn has 17."""


def parsed(text: str) -> Value:
    """What stands behind `KEY=` on a command line: `1e-3` is a number, `null` no text, `"null"` one."""
    if text in ("true", "false", "null") or (len(text) > 1 and text[0] == text[-1] == '"'):
        try:
            value: Value = json.loads(text)
        except ValueError:
            return text
        return value
    try:
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        return text


def written(value: object) -> str:
    """A value with every digit, so that `parsed` gives it back: `none` is the text, `null` is none."""
    if isinstance(value, str) and parsed(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def setting(value: object) -> str:
    """A value for a reader: of a number with more than `EXACT` digits the first four."""
    if not isinstance(value, float):
        return written(value)
    exact = f"{value:.{EXACT}g}"
    return exact if float(exact) == value else f"{value:.4g}"
