"""The clustering methods by name."""

from raymc.methods import gcml, mlc, nmce, plain, turtle
from raymc.methods.base import Method

METHODS: dict[str, Method] = {
    one.name: one for one in (nmce.METHOD, mlc.METHOD, gcml.METHOD, plain.METHOD, turtle.METHOD)
}

__all__ = ["METHODS", "Method"]
