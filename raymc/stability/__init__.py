"""One or several configurations on many seeds, and the papers' tables. `python -m raymc.stability` is `__main__`."""

from raymc.commands.stability import parser, run

__all__ = ["parser", "run"]
