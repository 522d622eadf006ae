"""What is odd about the user's own data, and no mistake: said in one line with the results, never mended."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from raymc.datasets.base import Scaling, as_rounded, row_blocks
from raymc.datasets.own_found import NO_LABEL, Array, Found, some
from raymc.datasets.scaling import column_figures

CODES = frozenset(sign * int("9" * n) for n in range(1, 7) for sign in (-1, 1)) - {9} | {-32768, 32767, 65535, -(2**31)}
ID_NAME = re.compile(r"(?:.*[\W_])?(?:id|ids|idx|index|key|nr|no|uuid|row|rownum|unnamed)", re.IGNORECASE)
WIDE = 1000  # times the deviation of the column in the middle
TRANSPOSED = 10  # columns for each row
FEWEST = 10  # rows below which nothing is said of columns
SAMPLE = 100_000  # numbers by which the loss of digits is measured, or as many as 100 rows have
LOSS = 0.01  # of the middle half's range
SMALLEST = float(np.finfo(np.float32).tiny)


def remarks_on(
    found: Found, scale: Scaling | None, labels: Tensor | None, classes: Sequence[str] | None, table: bool
) -> tuple[str, ...]:
    """Remarks on the rows or images as they were read; on single columns only of a `table`, not of features."""
    said: list[str] = []
    if table and scale is not None and len(found.x) >= FEWEST:
        said += _Columns(found, scale).remarks()
    hashes = np.fromiter((hash(row.tobytes()) for row in _rows(found.x)), np.int64, len(found.x))
    repeated = len(hashes) - len(np.unique(hashes))
    if repeated >= 100 or repeated >= max(FEWEST, len(found.x) / 10):
        what = "rows" if found.x.ndim == 2 else "images"
        said.append(f"{repeated:,} of {len(found.x):,} {what} repeat another one")
    return (*said, *_of_labels(labels, classes))


def _rows(x: Array) -> Iterator[Array]:
    if x.ndim != 2:
        yield from x
        return
    for block in row_blocks(x):
        yield from np.ascontiguousarray(block)


class _Columns:
    """The columns of rows `[n, d]`, with the figures that the remarks rest on."""

    def __init__(self, found: Found, scale: Scaling) -> None:
        self.x, self.names, self.scale = found.x, found.columns, scale
        self.low = np.min([block.min(0) for block in row_blocks(self.x)], 0).astype(np.float64)
        self.high = np.max([block.max(0) for block in row_blocks(self.x)], 0).astype(np.float64)
        self.mean, self.deviation = column_figures(self.x)
        self.varied: list[int] = np.flatnonzero(self.low < self.high).tolist()

    def called(self, columns: Sequence[int]) -> str:
        names = [str(self.names[at] if self.names else at) for at in columns]
        counted = "" if self.names else " (counted from 0)"
        return f"column{'s' * (len(names) > 1)} {some(names)}{counted}"

    def remarks(self) -> list[str]:
        (n, d), said = self.x.shape, []
        if d > TRANSPOSED * n:
            said.append(f"{d:,} columns and {n:,} rows: is the table transposed?")
        ids = [at for at in self.varied if self._is_id(at)]
        if ids:
            verb = "tells" if len(ids) == 1 else "tell"
            said.append(f"{self.called(ids)} {verb} rows apart as ids do: named by id:, it is no data")
        said += self._codes()
        said += self._wide([at for at in self.varied if at not in set(ids)])
        lost = self._lost()
        small = [at for at in lost if max(-self.low[at], self.high[at]) < SMALLEST]
        far = [at for at in lost if at not in small]
        if far:
            said.append(f"{self.called(far)}: few far values leave float32 no digits for the others")
        if small:
            said.append(f"{self.called(small)}: too small for float32, which has no digits below {SMALLEST:.0e}")
        constant = d - len(self.varied) if self.names else 0  # without names they may be pixels, and some always are
        return [*said, f"{constant:,} of {d:,} columns are constant"] if constant else said

    def _is_id(self, at: int) -> bool:
        """Whether the column numbers the rows; with a name as ids have, whether it has another whole number in each."""
        n, named = len(self.x), bool(self.names) and bool(ID_NAME.fullmatch(str(self.names[at])))
        if not named and self.high[at] - self.low[at] != n - 1:
            return False
        values = np.sort(self.x[:, at].astype(np.float64))
        steps = np.diff(values)
        return bool((steps == 1).all() or (named and (steps > 0).all() and (values == np.round(values)).all()))

    def _codes(self) -> list[str]:
        """Values at a column's end that stand apart from all others, and repeat or are known as codes."""
        found: dict[float, list[int]] = {}
        times: Counter[float] = Counter()
        for at in self.varied:
            for end in (self.low[at], self.high[at]):
                count = self._apart(at, end)
                if count:
                    found.setdefault(end, []).append(at)
                    times[end] += count
        return [
            f"{value:g} stands {_often(times[value])} in {self.called(columns)}, far from the rest: a missing value?"
            for value, columns in found.items()
        ]

    def _apart(self, at: int, end: float) -> int:
        """How often the value stands in the column, if it is like a code; else 0."""
        known = end in CODES
        # A value that often is further than this is no outlier, and need not be counted.
        if not known and abs(end - self.mean[at]) < self.deviation[at]:
            return 0
        column = self.x[:, at].astype(np.float64)
        rest = column[column != end]
        count, gap, width = len(column) - len(rest), float(np.abs(rest - end).min()), float(np.ptp(rest))
        if known and (end < 0 or count > 1) and width > 0 and gap >= width:
            return count
        several = 1 < count <= len(column) / 2 and gap > 2 * width > 0
        return count if several and len(np.unique(rest)) >= FEWEST else 0

    def _wide(self, columns: Sequence[int]) -> list[str]:
        if len(columns) < 2:
            return []
        deviation = self.deviation[columns]
        ratio = deviation / np.sort(deviation)[(len(columns) - 1) // 2]
        wide = [at for at, one in zip(columns, ratio, strict=True) if one > WIDE]
        if not wide:
            return []
        evened = self.scale.how in ("standardise", "minmax")
        why = "which scaling evens out" if evened else "and nearly alone decides distances"
        return [f"{self.called(wide)} varies {ratio.max():,.0f} times as much as the others, {why}"]

    def _lost(self) -> list[int]:
        """Columns whose middle half differs by less than what is lost when they become float32."""
        rows = max(100, SAMPLE // self.x.shape[1])
        some_rows = self.x[:: max(1, len(self.x) // rows)].astype(np.float64)
        shift, width = self.scale.shift, self.scale.width
        true = (some_rows - shift) / width
        rounded = (as_rounded(some_rows, self.scale.exact) - shift) / width
        middle = np.ptp(np.quantile(true, [0.25, 0.75], axis=0), axis=0)
        error = np.median(np.abs(rounded.astype(np.float32) - true), axis=0)
        lost: list[int] = np.flatnonzero((middle > 0) & (error > LOSS * middle)).tolist()
        return lost


def _often(n: int) -> str:
    return "once" if n == 1 else f"{n:,} times"


def _of_labels(labels: Tensor | None, classes: Sequence[str] | None) -> Iterator[str]:
    if labels is None or classes is None:
        return
    sizes, k = labels.bincount(minlength=len(classes)), len(classes)
    alone = int((sizes == 1).sum())
    if k == len(labels):
        yield "every label is different: are they ids?"
    elif alone:
        yield f"{alone:,} of {k:,} classes {'has' if alone == 1 else 'have'} one row"
    missing = [name for name in classes if name.strip().lower() in NO_LABEL]
    if missing:
        yield f"a class is called {some(missing)}: a missing label?"
    folded = Counter(name.casefold() for name in classes)
    alike = [name for name in classes if folded[name.casefold()] > 1]
    if alike:
        yield f"classes {some(alike)} differ in capitals alone"
