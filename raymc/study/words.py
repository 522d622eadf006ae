"""Values of a study as text, on the terminal and in reports alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def setting(value: object) -> str:
    """A hyperparameter's value."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def configured(params: Mapping[str, Any]) -> str:
    """`heads.eps_sq=0.2, …`; `the preset` of none."""
    return ", ".join(f"{key}={setting(value)}" for key, value in params.items()) or "the preset"


def duration(seconds: float | None) -> str:
    """`2 h 05 min`, `3 min 20 s`, `4.2 s`; a dash where absent."""
    if seconds is None:
        return "–"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} min"
