"""The user's own tables, .csv and .parquet: a column is a number of every sample, one of them may be the labels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from raymc.config import OwnData, nearest
from raymc.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame, Series

Array = NDArray[Any]
ABSENT = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")  # in a column of numbers
SHOWN = 5  # columns that a message names


def read_csv(own: OwnData) -> tuple[Array, Array | None, Sequence[str]]:
    """Comma-separated values under a line of names. See `_arrays`."""
    import pandas as pd  # a second that no other kind needs
    from pandas.errors import EmptyDataError, ParserError, ParserWarning

    expected = "comma-separated values under a line with the names of the columns"
    # Else a line that is too long makes the first column an index, and the rest moves by one.
    settings: dict[str, Any] = {"index_col": False, "skipinitialspace": True}
    try:
        names = [str(name) for name in pd.read_csv(own.path, nrows=0, **settings).columns]
        _check_names(names, own)
        absent = {name: list(ABSENT) for name in names if name != own.label}
        with warnings.catch_warnings():
            warnings.simplefilter("error", ParserWarning)
            table = pd.read_csv(
                own.path,
                na_values=absent,
                keep_default_na=False,
                **_exact_floats(pd.__version__),
                low_memory=False,
                **settings,
            )
    except (OSError, UnicodeDecodeError, EmptyDataError, ParserError, ParserWarning, ValueError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise InputError(f"{own.path} cannot be read ({reason}); expected: {expected}") from error
    return _arrays(table, own)


def _exact_floats(version: str) -> dict[str, str]:
    """What makes pandas read the double that was written; from 3.1 on it does so by itself and warns of the option."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return {"float_precision": "round_trip"} if (major, minor) < (3, 1) else {}


def read_parquet(own: OwnData) -> tuple[Array, Array | None, Sequence[str]]:
    """As `read_csv`; the index of a frame that pandas wrote is left out."""
    import pandas as pd

    try:
        table = pd.read_parquet(own.path, engine="pyarrow")
    except ImportError as error:
        raise InputError(f"{own.path}: reading .parquet needs the package pyarrow") from error
    except Exception as error:  # pyarrow has many kinds of errors for a torn file
        reason = " ".join(str(error).split())
        raise InputError(f"{own.path} is torn or no .parquet ({reason}); expected: a table of numbers") from error
    table.columns = [str(name) for name in table.columns]
    return _arrays(table, own)


def _check_names(names: Sequence[str], own: OwnData) -> None:
    """Raises InputError where the first line holds no names, or a column has none."""
    if not names:
        return
    if all(_is_number(name) for name in names) and names != [str(i) for i in range(len(names))]:
        raise InputError(f"{own.path}: the first line holds numbers; expected: the names of the columns")
    unnamed = [i for i, name in enumerate(names) if name.startswith("Unnamed: ")]
    if unnamed:
        raise InputError(
            f"{own.path}: column {unnamed[0]} (counted from 0) has no name; numbers of rows would be taken for data: "
            "leave them out, or name the column"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _arrays(table: DataFrame, own: OwnData) -> tuple[Array, Array | None, Sequence[str]]:
    """Samples float64 `[n, d]`, labels where `own.label` names their column, and the names of the `d` columns.

    Raises InputError for a label column that is not there or has gaps, for columns that hold no numbers, and where
    there are none at all.
    """
    if own.label is not None and own.label not in table.columns:
        raise InputError(f"{own.path} has no column {own.label}{nearest(own.label, table.columns)}")
    rest = table if own.label is None else table.drop(columns=own.label)
    if not len(rest.columns) or not len(rest):
        raise InputError(f"{own.path} holds {len(rest)} rows of {len(rest.columns)} columns; expected: numbers")
    labels = None if own.label is None else _labels(table[own.label], own)
    wrong = [str(name) for name, kind in rest.dtypes.items() if getattr(kind, "kind", "O") not in "biuf"]
    if wrong:
        names = ", ".join(wrong[:SHOWN]) + (f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else "")
        hint = "" if own.label else "; the column of the labels is named by label: in the space file"
        raise InputError(f"{own.path}: no numbers in {names}{hint}")
    return rest.to_numpy(np.float64, na_value=np.nan), labels, list(rest.columns)


def _labels(column: Series, own: OwnData) -> Array:
    """Whole numbers or texts, as the column holds them."""
    absent = np.flatnonzero((column.isna() | (column.astype(str).str.strip() == "")).to_numpy())
    if len(absent):
        raise InputError(f"{own.path}: {len(absent)} rows have no {own.label}; the first is row {absent[0]}")
    if getattr(column.dtype, "kind", "O") in "biuf":
        plain = {"b": np.bool_, "i": np.int64, "u": np.uint64, "f": np.float64}  # pandas and pyarrow have own types
        values: Array = column.to_numpy(dtype=plain[column.dtype.kind])
        return values
    return np.asarray([str(value) for value in column])
