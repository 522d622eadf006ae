"""What a reader finds in the user's own data, and which texts among it are numbers, labels or neither."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raymc.errors import InputError

Array = NDArray[Any]
ABSENT = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")  # in a column of numbers
NO_LABEL = frozenset(word.lower() for word in ABSENT) | {"<na>", "#n/a", "?"}  # among numbers, true and false
SHOWN = 5  # names in a message


class Found(NamedTuple):
    """What a reader found.

    Attributes:
        x: samples.
        y: labels, None where there are none.
        columns: the names of the columns, where they have some.
        left_out: "; " and words for what else is there and was not read, or nothing.
    """

    x: Array
    y: Array | None
    columns: Sequence[str] = ()
    left_out: str = ""


def some(names: Sequence[str]) -> str:
    """The names, or the first of them and how many more there are."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def is_number(text: str) -> bool:
    """Whether `text` is a number, infinity or NaN."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def text_labels(values: Sequence[str | bytes], what: str, path: object) -> Array:
    """Labels `[n]` without the spaces around them.

    Raises InputError where some are blank, or are a word for a missing value among numbers, true and false: that is no
    class.
    """
    plain = (value.decode(errors="backslashreplace") if isinstance(value, bytes) else value for value in values)
    texts = [text.strip() for text in plain]
    words = [text.lower() in NO_LABEL for text in texts]
    others = (text for text, word in zip(texts, words, strict=True) if not word)
    if not all(is_number(text) or text.lower() in ("true", "false") for text in others):
        words = [text == "" for text in texts]
    if any(words):
        first = words.index(True)
        shown = f" ({texts[first]})" if texts[first] else ""
        raise InputError(f"{path}: {sum(words)} rows have no {what}; the first is row {first}{shown}")
    return np.asarray(texts, str)
