"""`torchvision:NAME`: the input of the last linear layer of a torchvision classifier."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from raymc.config import nearest
from raymc.encoders.base import Asked, Encoder, Preprocessing
from raymc.encoders.files import load_strictly, read_state, url_file
from raymc.errors import InputError


def load_torchvision(asked: Asked) -> Encoder:
    """The classifier `asked.model` with its default weights, from torch's cache, or those of a file."""
    from torchvision import models

    known = models.list_models(models)
    if asked.model not in known:
        raise InputError(f"torchvision has no classifier {asked.model}{nearest(asked.model, known)}")
    default = models.get_model_weights(asked.model).DEFAULT
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    path = asked.weights or url_file(asked.name, default.url, cache, asked.download)
    net = models.get_model(asked.model, weights=None)
    load_strictly(net, read_state(path), path, asked.name)
    _drop_classifier(net)
    given = default.transforms()
    side, resize = given.crop_size[0], given.resize_size[0]
    interpolation = "bicubic" if "bicubic" in str(given.interpolation).lower() else "bilinear"
    preprocessing = Preprocessing(side, resize, interpolation, tuple(given.mean), tuple(given.std))
    return Encoder(asked.name, net, net, preprocessing, str(path))


def _drop_classifier(net: nn.Module) -> None:
    """Let the last linear layer, which gives a class's score, hand on what it is given."""
    last = [name for name, module in net.named_modules() if isinstance(module, nn.Linear)][-1]
    owner, _, name = last.rpartition(".")
    setattr(net.get_submodule(owner), name, nn.Identity())
