"""The user's own tables, .csv and .parquet: a column is a number of every sample, one of them may be the labels."""

from __future__ import annotations

import csv
import io
import itertools
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from raymc.config import OwnData, nearest
from raymc.datasets.base import BLOCK
from raymc.datasets.own_found import ABSENT, Array, Found, is_number, some, text_labels
from raymc.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame, Series
    from pyarrow.parquet import ParquetFile

SEPARATORS = ";\t|"  # of other tables than comma-separated ones


def read_csv(own: OwnData) -> Found:
    """Comma-separated values under a line of names. Raises InputError."""
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
        columns = _columns(names, own)
        absent = {name: list(ABSENT) for name in names if name != own.label}
        with warnings.catch_warnings():
            warnings.simplefilter("error", ParserWarning)
            with pd.read_csv(
                own.path,
                header=0,
                names=names,
                na_values=absent,
                dtype={own.label: str},  # which kind they are, all of them together say
                keep_default_na=False,
                **_exact_floats(pd.__version__),
                low_memory=False,
                skip_blank_lines=len(names) > 1,  # of one column a blank line is a missing value
                chunksize=max(1, BLOCK // len(names)),
                **settings,
            ) as tables:
                x, labels, kinds = _gathered(tables, columns, own)
    except (OSError, UnicodeDecodeError, EmptyDataError, ParserError, ParserWarning, ValueError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise InputError(f"{own.path} cannot be read ({reason}); expected: {expected}") from error
    _check_numbers(x, kinds, own)
    return Found(x, None if own.label is None else _labels(_as_read(labels, own), own), columns)


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

    try:
        import pyarrow.parquet as pq

        # A buffer: else all of a column's row group is in memory as it is stored.
        with pq.ParquetFile(own.path, buffer_size=BLOCK, pre_buffer=False) as file:
            _check_once([str(name) for name in file.schema_arrow.names], own)
            empty = file.schema_arrow.empty_table().to_pandas()
            _check_index(empty, own)
            names = [str(name) for name in empty.columns]
            columns = _columns(names, own)
            small = all(str(file.schema_arrow.field(name).type) == "float" for name in columns)
            shape, kind = (file.metadata.num_rows, len(columns)), np.float32 if small else np.float64
            x, kinds = np.empty(shape, kind, "F"), {}
            for numbers, name in zip(x.T, columns, strict=True):
                column = _column(file, name)
                kinds[name] = {_kind(column.dtype)}
                if _are_numbers(kinds[name]):
                    numbers[:] = column.to_numpy(kind, na_value=np.nan)
            labels = None if own.label is None else _column(file, own.label)
    except ImportError as error:
        raise InputError(f"{own.path}: reading .parquet needs the package pyarrow") from error
    except InputError:
        raise
    except Exception as error:  # pyarrow has many kinds of errors for a torn file
        reason = " ".join(str(error).split())
        raise InputError(f"{own.path} is torn or no .parquet ({reason}); expected: a table of numbers") from error
    _check_numbers(x, kinds, own)
    return Found(x, None if labels is None else _labels(labels, own), columns)


def _column(file: ParquetFile, name: str) -> Series:
    """One column, which is how the file has them: the others are not in memory."""
    return file.read(columns=[name], use_threads=False).to_pandas().iloc[:, 0]


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


Kinds = dict[str, set[str]]
"""By column numpy's letters for the types of its parts."""


def _columns(names: Sequence[str], own: OwnData) -> list[str]:
    """The names of the columns that are no labels. Raises InputError where the one of the labels is not there."""
    if own.label is not None and own.label not in names:
        raise InputError(f"{own.path} has no column {own.label}{nearest(own.label, names)}")
    return [name for name in names if name != own.label]


def _gathered(tables: Iterable[DataFrame], columns: Sequence[str], own: OwnData) -> tuple[Array, list[str], Kinds]:
    """Numbers float64 `[n, d]`, labels and types of a table that comes in parts; no numbers once a column has none."""
    blocks: list[Array] = []
    labels: list[str] = []
    kinds: Kinds = {name: set() for name in columns}
    for table in tables:
        if own.label is not None:
            labels.extend(table[own.label])
        rest = table[columns]
        for name, dtype in rest.dtypes.items():
            kinds[str(name)].add(_kind(dtype))
        numbers = all(map(_are_numbers, kinds.values()))
        blocks.append(rest.to_numpy(np.float64) if numbers else np.empty((len(rest), 0)))
    rows = sum(map(len, blocks))
    x, done = np.empty((rows, len(columns)), np.float64, "F"), 0  # the order by which columns are summed up
    for block in blocks if all(map(_are_numbers, kinds.values())) else ():
        x[done : done + len(block)] = block
        done += len(block)
    return x, labels, kinds


def _kind(dtype: object) -> str:
    return str(getattr(dtype, "kind", "O"))


def _are_numbers(kinds: set[str]) -> bool:
    """Whether the parts of a column are numbers, or all of them true and false."""
    return kinds <= set("iuf") or kinds == {"b"}


def _check_numbers(x: Array, kinds: Kinds, own: OwnData) -> None:
    """Raises InputError for columns that hold no numbers, and where there are none at all."""
    if not x.size:
        raise InputError(f"{own.path} holds {len(x)} rows of {x.shape[1]} columns; expected: numbers")
    wrong = [name for name, found in kinds.items() if not _are_numbers(found)]
    if wrong:
        hint = "" if own.label else "; the column of the labels is named by label: in the space file"
        raise InputError(f"{own.path}: no numbers in {some(wrong)}{hint}")


def _as_read(texts: Sequence[str], own: OwnData) -> Series:
    """The labels of a .csv as pandas reads them all together: as numbers, where all of them are."""
    import pandas as pd

    lines = io.StringIO()
    csv.writer(lines, quoting=csv.QUOTE_ALL).writerows([text] for text in texts)
    lines.seek(0)
    settings: dict[str, Any] = {"keep_default_na": False, "skip_blank_lines": False, "low_memory": False}
    table = pd.read_csv(lines, header=None, names=[own.label], **_exact_floats(pd.__version__), **settings)
    return table[own.label]


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
