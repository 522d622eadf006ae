"""Whether rows of the user's own are finite, and whether those that come later are of the training's kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from raymc.config import OwnData
from raymc.datasets.base import row_blocks
from raymc.datasets.own_found import Array, Found
from raymc.errors import InputError

LARGEST = float(np.finfo(np.float32).max)


def check_numbers(found: Found, path: Path) -> None:
    """Raises InputError for numbers that are missing, infinite or beyond float32, with the first row and column."""
    count, first, done = 0, None, 0
    for block in row_blocks(found.x):
        wrong = np.argwhere(~(np.abs(block.astype(np.float64)) <= LARGEST))
        if len(wrong) and first is None:
            first = done + wrong[0][0], wrong[0][1]
        count, done = count + len(wrong), done + len(block)
    if first is not None:
        row, column = first
        where = f"row {row}, column {found.columns[column] if found.columns else column}"
        raise InputError(
            f"{path} holds {count} values that are missing, NaN, infinite or beyond float32; the first is in "
            f"{where} (counted from 0)"
        )


def check_alike(found: Found, later: Found, own: OwnData) -> Found:
    """`later`, of `own.test`, as rows of the kind of `found`, of `own.path`; grey photos get colours where those have.

    Raises InputError that names the first difference.
    """
    if found.x.ndim == later.x.ndim == 4 and found.side is not None and later.x.shape[1] < found.x.shape[1]:
        wide = np.broadcast_to(later.x, (len(later.x), *found.x.shape[1:]))
        later = later._replace(x=wide)
    difference = _difference(found, later)
    if not difference and later.y is not None and found.y is None:
        difference = "has labels; expected: none"
    if difference:
        raise InputError(f"{own.test}, compared with the training rows of {own.path}, {difference}")
    return later


def _difference(found: Found, later: Found) -> str:
    """The first of the differences in kind, size and columns, or nothing."""
    if found.x.shape[1:] != later.x.shape[1:] and 4 in (found.x.ndim, later.x.ndim):
        return f"holds {_kind(later)}; expected: {_kind(found)}"
    names = zip(found.columns, later.columns, strict=False)
    other = next(((i, mine, its) for i, (mine, its) in enumerate(names) if mine != its), None)
    if other:
        return f"has {other[2]} as column {other[0]} (counted from 0); expected: {other[1]}"
    if found.x.shape[1] != later.x.shape[1]:
        lacks = [*found.columns[len(later.columns) :], *later.columns[len(found.columns) :]]
        first = f", the first of them {lacks[0]}" if lacks else ""
        more = "more" if later.x.shape[1] > found.x.shape[1] else "fewer"
        return f"has {later.x.shape[1]} columns; expected: {found.x.shape[1]}, not {more}{first}"
    return ""


def _kind(found: Found) -> str:
    return f"rows of {found.x.shape[1]} numbers" if found.x.ndim == 2 else images_in_words(found.x)


def images_in_words(x: Array) -> str:
    """Size and colour of images `[n, c, h, w]`."""
    return f"images of {x.shape[3]}x{x.shape[2]} {'colour' if x.shape[1] == 3 else 'grey'}"
