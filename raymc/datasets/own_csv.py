"""The user's own .csv: a column is a number of every sample, one may be the labels and one the samples' names."""

from __future__ import annotations

import csv
import io
import itertools
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from raymc.config import OwnData
from raymc.datasets.base import BLOCK
from raymc.datasets.own_found import ABSENT, Array, Found, check_names
from raymc.datasets.own_tables import (
    Kinds,
    are_numbers,
    check_columns,
    check_header,
    columns_of,
    kind_of,
    labels_in,
    texts_of,
)
from raymc.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame, Series


def read_csv(own: OwnData) -> Found:
    """Comma-separated values under a line of names. Raises InputError."""
    import pandas as pd  # a second that no other kind needs
    from pandas.errors import EmptyDataError, ParserError, ParserWarning

    expected = "comma-separated values under a line with the names of the columns"
    texts = [name for name in (own.label, own.id, own.text) if name is not None]
    # Else a line that is too long makes the first column an index, and the rest moves by one.
    settings: dict[str, Any] = {"index_col": False, "skipinitialspace": True}
    try:
        # As texts: among names pandas renames those that stand twice, and then numbers look like names.
        settings |= {"skiprows": _blank_lines(own.path)}
        first = pd.read_csv(own.path, header=None, nrows=1, dtype=str, keep_default_na=False, **settings)
        names = [str(name).strip() for name in first.iloc[0]]
        check_header(names, own)
        columns = columns_of(names, own)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ParserWarning)
            with pd.read_csv(
                own.path,
                header=0,
                names=names,
                na_values={name: list(ABSENT) for name in columns},
                dtype=dict.fromkeys(texts, str),  # which kind the labels are, all of them together say
                keep_default_na=False,
                **_exact_floats(pd.__version__),
                low_memory=False,
                skip_blank_lines=len(names) > 1,  # of one column a blank line is a missing value
                chunksize=max(1, BLOCK // len(names)),
                **settings,
            ) as tables:
                x, by_name, kinds = _gathered(tables, columns, texts)
    except (OSError, UnicodeDecodeError, EmptyDataError, ParserError, ParserWarning, ValueError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise InputError(f"{own.path} cannot be read ({reason}); expected: {expected}") from error
    if own.text is None:
        check_columns(x, kinds, own)
    else:
        x = texts_of(by_name[own.text], own)
    written, samples = (None if name is None else by_name[name] for name in (own.label, own.id))
    if samples is not None:
        check_names(samples, str(own.id), own.path)
    y = None if written is None else labels_in(_as_read(written, own), own)
    return Found(x, y, columns, samples=samples, written=written)


def _blank_lines(path: str) -> int:
    """How many lines before the names are blank: where blank lines count, these still do not."""
    with open(path, "rb") as file:
        return sum(1 for _ in itertools.takewhile(lambda line: not line.strip(), file))


def _exact_floats(version: str) -> dict[str, str]:
    """What makes pandas read the double that was written; from 3.1 on it does so by itself and warns of the option."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return {"float_precision": "round_trip"} if (major, minor) < (3, 1) else {}


def _gathered(
    tables: Iterable[DataFrame], columns: Sequence[str], texts: Sequence[str]
) -> tuple[Array, dict[str, list[str]], Kinds]:
    """Numbers float64 `[n, d]`, columns of texts, and types of a table that comes in parts.

    There are no numbers once a column has none.
    """
    blocks: list[Array] = []
    by_name: dict[str, list[str]] = {name: [] for name in texts}
    kinds: Kinds = {name: set() for name in columns}
    for table in tables:
        for name, values in by_name.items():
            values.extend(table[name])
        rest = table[columns]
        for name, dtype in rest.dtypes.items():
            kinds[str(name)].add(kind_of(dtype))
        numbers = all(map(are_numbers, kinds.values()))
        blocks.append(rest.to_numpy(np.float64) if numbers else np.empty((len(rest), 0)))
    rows = sum(map(len, blocks))
    x, done = np.empty((rows, len(columns)), np.float64, "F"), 0  # the order by which columns are summed up
    for block in blocks if all(map(are_numbers, kinds.values())) else ():
        x[done : done + len(block)] = block
        done += len(block)
    return x, by_name, kinds


def _as_read(texts: Sequence[str], own: OwnData) -> Series:
    """The labels of a .csv as pandas reads them all together: as numbers, where all of them are."""
    import pandas as pd

    lines = io.StringIO()
    csv.writer(lines, quoting=csv.QUOTE_ALL).writerows([text] for text in texts)
    lines.seek(0)
    settings: dict[str, Any] = {"keep_default_na": False, "skip_blank_lines": False, "low_memory": False}
    table = pd.read_csv(lines, header=None, names=[own.label], **_exact_floats(pd.__version__), **settings)
    return table[own.label]
