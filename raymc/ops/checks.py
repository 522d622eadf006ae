"""Checks of numbers that lie on a device: at once, or all together at the end of an epoch.

Whoever reads a number from an accelerator waits for all that it has to do. Within `deferred_checks` the largest number
that a check saw stays there, and all are read at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from torch import Tensor

from raymc.errors import DivergedError


@dataclass(frozen=True)
class Limit:
    """How large a number may be, and what is said of one that is larger, or not a number."""

    largest: float
    too_large: str
    not_finite: str

    def allows(self, value: float) -> bool:
        """Raises DivergedError for NaN."""
        if math.isnan(value):
            raise DivergedError(self.not_finite)
        return value <= self.largest

    def check(self, value: float) -> None:
        """Raises DivergedError where the value is not allowed."""
        if not self.allows(value):
            raise DivergedError(self.too_large)


Deferred = dict[Limit, Tensor]
"""The largest number that each check saw, a scalar on its device."""

_deferred: ContextVar[Deferred | None] = ContextVar("deferred", default=None)


@contextmanager
def deferred_checks() -> Iterator[Deferred]:
    """Checks of what is on an accelerator are collected: the caller reads them, and calls `Limit.check`."""
    checks: Deferred = {}
    token = _deferred.set(checks)
    try:
        yield checks
    finally:
        _deferred.reset(token)


def deferred_on(x: Tensor) -> Deferred | None:
    """Where checks of `x` go; None: they are read at once, which costs nothing on a CPU.

    Asked for in the forward: autograd's threads know of no `deferred_checks`.
    """
    return None if x.device.type == "cpu" else _deferred.get()


def passes(value: Tensor, limit: Limit, deferred: Deferred | None, expected: bool) -> bool:
    """Whether the scalar `value` is within the limit; with `deferred` what is `expected`, and true is checked later."""
    if deferred is None:
        return limit.allows(float(value))
    if expected:
        if limit in deferred:
            worst = deferred[limit]
            worst.copy_(worst.maximum(value))  # in place, so that a captured CUDA graph does so too
        else:
            deferred[limit] = value
    return expected
