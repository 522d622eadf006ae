"""What a seed decides, and seeds that differ by part: for a group of seeds that does not vary everything."""

from __future__ import annotations

from dataclasses import astuple, dataclass

PARTS = ("initialisation", "order", "augmentation", "noise")
"""What a seed decides: first weights, centres, finding clusters; which samples a batch has; views; all other noise."""


@dataclass(frozen=True)
class PartSeeds:
    """A seed for each of `PARTS`, for a group of seeds that does not vary all of them."""

    initialisation: int
    order: int
    augmentation: int
    noise: int


Seed = int | PartSeeds


def part(seed: Seed, name: str) -> int:
    """The seed of one of `PARTS`."""
    return seed if isinstance(seed, int) else int(getattr(seed, name))


def seed_facts(seed: Seed) -> int | list[int]:
    """The seed for JSON and hashes: a number where all parts have the same."""
    parts = [seed] if isinstance(seed, int) else list(astuple(seed))
    return parts[0] if len(set(parts)) == 1 else parts
