"""Randomness that depends on words alone: seed, stage, epoch, step and purpose.

All draws happen on the CPU for the global batch, so they are the same on any device and any number of workers.
"""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass

import torch


def derive_seed(*words: str | int) -> int:
    """A 63-bit seed that changes with each of `words`."""
    text = "\x1f".join(map(str, words)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def generator(*words: str | int) -> torch.Generator:
    """A CPU generator seeded by `derive_seed(*words)`."""
    return torch.Generator().manual_seed(derive_seed(*words))


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
