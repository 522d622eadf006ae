"""The user's own .csv: a column is a number of every sample, one may be the labels and one the samples' names."""

from __future__ import annotations

import contextlib
import csv
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from raymc.config import OwnData
from raymc.datasets.base import BLOCK
from raymc.datasets.own_found import ABSENT, EXACT, Array, Found, check_names, text_labels
from raymc.datasets.own_lines import blank_lines, check_start, encoding_of, open_quotation, other_kind, wrong_line
from raymc.datasets.own_tables import (
    Kinds,
    Wide,
    add_wide,
    are_numbers,
    check_columns,
    check_header,
    columns_of,
    kind_of,
    texts_of,
)
from raymc.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame


def read_csv(own: OwnData) -> Found:
    """Comma-separated values under a line of names, in UTF-8 or what `own_lines` finds. Raises InputError."""
    import pandas as pd  # a second that no other kind needs

    texts = [name for name in (own.label, own.id, own.text) if name is not None]
    with _explained(own.path):
        encoding = encoding_of(own.path)
        # Else a line that is too long makes the first column an index, and the rest moves by one.
        settings: dict[str, Any] = {"index_col": False, "skipinitialspace": True, "encoding": encoding.name}
        settings |= {"skiprows": blank_lines(own.path, encoding.name)}
        check_start(own.path, encoding.name)
        # As texts: among names pandas renames those that stand twice, and then numbers look like names.
        first = pd.read_csv(own.path, header=None, nrows=1, dtype=str, keep_default_na=False, **settings)
        names = [str(name).strip() for name in first.iloc[0]]
        check_header(names, own)
        columns = columns_of(names, own)
        # Of one column a blank line is a missing value.
        settings |= {"header": 0, "names": names, "keep_default_na": False, "skip_blank_lines": len(names) > 1}
        settings |= {"low_memory": False, "chunksize": max(1, BLOCK // len(names))}
        with pd.read_csv(
            own.path,
            na_values={name: list(ABSENT) for name in columns},
            dtype=dict.fromkeys(texts, str),  # which kind the labels are, all of them together say
            **_exact_floats(pd.__version__),
            **settings,
        ) as tables:
            x, by_name, kinds, wide = _gathered(tables, columns, texts)

    def cells(name: str) -> Iterator[object]:
        with pd.read_csv(own.path, dtype=str, usecols=[name], **settings) as tables:
            yield from (value for table in tables for value in table[name])

    if own.text is None:
        check_columns(x, kinds, own, cells)
    else:
        x = texts_of(by_name[own.text], own)
    written, samples = (None if name is None else by_name[name] for name in (own.label, own.id))
    if samples is not None:
        check_names(samples, str(own.id), own.path)
    y = None if written is None else text_labels(written, str(own.label), own.path)
    return Found(x, y, columns, left_out=encoding.words, samples=samples, wide=wide)


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    """What pandas raises, as an InputError that says in which line the table ends to be one, and why."""
    from pandas.errors import EmptyDataError, ParserError, ParserWarning

    expected = "comma-separated values under a line with the names of the columns"
    kind = other_kind(path)
    if kind:
        raise InputError(f"{path} is {kind}; expected: {expected}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ParserWarning)
            yield
    except EmptyDataError as error:
        raise InputError(f"{path} is empty; expected: {expected}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); expected: {expected}") from error
    except (ParserError, ParserWarning, UnicodeError, ValueError, csv.Error) as error:
        with contextlib.suppress(csv.Error, UnicodeError):
            encoding = encoding_of(path).name
            why = open_quotation(path, encoding) if "EOF inside string" in str(error) else ""
            why = why or wrong_line(path, encoding)
            if why:
                raise InputError(f"{path}: {why}; expected: {expected}") from error
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read ({reason}); expected: {expected}") from error


def _exact_floats(version: str) -> dict[str, str]:
    """What makes pandas read the double that was written; from 3.1 on it does so by itself and warns of the option."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return {"float_precision": "round_trip"} if (major, minor) < (3, 1) else {}


def _gathered(
    tables: Iterable[DataFrame], columns: Sequence[str], texts: Sequence[str]
) -> tuple[Array, dict[str, list[str]], Kinds, Wide]:
    """Numbers float64 `[n, d]`, columns of texts, types, and which are wide, of a table that comes in parts.

    There are no numbers once a column has none.
    """
    blocks: list[Array] = []
    wide: Wide = {}
    by_name: dict[str, list[str]] = {name: [] for name in texts}
    kinds: Kinds = {name: set() for name in columns}
    for table in tables:
        for name, values in by_name.items():
            values.extend(value if isinstance(value, str) else "" for value in table[name])  # a line may be short
        rest = table[columns]
        for name, dtype in rest.dtypes.items():
            kinds[str(name)].add(kind_of(dtype))
        numbers = all(map(are_numbers, kinds.values()))
        blocks.append(rest.to_numpy(np.float64) if numbers else np.empty((len(rest), 0)))
        for at in np.flatnonzero(np.abs(blocks[-1]).max(0) >= EXACT) if blocks[-1].size else ():
            add_wide(wide, int(at), rest.iloc[:, at])
    rows = sum(map(len, blocks))
    x, done = np.empty((rows, len(columns)), np.float64, "F"), 0  # the order by which columns are summed up
    for block in blocks if all(map(are_numbers, kinds.values())) else ():
        x[done : done + len(block)] = block
        done += len(block)
    return x, by_name, kinds, wide
