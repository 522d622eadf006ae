"""`timm:NAME`: the pooled features of a timm model before its classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from raymc.encoders.base import Asked, Encoder, Preprocessing
from raymc.encoders.files import hub_file, load_strictly, read_state, url_file
from raymc.errors import InputError

FILES = ("model.safetensors", "pytorch_model.bin")


def load_timm(asked: Asked) -> Encoder:
    """The model `asked.model`, as `resnet18.a1_in1k`, with weights from the user's cache or a file."""
    import timm

    try:
        net = timm.create_model(asked.model, pretrained=False)
    except RuntimeError as error:
        raise InputError(f"timm has no model {asked.model} ({str(error).splitlines()[0]})") from error
    given: dict[str, Any] = net.pretrained_cfg
    path = asked.weights or _cached(asked, given)
    load_strictly(net, read_state(path), path, asked.name)
    net.reset_classifier(0)
    data = timm.data.resolve_model_data_config(net)
    side = data["input_size"][1]
    interpolation = data["interpolation"] if data["interpolation"] in ("bicubic", "bilinear") else "bicubic"
    resize = round(side / data["crop_pct"])
    preprocessing = Preprocessing(side, resize, interpolation, tuple(data["mean"]), tuple(data["std"]))
    return Encoder(asked.name, net, net, preprocessing, str(path))


def _cached(asked: Asked, given: dict[str, Any]) -> Path:
    if given.get("hf_hub_id"):
        return hub_file(asked.name, given["hf_hub_id"], FILES, asked.download)
    if given.get("url"):
        return url_file(asked.name, given["url"], Path(torch.hub.get_dir()) / "checkpoints", asked.download)
    raise InputError(f"encoder {asked.name}: timm knows no weights of it; name a file by weights")
