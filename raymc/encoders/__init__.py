"""Frozen encoders by name: `load("efficientnet_lite2")`, `load("timm:resnet18.a1_in1k", weights=path)`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch

from raymc.config import nearest
from raymc.encoders.base import Asked, Encoder, Preprocessing
from raymc.encoders.efficientnet_lite import SCALES, load_packaged
from raymc.encoders.files import offline
from raymc.encoders.open_clip_models import load_open_clip
from raymc.encoders.sentence_models import load_sentences
from raymc.encoders.timm_models import load_timm
from raymc.encoders.torchvision_models import load_torchvision
from raymc.encoders.transformers_models import load_transformers
from raymc.errors import InputError

__all__ = ["Encoder", "Preprocessing", "check_name", "load"]

PACKAGED = tuple(SCALES)
LIBRARIES: dict[str, tuple[str, Callable[[Asked], Encoder]]] = {
    "torchvision": ("NAME", load_torchvision),
    "timm": ("NAME", load_timm),
    "open_clip": ("NAME/TAG", load_open_clip),
    "transformers": ("ID", load_transformers),
    "sentence_transformers": ("ID", load_sentences),
}
"""By library: what stands behind the colon, and what loads it."""

KNOWN = (*PACKAGED, *(f"{library}:{words}" for library, (words, _) in LIBRARIES.items()))


def check_name(name: str) -> None:
    """Raises InputError where `name` is no encoder's, whether or not its library has it."""
    library, colon, model = name.partition(":")
    if name not in PACKAGED and not (colon and library in LIBRARIES and model):
        close = nearest(library, LIBRARIES) if colon else nearest(name, PACKAGED)
        raise InputError(f"unknown encoder {name}{close} (known: {', '.join(KNOWN)})")


def load(name: str, weights: str | None = None, side: int | None = None, download: bool = False) -> Encoder:
    """The encoder `name` in eval mode on the CPU, in float32; no code but its library's is run.

    Args:
        weights: a file, or for models of huggingface.co a folder, in place of the package's or the cache's.
        side: pixels of the input in place of the encoder's own.
        download: fetch what is not there; else nothing is asked of the network.

    Raises InputError for an unknown name, a library that is not installed, weights that are missing, torn or of another
    net, and a side that the net does not take.
    """
    check_name(name)
    library, _, model = name.partition(":")
    place = None if weights is None else Path(weights).expanduser()
    if place is not None and not place.exists():
        raise InputError(f"{place} is missing; expected: the weights of {name}")
    loader = load_packaged if name in PACKAGED else LIBRARIES[library][1]
    try:
        with nullcontext() if download else offline(name):
            encoder = loader(Asked(name, model, place, download))
    except ImportError as error:
        raise InputError(f"encoder {name} needs the package {error.name or library}, which is not installed") from error
    encoder.module.requires_grad_(False).float().eval()
    return encoder if side is None else _resized(encoder, side)


def _resized(encoder: Encoder, side: int) -> Encoder:
    """The encoder for another side. Raises InputError where it takes texts, or images of its own size alone."""
    if encoder.preprocessing is None:
        raise InputError(f"side: {encoder.name} takes texts")
    changed = dataclasses.replace(encoder, preprocessing=encoder.preprocessing.with_side(side))
    try:
        with torch.inference_mode():
            changed.encode(torch.zeros(1, 3, side, side))
    except Exception as error:  # a net's own words
        own = encoder.preprocessing.side
        raise InputError(f"side: {encoder.name} takes no images of {side} pixels, its own are of {own}") from error
    return changed
