"""The clustering methods by name."""

from raymc.methods import gcml, mlc, nmce
from raymc.methods.base import Method

METHODS: dict[str, Method] = {"nmce": nmce.METHOD, "mlc": mlc.METHOD, "gcml": gcml.METHOD}

__all__ = ["METHODS", "Method"]
