"""The user's own tables, .csv and .parquet: a column is a number of every sample, one of them may be the labels."""

from __future__ import annotations

import itertools
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from raymc.config import OwnData, nearest
from raymc.datasets.own_found import ABSENT, Array, Found, is_number, some, text_labels
from raymc.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame, Series

SEPARATORS = ";\t|"  # of other tables than comma-separated ones


def read_csv(own: OwnData) -> Found:
    """Comma-separated values under a line of names. See `_arrays`."""
    import pandas as pd  # a second that no other kind needs
    from pandas.errors import EmptyDataError, ParserError, ParserWarning

    expected = "comma-separated values under a line with the names of the columns"
    # Else a line that is too long makes the first column an index, and the rest moves by one.
    settings: dict[str, Any] = {"index_col": False, "skipinitialspace": True}
    try:
        # As texts: among names pandas renames those that stand twice, and then numbers look like names.
        settings |= {"skiprows": _blank_lines(own.path)}
        first = pd.read_csv(own.path, header=None, nrows=1, dtype=str, keep_default_na=False, **settings)
        names = [str(name).strip() for name in first.iloc[0]]
        _check_names(names, own)
        absent = {name: list(ABSENT) for name in names if name != own.label}
        with warnings.catch_warnings():
            warnings.simplefilter("error", ParserWarning)
            table = pd.read_csv(
                own.path,
                header=0,
                names=names,
                na_values=absent,
                keep_default_na=False,
                **_exact_floats(pd.__version__),
                low_memory=False,
                skip_blank_lines=len(names) > 1,  # of one column a blank line is a missing value
                **settings,
            )
    except (OSError, UnicodeDecodeError, EmptyDataError, ParserError, ParserWarning, ValueError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise InputError(f"{own.path} cannot be read ({reason}); expected: {expected}") from error
    return _arrays(table, own)


def _blank_lines(path: str) -> int:
    """How many lines before the names are blank: where blank lines count, these still do not."""
    with open(path, "rb") as file:
        return sum(1 for _ in itertools.takewhile(lambda line: not line.strip(), file))


def _exact_floats(version: str) -> dict[str, str]:
    """What makes pandas read the double that was written; from 3.1 on it does so by itself and warns of the option."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return {"float_precision": "round_trip"} if (major, minor) < (3, 1) else {}


def read_parquet(own: OwnData) -> Found:
    """As `read_csv`; the index of a frame that pandas wrote is left out, unless it has a name."""
    import pandas as pd

    try:
        import pyarrow.parquet as pq

        _check_once([str(name) for name in pq.read_schema(own.path).names], own)
        table = pd.read_parquet(own.path, engine="pyarrow")
    except ImportError as error:
        raise InputError(f"{own.path}: reading .parquet needs the package pyarrow") from error
    except InputError:
        raise
    except Exception as error:  # pyarrow has many kinds of errors for a torn file
        reason = " ".join(str(error).split())
        raise InputError(f"{own.path} is torn or no .parquet ({reason}); expected: a table of numbers") from error
    _check_index(table, own)
    table.columns = [str(name) for name in table.columns]
    return _arrays(table, own)


def _check_index(table: DataFrame, own: OwnData) -> None:
    """Raises InputError where the index has a name: it may be data or labels, and no other format has one."""
    named = [str(name) for name in table.index.names if name is not None]
    if named:
        raise InputError(
            f"{own.path} has {some(named)} as its index; write the table after reset_index() to have it as a column, "
            "or after reset_index(drop=True) to leave it out"
        )


def _check_names(names: Sequence[str], own: OwnData) -> None:
    """Raises InputError where the first line holds no names or only one of a few, or a column has none or another's."""
    if len(names) == 1 and any(sign in names[0] for sign in SEPARATORS):
        raise InputError(f"{own.path}: columns are separated by commas, and the first line has none: {names[0]!r}")
    # A missing value is no name either: the line is a sample, and would be lost.
    if all(is_number(name) or name in ABSENT for name in names) and names != [str(i) for i in range(len(names))]:
        raise InputError(f"{own.path}: the first line holds numbers; expected: the names of the columns")
    unnamed = [i for i, name in enumerate(names) if not name or name.startswith("Unnamed: ")]
    if unnamed:
        raise InputError(
            f"{own.path}: column {unnamed[0]} (counted from 0) has no name; numbers of rows would be taken for data: "
            "leave them out, or name the column"
        )
    _check_once(names, own)


def _check_once(names: Sequence[str], own: OwnData) -> None:
    """Raises InputError where a name stands twice: the second column of the labels would be data."""
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise InputError(f"{own.path}: several columns are called {some(twice)}; expected: a name of its own for each")


def _arrays(table: DataFrame, own: OwnData) -> Found:
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
        hint = "" if own.label else "; the column of the labels is named by label: in the space file"
        raise InputError(f"{own.path}: no numbers in {some(wrong)}{hint}")
    return Found(rest.to_numpy(np.float64, na_value=np.nan), labels, list(rest.columns))


def _labels(column: Series, own: OwnData) -> Array:
    """Whole numbers, or texts without the spaces around them; raises InputError where some are missing."""
    absent = np.flatnonzero(column.isna().to_numpy())
    if len(absent):
        raise InputError(f"{own.path}: {len(absent)} rows have no {own.label}; the first is row {absent[0]}")
    if getattr(column.dtype, "kind", "O") in "biuf":
        plain = {"b": np.bool_, "i": np.int64, "u": np.uint64, "f": np.float64}  # pandas and pyarrow have own types
        values: Array = column.to_numpy(dtype=plain[column.dtype.kind])
        return values
    return text_labels([str(value) for value in column], str(own.label), own.path)
