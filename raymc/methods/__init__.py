"""The clustering methods by name."""

from raymc.methods import nmce
from raymc.methods.base import Method

METHODS: dict[str, Method] = {"nmce": nmce.METHOD}

__all__ = ["METHODS", "Method"]
