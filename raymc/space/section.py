"""What all sections of a search-space file have in common: known keys, strict types, one-line complaints."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, model_validator

from raymc.config import hint
from raymc.validation import wrong


class Section(BaseModel):
    """A mapping of a space file whose keys are all known."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, content: object) -> object:
        if isinstance(content, dict):
            for key in content:
                if key not in cls.model_fields:
                    raise wrong(f"unknown key {key}{hint(str(key), cls.model_fields)}")
        return content
