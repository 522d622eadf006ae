"""Every dataset that raymc knows: counts, where its files belong, how it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from raymc.config import nearest
from raymc.datasets import synthetic
from raymc.datasets.base import Dataset, data_root
from raymc.errors import InputError


@dataclass(frozen=True)
class Source:
    """What is known of a dataset before its files are read.

    Attributes:
        samples: sizes of train and test.
        shape: of one sample.
        load: `root -> Dataset`; raises InputError naming the file that is absent or wrong.
    """

    name: str
    samples: tuple[int, ...]
    classes: int
    shape: tuple[int, ...]
    load: Callable[[Path], Dataset]


_SOURCES = (
    Source("double_spiral", (4096,), 2, (2,), lambda root: synthetic.double_spiral(0.1, "double_spiral")),
    Source("manifolds", (4096,), 2, (16,), lambda root: synthetic.manifolds(True, "manifolds")),
    Source(
        "double_spiral_paper",
        (4096,),
        2,
        (2,),
        lambda root: synthetic.double_spiral(0.05, "double_spiral_paper"),
    ),
    Source(
        "manifolds_unidentifiable",
        (4096,),
        2,
        (16,),
        lambda root: synthetic.manifolds(False, "manifolds_unidentifiable"),
    ),
    Source("digits", (1437, 360), 10, (1, 8, 8), synthetic.digits),
)
SOURCES = {source.name: source for source in _SOURCES}
NAMES = tuple(SOURCES)


def load(name: str, root: str | None = None) -> Dataset:
    """The dataset `name` from the folder `root` (None: RAYMC_DATA, else the user's cache folder).

    Raises InputError for an unknown name, and for files that are absent, torn or not what they should be.
    """
    if name not in SOURCES:
        raise InputError(f"unknown dataset {name}{nearest(name, NAMES)} (known: {', '.join(NAMES)})")
    return SOURCES[name].load(data_root(root))
