"""A space whose preset is made for the user's own data."""

from __future__ import annotations

from raymc.datasets import Dataset
from raymc.methods.base import Facts
from raymc.space.space import Space
from raymc.training.features.data import Setting, load_data
from raymc.training.smoke import limited


def sized_for(space: Space, dataset: Dataset, smoke: bool = False) -> Space:
    """The space with its preset made for the user's own data `dataset`. Raises InputError."""
    return space.sized(Facts.of(limited(dataset, space.config())), ranges=not smoke)


def sized(space: Space, data: str | None, setting: Setting, smoke: bool = False) -> Space:
    """The space with its preset made for its data, which are read for it where the user brought them.

    An encoder's features are computed for that where the store lacks them, with `smoke` few of them. Raises InputError
    for data that cannot be read.
    """
    if space.own is None or space.sizing is None:
        return space
    return sized_for(space, load_data(space.config(), data, setting, smoke), smoke)
