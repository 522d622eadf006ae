"""The user's own .csv: a column is a number of every sample, one may be the labels and one the samples' names."""

from __future__ import annotations

import contextlib
import csv
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from raymc.config import OwnData
from raymc.datasets.base import BLOCK
from raymc.datasets.own_found import ABSENT, EXACT, ZEROS, Array, Found, check_names, some, text_labels
from raymc.datasets.own_lines import (
    CHUNK,
    blank_lines,
    check_start,
    encoding_of,
    open_quotation,
    other_kind,
    wrong_line,
)
from raymc.datasets.own_tables import (
    Kinds,
    Wide,
    add_wide,
    are_numbers,
    check_columns,
    check_header,
    check_no_sample,
    columns_of,
    kind_of,
    texts_of,
)
from raymc.datasets.scaling import COARSE
from raymc.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame


ZEROS_IN_FRONT = re.compile(rb"""[,"\r\n ]0\d+[,"\r\n ]""")
NEAR_ZERO = re.compile(rb"[eE]-0*(?:[3-9]\d\d|[1-9]\d{3})")  # exponents with which numbers may be 0 as a float64
NOT_ZERO = re.compile(r"[^eE]*[1-9]")


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

    for name in texts:
        check_no_sample(names, own, name, by_name[name])
    lost = ""
    if own.text is None:
        check_columns(x, kinds, own, cells, names)
        _add_exact(wide, x, columns, cells)
        lost = _lost_zeros(own.path, [name for name, kind in kinds.items() if kind <= set("iu")], cells)
        lost += _read_as_zero(own.path, x, columns, cells)
    else:
        x = texts_of(by_name[own.text], own)
    written, samples = (None if name is None else by_name[name] for name in (own.label, own.id))
    if samples is not None:
        check_names(samples, str(own.id), own.path)
    y = None if written is None else text_labels(written, str(own.label), own.path)
    return Found(x, y, columns, left_out=lost + encoding.words, samples=samples, wide=wide)


Cells = Callable[[str], Iterable[object]]
"""The cells of a column as they are written."""


def _add_exact(wide: Wide, x: Array, columns: Sequence[str], cells: Cells) -> None:
    """Add to `wide` what is written as a real number, `1152921504606846977.0`, and is beyond `EXACT`."""
    large = np.flatnonzero(np.maximum(x.max(0), -x.min(0)) > EXACT)
    for at in (int(at) for at in large if at not in wide and np.isfinite(x[:, at]).all()):
        if np.spacing(np.abs(x[:, at]).max()) > COARSE * x[:, at].std():
            exact = [int(Decimal(str(cell).strip())) for cell in cells(columns[at])]
            wide[at] = min(exact), max(exact)


def _holds(path: str, pattern: re.Pattern[bytes]) -> bool:
    with open(path, "rb") as file:
        return any(pattern.search(part) for part in iter(lambda: file.read(CHUNK), b""))


def _read_as_zero(path: str, x: Array, columns: Sequence[str], cells: Cells) -> str:
    """ "; " and words for numbers that are too small for a float64. Raises InputError where a column has no others."""
    words = []
    for at in np.flatnonzero((x == 0).any(0)).tolist() if _holds(path, NEAR_ZERO) else ():
        written = zip(cells(columns[at]), x[:, at] == 0, strict=True)
        lost = sum(bool(NOT_ZERO.match(str(cell))) for cell, zero in written if zero)
        if lost and not x[:, at].any():
            why = f"column {columns[at]} holds only numbers that are too small for a float (below 1e-323)"
            raise InputError(f"{path}: {why}; multiply them, or write their logarithms")
        words += [f"{lost} in {columns[at]}"] if lost else []
    return f"; 0 in place of numbers below 1e-323 ({some(words)})" if words else ""


def _lost_zeros(path: str, whole: Sequence[str], cells: Cells) -> str:
    """ "; " and words for columns of `whole` numbers that are written with zeros in front, as codes are."""
    if not whole or not _holds(path, ZEROS_IN_FRONT):
        return ""
    lost = [name for name in whole if any(ZEROS.match(str(cell).strip()) for cell in cells(name))]
    return f"; without the zeros in front of the numbers in {some(lost)}" if lost else ""


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
