"""The clustering methods by name."""

from raymc.methods import mlc, nmce
from raymc.methods.base import Method

METHODS: dict[str, Method] = {"nmce": nmce.METHOD, "mlc": mlc.METHOD}

__all__ = ["METHODS", "Method"]
