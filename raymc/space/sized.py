"""A space whose preset is made for the user's own data."""

from __future__ import annotations

from raymc.methods.base import Facts
from raymc.space.space import Space
from raymc.training.features.data import Setting, load_data
from raymc.training.smoke import limited


def sized(space: Space, data: str | None, setting: Setting, smoke: bool = False) -> Space:
    """The space with its preset made for its data, which are read for it where the user brought them.

    An encoder's features are computed for that where the store lacks them, with `smoke` few of them. Raises InputError
    for data that cannot be read.
    """
    if space.own is None or space.sizing is None:
        return space
    config = space.config()
    return space.sized(Facts.of(limited(load_data(config, data, setting, smoke), config)), ranges=not smoke)
