"""Values of a study as text, on the terminal and in reports alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raymc.training.time_left import duration as duration
from raymc.values import setting as setting


def configured(params: Mapping[str, Any]) -> str:
    """`heads.eps_sq=0.2, …`; `the preset` of none."""
    return ", ".join(f"{key}={setting(value)}" for key, value in params.items()) or "the preset"


def about_the_data(facts: Mapping[str, Any]) -> str:
    """`about the data: …` in a line, by the `remarks` of a result or of `data_facts`; empty where there are none."""
    return f"about the data: {'; '.join(facts['remarks'])}" if facts.get("remarks") else ""
