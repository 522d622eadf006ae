"""Whether rows of the user's own are finite, and whether those that come later are of the training's kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from raymc.config import OwnData
from raymc.datasets.base import row_blocks
from raymc.datasets.own_found import EXACT, Found
from raymc.datasets.scaling import COARSE
from raymc.errors import InputError

LARGEST = float(np.finfo(np.float32).max)


def check_numbers(found: Found, path: Path | str) -> None:
    """Raises InputError for numbers that are missing, infinite or beyond float32, with the first row and column."""
    count, first, done = 0, None, 0
    for block in row_blocks(found.x):
        wrong = np.argwhere(~(np.abs(block.astype(np.float64)) <= LARGEST))
        if len(wrong) and first is None:
            first = done + wrong[0][0], wrong[0][1], block[tuple(wrong[0])]
        count, done = count + len(wrong), done + len(block)
    if first is not None:
        row, column, value = first
        where = f"row {row}, column {found.columns[column] if found.columns else column}"
        raise InputError(
            f"{path} holds {count} values that are missing, NaN, infinite or beyond float32; the first is in "
            f"{where} (counted from 0): {value:g}"
        )


def check_whole(found: Found, path: Path | str) -> None:
    """Raises InputError for a column of whole numbers that are different, and as floats are not, or hardly so."""
    for column, (low, high) in _wide(found).items():
        numbers = found.x[:, column].astype(np.float64)
        step = np.spacing(max(abs(float(low)), abs(float(high))))
        if low != high and step > COARSE * numbers.std():
            name = found.columns[column] if found.columns else f"{column} (counted from 0)"
            why = (
                f"column {name} holds whole numbers from {low} to {high}, which floats tell apart in steps of {step:g}"
            )
            raise InputError(f"{path}: {why} only; subtract the least one, or name the column by id: if these are ids")


def _wide(found: Found) -> Mapping[int, tuple[int, int]]:
    """`Found.wide`, or that of an array of whole numbers."""
    if found.x.dtype.kind not in "iu" or found.x.dtype.itemsize < 8 or not len(found.x):
        return found.wide
    ends = zip(found.x.min(0).tolist(), found.x.max(0).tolist(), strict=True)
    return {at: (low, high) for at, (low, high) in enumerate(ends) if max(-low, high) > EXACT}


def check_alike(found: Found, later: Found, own: OwnData) -> Found:
    """`later`, of `own.test`, as rows of the kind of `found`, of `own.path`; grey photos get colours where those have.

    Raises InputError that names the first difference.
    """
    if found.side is not None:
        later = with_colours(later, found.x.shape[1:])
    difference = difference_from(found.x.shape[1:], found.columns, later)
    if not difference and later.y is not None and found.y is None:
        difference = "has labels; expected: none"
    if difference:
        raise InputError(f"{own.test}, compared with the training rows of {own.path}, {difference}")
    return later


def with_colours(later: Found, shape: tuple[int, ...]) -> Found:
    """Grey photos as colour ones, where those of `shape` `(c, h, w)` are."""
    if later.x.ndim != 4 or len(shape) != 3 or later.x.shape[1] >= shape[0] or later.x.shape[2:] != shape[1:]:
        return later
    return later._replace(x=np.broadcast_to(later.x, (len(later.x), *shape)))


def difference_from(shape: tuple[int, ...], columns: Sequence[str], later: Found) -> str:
    """The first of the differences of `later` from samples of `shape` with these `columns`, if any; or nothing."""
    if shape != later.x.shape[1:] and (len(shape) == 3 or later.x.ndim == 4):
        return f"holds {_kind(later.x.shape[1:])}; expected: {_kind(shape)}"
    names = zip(columns, later.columns, strict=False)
    other = next(((i, mine, its) for i, (mine, its) in enumerate(names) if mine != its), None)
    if other:
        return f"has {other[2]} as column {other[0]} (counted from 0); expected: {other[1]}"
    if shape[0] != later.x.shape[1]:
        lacks = [*columns[len(later.columns) :], *later.columns[len(columns) :]] if columns and later.columns else []
        first = f", the first of them {lacks[0]}" if lacks else ""
        more = "more" if later.x.shape[1] > shape[0] else "fewer"
        return f"has {later.x.shape[1]} columns; expected: {shape[0]}, not {more}{first}"
    return ""


def _kind(shape: tuple[int, ...]) -> str:
    return f"rows of {shape[0]} numbers" if len(shape) == 1 else images_in_words(shape)


def images_in_words(shape: tuple[int, ...]) -> str:
    """Size and colour of images of `shape` `(c, h, w)`."""
    return f"images of {shape[2]}x{shape[1]} {'colour' if shape[0] == 3 else 'grey'}"
