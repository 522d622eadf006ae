"""What .csv and .parquet of the user's own have in common: which columns are data, and what else they may not hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raymc.config import OwnData, hint
from raymc.datasets.own_cells import first_wrong
from raymc.datasets.own_found import ABSENT, EXACT, Array, is_number, some, text_labels
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
        raise InputError(
            f"{own.path}: {len(unnamed)} of {len(names)} columns have no name; expected: the names of the columns in "
            "the first line (is it a title, or do lines end with commas?)"
        )
    if unnamed:
        raise InputError(
            f"{own.path}: column {unnamed[0]} (counted from 0) has no name; numbers of rows would be taken for data: "
            "leave them out, or name the column"
        )
    check_once(names, own)


def check_once(names: Sequence[str], own: OwnData) -> None:
    """Raises InputError where a name stands twice: the second column of the labels would be data."""
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise InputError(f"{own.path}: several columns are called {some(twice)}; expected: a name of its own for each")


def columns_of(names: Sequence[str], own: OwnData) -> list[str]:
    """The names of the columns that are data. Raises InputError where that of the labels or names is not there."""
    for asked in (own.label, own.id, own.text):
        if asked is not None and asked not in names:
            raise InputError(f"{own.path} has no column {asked}{hint(asked, names)}")
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


def check_columns(x: Array, kinds: Kinds, own: OwnData, values: Callable[[str], Iterable[object]]) -> None:
    """Raises InputError for columns that hold no numbers, and where there are none at all.

    `values` gives the cells of a column as they stand in the table.
    """
    wrong = [name for name, found in kinds.items() if not are_numbers(found)]
    if len(x) and wrong:
        cells = {name: first_wrong(name, values(name)) for name in wrong[:LOOKED_AT]}
        texts = [name for name in wrong if cells.get(name) is None]
        cell = next((str(cell) for cell in cells.values() if cell is not None), None)
        raise InputError(f"{own.path}: {'; and '.join(filter(None, (cell, _of_text(texts, own))))}")
    if not x.size:
        raise InputError(f"{own.path} holds {len(x)} rows of {x.shape[1]} columns; expected: numbers")


def _of_text(names: Sequence[str], own: OwnData) -> str:
    """That these columns hold texts, and how a column of texts is used."""
    if not names:
        return ""
    roles = {"label": (own.label, "of the labels"), "id": (own.id, "of the samples' names")}
    unsaid = [f"the column {what} is named by {key}:" for key, (given, what) in roles.items() if given is None]
    hint = "".join(f"; {words} in the space file" for words in unsaid)
    text = "; a column of text is named by text:, and embedded by encoder: sentence_transformers:ID"
    return f"no numbers in {some(names)}{hint}{text}"


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
