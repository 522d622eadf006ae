"""Randomness that depends on words alone: seed, stage, epoch, step and purpose.

All draws happen on the CPU for the global batch, so they are the same on any device and any number of workers.
"""

from __future__ import annotations

import hashlib

import torch


def derive_seed(*words: str | int) -> int:
    """A 63-bit seed that changes with each of `words`."""
    text = "\x1f".join(map(str, words)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def seed32(seed: int) -> int:
    """A seed below 2^32, as scikit-learn and openTSNE want it; those below stay, larger ones lose their upper bits."""
    return seed % 2**32


def generator(*words: str | int) -> torch.Generator:
    """A CPU generator seeded by `derive_seed(*words)`."""
    return torch.Generator().manual_seed(derive_seed(*words))
