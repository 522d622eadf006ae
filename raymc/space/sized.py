"""A space whose preset is made for the user's own data."""

from __future__ import annotations

from raymc.methods.base import Facts
from raymc.space.space import Params, Space
from raymc.training.features.data import Setting, load_data
from raymc.training.smoke import limited


def sized(space: Space, data: str | None, storage: str, overrides: Params | None = None) -> Space:
    """The space with its preset made for its data, which are read for it where the user brought them.

    Raises InputError for data that cannot be read.
    """
    if space.own is None or space.sizing is None:
        return space
    config = space.config(overrides)
    return space.sized(Facts.of(limited(load_data(config, data, Setting(storage)), config)))
