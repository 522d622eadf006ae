"""The pretend GPU, for each test that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.device.pretend import installed
from tests.device.rules import Log


@pytest.fixture
def gpu() -> Iterator[Log]:
    """A pretend GPU and what it is asked for; it is gone after the test."""
    with installed() as log:
        yield log
