"""The user's own .parquet: columns of numbers, or of lists of numbers, as embeddings are kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from raymc.config import OwnData
from raymc.datasets.base import BLOCK
from raymc.datasets.own_found import Array, Found, as_texts, check_names, some
from raymc.datasets.own_lines import other_kind
from raymc.datasets.own_tables import (
    Kinds,
    Wide,
    add_wide,
    are_numbers,
    check_columns,
    check_once,
    columns_of,
    kind_of,
    labels_in,
    texts_of,
)
from raymc.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame, Series
    from pyarrow.parquet import ParquetFile


def read_parquet(own: OwnData) -> Found:
    """As `read_csv`; the index of a frame that pandas wrote is left out, unless it has a name.

    A column of lists, all of one length, is as many columns: `name[0]`, `name[1]`, …. Raises InputError.
    """
    try:
        import pyarrow.parquet as pq

        # A buffer: else all of a column's row group is in memory as it is stored.
        with pq.ParquetFile(own.path, buffer_size=BLOCK, pre_buffer=False) as file:
            check_once([str(name) for name in file.schema_arrow.names], own)
            empty = file.schema_arrow.empty_table().to_pandas()
            _check_index(empty, own)
            x, columns, kinds, wide = _numbers(file, columns_of([str(name) for name in empty.columns], own), own)
            labels = None if own.label is None else _column(file, own.label)
            names = None if own.id is None else _column(file, own.id)
            texts = None if own.text is None else _column(file, own.text)
            if texts is None:
                check_columns(x, kinds, own, lambda name: _cells(file, name))
    except ImportError as error:
        raise InputError(f"{own.path}: reading .parquet needs the package pyarrow") from error
    except InputError:
        raise
    except Exception as error:  # pyarrow has many kinds of errors for a torn file
        raise InputError(f"{own.path} {_torn(own.path, error)}; expected: a table of numbers") from error
    if texts is not None:
        x = texts_of(_texts(texts), own)
    samples = None if names is None else _names(names, own)
    return Found(x, None if labels is None else labels_in(labels, own), columns, samples=samples, wide=wide)


def _torn(path: str, error: Exception) -> str:
    kind = other_kind(path)
    return f"is {kind}" if kind else f"is torn or no .parquet ({' '.join(str(error).split())})"


def _numbers(file: ParquetFile, names: list[str], own: OwnData) -> tuple[Array, list[str], Kinds, Wide]:
    """Numbers `[n, d]`, the names of their columns, the types of those of the file, and which are wide."""
    lists = {name: _value_type(file.schema_arrow.field(name).type) for name in names}
    types = [str(lists[name] or file.schema_arrow.field(name).type) for name in names]
    small = all(kind in ("float", "halffloat") for kind in types)
    widths = [1 if lists[name] is None else _width(file, name, own) for name in names]
    x = np.empty((file.metadata.num_rows, sum(widths)), np.float32 if small else np.float64, "F")
    columns: list[str] = []
    kinds: Kinds = {}
    wide: Wide = {}
    for name, width in zip(names, widths, strict=True):
        part = x[:, len(columns) : len(columns) + width]
        if lists[name] is None:
            column = _column(file, name)
            add_wide(wide, len(columns), column)
            columns.append(name)
            kinds[name] = _fill(part[:, 0], column)
        else:
            kinds[name] = _fill_lists(part, file, name, own, wide, len(columns))
            columns += [f"{name}[{i}]" for i in range(width)]
    return x, columns, kinds, wide


def _fill(numbers: Array, column: Series) -> set[str]:
    kinds = {kind_of(column.dtype)}
    if are_numbers(kinds):
        numbers[:] = column.to_numpy(numbers.dtype, na_value=np.nan)
    return kinds


def _value_type(kind: Any) -> Any:
    """The type of the values of a column of lists, None for another column."""
    from pyarrow import types

    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return kind.value_type if is_list else None


def _width(file: ParquetFile, name: str, own: OwnData) -> int:
    """How many numbers the first list has, 0 where it has none that are numbers. Raises InputError."""
    _, rows = next(_lists(file, name, 1), (0, None))
    if rows is None:
        return 0
    if rows.null_count:
        raise InputError(f"{own.path}: row 0 has no {name}; expected: a list of numbers")
    return len(rows.flatten())


def _fill_lists(numbers: Array, file: ParquetFile, name: str, own: OwnData, wide: Wide, first: int) -> set[str]:
    """Write the lists of a column into `numbers` `[n, m]`, whose columns are counted from `first` in `wide`.

    Raises InputError where they are not all of m numbers.
    """
    from pyarrow import types

    kind, width = _value_type(file.schema_arrow.field(name).type), numbers.shape[1]
    if not (types.is_integer(kind) or types.is_floating(kind)):
        return {"O"}
    if not width and len(numbers):
        raise InputError(f"{own.path}: row 0 of {name} holds an empty list; expected: numbers")
    for start, rows in _lists(file, name, max(1, BLOCK // 8 // max(1, width))):
        lengths = _lengths(rows)
        wrong = np.flatnonzero(lengths != width)
        if len(wrong):
            row, held = start + int(wrong[0]), int(lengths[wrong[0]])
            reason = f"holds {held} numbers" if held >= 0 else "is missing"
            raise InputError(f"{own.path}: row {row} of {name} {reason}; expected: {width}, as row 0 has")
        values = rows.flatten().to_numpy(zero_copy_only=False).reshape(len(rows), width)
        numbers[start : start + len(rows)] = values
        for at in range(width) if types.is_integer(kind) else ():
            add_wide(wide, first + at, values[:, at])
    return {"f"}


def _lengths(rows: Any) -> Array:
    """How long each list is, -1 for one that is missing."""
    import pyarrow.compute as pc

    lengths: Array = pc.fill_null(pc.list_value_length(rows), -1).to_numpy(zero_copy_only=False)
    return lengths


def _lists(file: ParquetFile, name: str, size: int) -> Iterator[tuple[int, Any]]:
    """A column in parts of at most `size` rows, each with the number of its first row."""
    start = 0
    for batch in file.iter_batches(batch_size=size, columns=[name], use_threads=False):
        yield start, batch.column(0)
        start += len(batch)


def _column(file: ParquetFile, name: str) -> Series:
    """One column, which is how the file has them: the others are not in memory.

    In parts, of which pyarrow keeps less of what it needed for them.
    """
    import pyarrow as pa

    schema = pa.schema([file.schema_arrow.field(name)], metadata=file.schema_arrow.metadata)
    table = pa.Table.from_batches(file.iter_batches(columns=[name], use_threads=False), schema)
    return table.unify_dictionaries().to_pandas().iloc[:, 0]


def _cells(file: ParquetFile, name: str) -> list[object]:
    """A column's values, None where they are missing; none of them where they are lists."""
    if _value_type(file.schema_arrow.field(name).type) is not None:
        return []
    column = _column(file, name)
    return [None if gone else value for value, gone in zip(column, column.isna(), strict=True)]


def _names(column: Series, own: OwnData) -> list[str]:
    """The samples' names, as texts. Raises InputError where some are missing, or repeat."""
    names = _texts(column)
    check_names(names, str(own.id), own.path)
    return names


def _texts(column: Series) -> list[str]:
    """A column as texts, empty ones where values are missing."""
    absent = column.isna().to_numpy()
    values = ["" if gone else value for value, gone in zip(column, absent, strict=True)]
    return as_texts([value if isinstance(value, bytes) else str(value) for value in values])


def _check_index(table: DataFrame, own: OwnData) -> None:
    """Raises InputError where the index has a name: it may be data or labels, and no other format has one."""
    named = [str(name) for name in table.index.names if name is not None]
    if named:
        raise InputError(
            f"{own.path} has {some(named)} as its index; write the table after reset_index() to have it as a column, "
            "or after reset_index(drop=True) to leave it out"
        )
