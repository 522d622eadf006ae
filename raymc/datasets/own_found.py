"""What a reader finds in the user's own data, and which texts among it are numbers, labels or neither."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raymc.errors import InputError

Array = NDArray[Any]
ABSENT = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")  # in a column of numbers
NO_LABEL = frozenset(word.lower() for word in ABSENT) | {"<na>", "#n/a", "?"}  # among numbers, true and false
TRUTHS = ("true", "false")
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
ZEROS = re.compile(r"[+-]?0\d", re.ASCII)  # in front of a number, as codes have them
SHOWN = 5  # names in a message
EXACT = 2**53  # up to which a float64 tells whole numbers apart


class Found(NamedTuple):
    """What a reader found, before anything is scaled or numbered.

    Attributes:
        x: rows `[n, d]` of numbers, or images uint8 `[n, c, h, w]`.
        y: labels `[n]`, whole numbers or texts; None where there are none.
        columns: the names of the columns, where they have some.
        left_out: "; " and words for what was done to them, or is there and was not read, or nothing.
        samples: what the rows are called, None where they have no names.
        side: pixels to which the images of a folder were resized; None: they are as they were.
        wide: by number of the column the least and the largest value, of whole numbers beyond `EXACT` that became
            floats.
    """

    x: Array
    y: Array | None
    columns: Sequence[str] = ()
    left_out: str = ""
    samples: Sequence[str] | None = None
    side: int | None = None
    wide: Mapping[int, tuple[int, int]] = {}


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
    """Labels `[n]` without the spaces around them: whole numbers, where all are numbers, else texts.

    Numbers with zeros in front (`01`) and of more than 64 bits stay texts. Raises InputError where some are blank, or
    are a word for a missing value among numbers, true and false: that is no class; and for classes written in two ways.
    """
    texts = [text.strip() for text in as_texts(values)]
    words = [text.lower() in NO_LABEL for text in texts]
    others = (text for text, word in zip(texts, words, strict=True) if not word)
    if not all(is_number(text) or text.lower() in TRUTHS for text in others):
        words = [text == "" for text in texts]
    if any(words):
        first = words.index(True)
        shown = f" ({texts[first]})" if texts[first] else ""
        raise InputError(f"{path}: {sum(words)} rows have no {what}; the first is row {first}{shown}")
    if all(text.lower() in TRUTHS for text in set(texts)):
        return np.asarray([text.lower() for text in texts] if len(set(texts)) > 2 else texts, str)
    numbers = _whole(texts, what, path)
    return np.asarray(texts, str) if numbers is None else numbers


def _whole(texts: Sequence[str], what: str, path: object) -> Array | None:
    """The numbers that all of the texts are, float64 where one is not whole; None where they are to stay texts."""
    kinds = dict.fromkeys(texts)
    if not all(NUMBER.fullmatch(text) for text in kinds) or any(ZEROS.match(text) for text in kinds):
        return None
    by_number: dict[int | float, str] = {}
    numbers: dict[str, int | float] = {}
    for text in kinds:
        number = int(text) if WHOLE.fullmatch(text) else float(text)
        number = int(number) if abs(number) < EXACT and number == int(number) else number
        other = by_number.setdefault(number, text)
        if other != text:
            rows = f"{other!r} (row {texts.index(other)}) and {text!r} (row {texts.index(text)})"
            raise InputError(f"{path}: the {what} {rows} are one number; expected: each class written in one way")
        numbers[text] = number
    if all(isinstance(number, int) for number in by_number):
        fits = all(-(2**63) <= number < 2**63 for number in by_number)
        return np.asarray([numbers[text] for text in texts], np.int64) if fits else None
    return np.asarray([numbers[text] for text in texts], np.float64)
