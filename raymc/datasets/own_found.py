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
    """What a reader found, before anything is scaled or numbered.

    Attributes:
        x: rows `[n, d]` of numbers, or images uint8 `[n, c, h, w]`.
        y: labels `[n]`, whole numbers or texts; None where there are none.
        columns: the names of the columns, where they have some.
        left_out: "; " and words for what was done to them, or is there and was not read, or nothing.
        samples: what the rows are called, None where they have no names.
        written: the labels as they stand in the file, where `y` are numbers made of texts.
        side: pixels to which the images of a folder were resized; None: they are as they were.
    """

    x: Array
    y: Array | None
    columns: Sequence[str] = ()
    left_out: str = ""
    samples: Sequence[str] | None = None
    written: Sequence[str] | None = None
    side: int | None = None


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


def as_texts(values: Sequence[str | bytes]) -> list[str]:
    """Texts as they are, bytes as UTF-8."""
    return [value.decode(errors="backslashreplace") if isinstance(value, bytes) else value for value in values]


def check_names(names: Sequence[str], what: str, path: object) -> None:
    """Raises InputError where some of the samples' names `names` are blank, or repeat."""
    blank = [row for row, name in enumerate(names) if not name.strip()]
    if blank:
        raise InputError(f"{path}: {len(blank)} rows have no {what}; the first is row {blank[0]}")
    first: dict[str, int] = {}
    twice = [row for row, name in enumerate(names) if first.setdefault(name, row) != row]
    if twice:
        name = names[twice[0]]
        rows = f"row {twice[0]} is {name!r}, as row {first[name]} is"
        raise InputError(f"{path}: {len(twice)} rows repeat a name in {what}: {rows}; expected: each name once")


def text_labels(values: Sequence[str | bytes], what: str, path: object) -> Array:
    """Labels `[n]` without the spaces around them.

    Raises InputError where some are blank, or are a word for a missing value among numbers, true and false: that is no
    class.
    """
    texts = [text.strip() for text in as_texts(values)]
    words = [text.lower() in NO_LABEL for text in texts]
    others = (text for text, word in zip(texts, words, strict=True) if not word)
    if not all(is_number(text) or text.lower() in ("true", "false") for text in others):
        words = [text == "" for text in texts]
    if any(words):
        first = words.index(True)
        shown = f" ({texts[first]})" if texts[first] else ""
        raise InputError(f"{path}: {sum(words)} rows have no {what}; the first is row {first}{shown}")
    return np.asarray(texts, str)
