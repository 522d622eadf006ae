"""What .csv and .parquet of the user's own have in common: which columns are data, and what else they may not hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raymc.config import OwnData, hint
from raymc.datasets.own_cells import first_wrong
from raymc.datasets.own_found import ABSENT, EXACT, SHOWN, Array, is_number, some, text_labels
from raymc.datasets.own_lines import encoding_of
from raymc.errors import InputError

if TYPE_CHECKING:
    from pandas import Series

SEPARATORS = ";\t|"  # of other tables than comma-separated ones
LOOKED_AT = 20  # columns that are no numbers and in which the first wrong cell is looked for
Kinds = dict[str, set[str]]
"""By column numpy's letters for the types of its parts."""
Wide = dict[int, tuple[int, int]]
"""See `Found.wide`."""


def column_names(path: Path) -> list[str]:
    """The columns of a .csv or .parquet; none where it cannot be read: who reads it says why."""
    try:
        if path.suffix.lower() == ".parquet":
            import pyarrow.parquet as pq

            return [str(name) for name in pq.read_schema(path).names]
        import pandas as pd  # a second that no other kind needs

        settings: dict[str, Any] = {"index_col": False, "skipinitialspace": True, "encoding": encoding_of(path).name}
        return [str(name).strip() for name in pd.read_csv(path, nrows=0, **settings)]
    except Exception:  # each library has many kinds of errors for a torn file
        return []


def check_header(names: Sequence[str], own: OwnData) -> None:
    """Raises InputError where the first line holds no names or only one of a few, or a column has none or another's."""
    if len(names) == 1 and any(sign in names[0] for sign in SEPARATORS):
        raise InputError(f"{own.path}: columns are separated by commas, and the first line has none: {names[0]!r}")
    # A missing value is no name either: the line is a sample, and would be lost.
    if all(is_number(name) or name in ABSENT for name in names) and names != [str(i) for i in range(len(names))]:
        raise InputError(f"{own.path}: the first line holds numbers; expected: the names of the columns")
    unnamed = [i for i, name in enumerate(names) if not name or name.startswith("Unnamed: ")]
    if len(unnamed) > 1:
        cause = like_sample(names, own) or " (is it a title, or do lines end with commas?)"
        raise InputError(
            f"{own.path}: {len(unnamed)} of {len(names)} columns have no name; expected: the names of the columns in "
            f"the first line{cause}"
        )
    if unnamed:
        cause = like_sample(names, own) or (
            "; numbers of rows would be taken for data: leave them out, or name the column"
        )
        raise InputError(f"{own.path}: column {unnamed[0]} (counted from 0) has no name{cause}")
    check_once(names, own)


def check_once(names: Sequence[str], own: OwnData) -> None:
    """Raises InputError where a name stands twice: the second column of the labels would be data."""
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise InputError(
            f"{own.path}: several columns are called {some(twice)}; expected: a name of its own for each"
            f"{like_sample(names, own)}"
        )


def like_sample(names: Sequence[str], own: OwnData) -> str:
    """ "; " and a doubt, for a refusal, where half of a .csv's names are numbers: the first line may be a sample.

    Numbers in equal steps are no sample: they count columns, or are wavelengths.
    """
    numbers = [float(name) for name in names if is_number(name)]
    steps = np.diff(numbers)
    if 2 * len(numbers) < len(names) or not numbers or not own.path.lower().endswith(".csv"):
        return ""
    if len(steps) > 1 and steps[0] and np.allclose(steps, steps[0]):
        return ""
    return f"; is the first line ({_line(names)}) a sample? Then write the names of the columns above it"


def check_no_sample(names: Sequence[str], own: OwnData, name: str, values: Iterable[object]) -> None:
    """Raises InputError where the column `name`, of texts, has its own name among its `values`.

    Among names that are numbers that is a sample that stands in the first line, and would be lost.
    """
    doubt = like_sample(names, own)
    if doubt and any(str(value).strip() == name for value in values):
        raise InputError(
            f"{own.path}: the first line ({_line(names)}) is a sample: {name} is among the values of its column too; "
            "expected: the names of the columns; write them above it"
        )


def _line(names: Sequence[str]) -> str:
    return ",".join(names[:SHOWN]) + (",…" if len(names) > SHOWN else "")


def columns_of(names: Sequence[str], own: OwnData) -> list[str]:
    """The names of the columns that are data. Raises InputError where that of the labels or names is not there."""
    for asked in (own.label, own.id, own.text):
        if asked is not None and asked not in names:
            doubt = like_sample(names, own)
            raise InputError(f"{own.path} has no column {asked}{doubt or hint(asked, names)}")
    return [] if own.text else [name for name in names if name not in (own.label, own.id, *own.unread)]


def kind_of(dtype: object) -> str:
    """numpy's letter for a type, `O` where it has none."""
    return str(getattr(dtype, "kind", "O"))


def are_numbers(kinds: set[str]) -> bool:
    """Whether the parts of a column are numbers, or all of them true and false."""
    return kinds <= set("iuf") or kinds == {"b"}


def add_wide(wide: Wide, column: int, values: Any) -> None:
    """Add the least and the largest of `values`, a part of that column, where they are whole numbers beyond `EXACT`."""
    if kind_of(values.dtype) in "iu" and len(values):
        low, high = int(values.min()), int(values.max())
        if max(-low, high) > EXACT:
            before = wide.get(column, (low, high))
            wide[column] = min(low, before[0]), max(high, before[1])


def check_columns(
    x: Array, kinds: Kinds, own: OwnData, values: Callable[[str], Iterable[object]], header: Sequence[str] = ()
) -> None:
    """Raises InputError for columns that hold no numbers, and where there are none at all.

    `values` gives the cells of a column as they stand in the table, `header` is a .csv's first line.
    """
    wrong = [name for name, found in kinds.items() if not are_numbers(found)]
    if len(x) and wrong:
        cells = {name: first_wrong(name, values(name)) for name in wrong[:LOOKED_AT]}
        texts = [name for name in wrong if cells.get(name) is None]
        cell = next((str(cell) for cell in cells.values() if cell is not None), None)
        for name in texts[:LOOKED_AT]:
            check_no_sample(header, own, name, values(name))
        message = "; besides, ".join(filter(None, (cell, _of_text(texts, own))))
        raise InputError(f"{own.path}: {message}{like_sample(header, own)}")
    if not x.size:
        raise InputError(f"{own.path} holds {len(x)} rows of {x.shape[1]} columns; expected: numbers")


def _of_text(names: Sequence[str], own: OwnData) -> str:
    """That these columns hold texts, and how a column of texts is used."""
    if not names:
        return ""
    roles = {"label: (its classes), ": own.label, "id: (the samples' names), ": own.id}
    ways = "".join(way for way, given in roles.items() if given is None)
    text = "text: (embedded by encoder: sentence_transformers:ID)"
    return f"no numbers in {some(names)}; a column of text is named by {ways}{text}, or left out"


def texts_of(values: Sequence[str], own: OwnData) -> Array:
    """The texts of a column `[n]`, as objects. Raises InputError where some are blank: they mean nothing."""
    blank = [row for row, value in enumerate(values) if not value.strip()]
    if blank:
        raise InputError(f"{own.path}: {len(blank)} rows have no {own.text}; the first is row {blank[0]}")
    return np.asarray(values, object)


def labels_in(column: Series, own: OwnData) -> Array:
    """Whole numbers, or texts without the spaces around them; raises InputError where some are missing."""
    absent = np.flatnonzero(column.isna().to_numpy())
    if len(absent):
        raise InputError(f"{own.path}: {len(absent)} rows have no {own.label}; the first is row {absent[0]}")
    if getattr(column.dtype, "kind", "O") in "biuf":
        plain = {"b": np.bool_, "i": np.int64, "u": np.uint64, "f": np.float64}  # pandas and pyarrow have own types
        values: Array = column.to_numpy(dtype=plain[column.dtype.kind])
        return values
    return text_labels([str(value) for value in column], str(own.label), own.path)
