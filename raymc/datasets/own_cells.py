"""Which cell of a table makes a column no numbers, and what was probably meant by it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from raymc.datasets.own_found import ABSENT, NUMBER, WHOLE

INFINITE = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)
MISSING = frozenset("? ?? - -- --- – — . .. * n.d. n.a. n/a na nd missing unknown none nil #n/a <na> n/d".split()) | {
    "not available",
    "n. d.",
    "n. a.",
    "no data",
    "-nan",
    "-nan(ind)",
}
SHOWN = 40  # characters of a cell in a message
LOOKED_AT = 1000  # cells by which a column without numbers is known to be one of texts

_GROUP = "[,'’\u00a0\u2009\u202f ]"  # what stands between thousands in one country or another
_SIGN = r"[+\-\u2212]?"
FORMS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), words)
    for pattern, words in (
        (rf"{_SIGN}\d{{1,3}}(?:{_GROUP}\d{{2,3}})*{_GROUP}\d{{3}}\.\d*", "thousands separators: write 1234.50"),
        (rf"{_SIGN}\d{{1,3}}(?:{_GROUP}\d{{2,3}})+{_GROUP}\d{{3}}", "thousands separators: write 1234567"),
        (rf"{_SIGN}\d{{1,3}}['’\u00a0\u2009\u202f ]\d{{3}}", "a thousands separator: write 1234"),
        (rf"{_SIGN}\d{{1,3}},\d{{3}}", "a thousands separator or a decimal comma: write 1234, or 1.234"),
        (rf"{_SIGN}\d{{1,3}}(?:\.\d{{3}})+,\d+", "thousands separators and a decimal comma: write 1234.50"),
        (rf"{_SIGN}\d{{1,3}}(?:\.\d{{3}}){{2,}}", "thousands separators: write 1234567"),
        (rf"{_SIGN}\d*,\d+(?:e[+-]?\d+)?", "a decimal comma: write 1.5"),
        (rf"{_SIGN}[\d.,]+\s*[%‰]", "a percent sign: write the number without it"),
        (r"[+-]?\s*(?:[$€£¥₹]|usd|eur)\s*[+-]?[\d.,]+|[+-]?[\d.,]+\s*(?:[$€£¥₹]|usd|eur)", "a sign of a currency"),
        (r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?:[T ].*)?", "a date: write a number, such as days since a day"),
        (r"\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}(?:\s.*)?", "a date: write a number, such as days since a day"),
        (r"\d{1,2}[- ][a-z]{3,9}[- ,]*\d{2,4}", "a date: write a number, such as days since a day"),
        (r"\d{1,3}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?:\s*[ap]m)?", "a time: write a number, such as seconds"),
        (r"#(?:div/0|ref|value|name|num|null|spill|calc)[!?]?", "an error of a spreadsheet"),
        (r"[<>≤≥~≈]=?\s*[+-]?[\d.,]+", "a bound: write a number"),
        (r"\u2212\s*[\d.,]+(?:e[+\-\u2212]?\d+)?", "a minus sign that is no hyphen"),
        (r"0x[\da-f]+", "a hexadecimal number"),
        (rf"{_SIGN}\d{{1,3}}(?:_\d{{3}})+", "underscores between digits: write 1234"),
        (rf"{_SIGN}[\d.]+d[+-]?\d+", "an exponent with a d: write 1.5e3"),
        (r"'[^']*'", "single quotation marks, which belong to the value: leave them out, or write double ones"),
        (r"-?\d+ days?.*", "a time: write a number, such as seconds"),
        (r"[\[(].*[\])]", "a list: give each number a column, or write a .parquet with a column of lists"),
        (rf"{_SIGN}[\d.]+\s*[a-zµ°][a-zµ°/²³^\d]{{0,5}}", "a unit behind the number"),
        (rf"{_SIGN}[\d.]+(?:[;\s|]+{_SIGN}[\d.]+)+", "several numbers: columns are separated by commas"),
        (rf"{_SIGN}[\d.,]+", "digits of another script, or more points than one"),
        (r"(?:#|//|%).*", "a comment? Lines of comments are not skipped"),
    )
)


class Cell(NamedTuple):
    """The first cell of a column that is no number.

    Attributes:
        row: counted from 0.
        wrong: cells of the column that are no numbers.
    """

    column: str
    row: int
    text: str
    wrong: int

    @property
    def form(self) -> str:
        """What was probably meant, or nothing."""
        return form_of(self.text, self.column)

    def __str__(self) -> str:
        shown = repr(self.text if len(self.text) <= SHOWN else f"{self.text[:SHOWN]}…")
        meant = f" ({self.form})" if self.form else ""
        more = f"; {self.wrong} cells of the column are none" if self.wrong > 1 else ""
        return f"row {self.row} (counted from 0), column {self.column} holds {shown}{meant}; expected: a number{more}"


def is_read(text: str) -> bool:
    """Whether `text` is a number that tables take: of no more than 64 bits where it is whole."""
    if WHOLE.fullmatch(text):
        return -(2**63) <= int(text) < 2**63
    return bool(NUMBER.fullmatch(text) or INFINITE.fullmatch(text))


def form_of(text: str, column: str = "") -> str:
    """What is special about a text that is no number, or nothing."""
    if text == column:
        return "the names of the columns once more"
    if text.lower() in ("true", "false"):
        return "true and false among numbers: write 1 and 0"
    if text.lower() in MISSING:
        return "a missing value? Fill it in, or leave the row out"
    if NUMBER.fullmatch(text):
        words = ("a whole number beyond 2^63: an id?", "a number as a text: write the column as floats")
        return words[is_read(text)]
    return next((words for pattern, words in FORMS if pattern.fullmatch(text)), "")


def first_wrong(column: str, values: Iterable[object]) -> Cell | None:
    """The first cell that is no number, of values as they stand in the table; missing ones are left to others.

    None where the column is one of texts: most cells are none, and nothing special is known of the first. Where all
    look like numbers, these are stored as texts, and the first of them is it.
    """
    counts, first, plain = [0, 0], [(0, ""), (0, "")], 0
    for row, value in enumerate(values):
        text = str(value).strip()
        if value is not None and text not in ABSENT:
            good = is_read(text)
            if not counts[good]:
                first[good] = row, text
            counts[good] += 1
            plain += not good and counts[False] <= LOOKED_AT and _is_text(text)
    if not any(counts):
        return None
    wrong, numbers = counts
    if not wrong:
        return Cell(column, *first[True], numbers)
    cell = Cell(column, *first[False], wrong)
    return cell if numbers >= wrong or 2 * plain < min(wrong, LOOKED_AT) else None


def _is_text(text: str) -> bool:
    return text.lower() in MISSING or not form_of(text)
