"""What all sections of a search-space file have in common: known keys, strict types, one-line complaints."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from raymc.config import nearest

Number = Annotated[float, Field(allow_inf_nan=False)]


def wrong(text: str) -> PydanticCustomError:
    """The error that says `text` about a section."""
    return PydanticCustomError("wrong", "{text}", {"text": text})


class Section(BaseModel):
    """A mapping of a space file whose keys are all known."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, content: object) -> object:
        if isinstance(content, dict):
            for key in content:
                if key not in cls.model_fields:
                    raise wrong(f"unknown key {key}{nearest(str(key), cls.model_fields)}")
        return content
