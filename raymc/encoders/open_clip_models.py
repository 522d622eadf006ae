"""`open_clip:NAME/TAG`: the image features of a CLIP model, as its image encoder projects them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from raymc.config import nearest
from raymc.encoders.base import Asked, Encoder, Preprocessing
from raymc.encoders.files import hub_file, load_strictly, read_state, url_file
from raymc.errors import InputError

FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
CACHE = Path("~/.cache/clip")  # where open_clip keeps what it fetched from a plain address


def load_open_clip(asked: Asked) -> Encoder:
    """The model NAME with the pretrained weights TAG, from the user's cache or a file."""
    import open_clip

    model, _, tag = asked.model.partition("/")
    known = open_clip.list_models()
    if model not in known:
        raise InputError(f"open_clip has no model {model}{nearest(model, known)}")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if tag not in tags and (tag or not asked.weights):
        raise InputError(
            f"encoder {asked.name}: {model} has no weights {tag or '(none named)'} (it has: {', '.join(tags)})"
        )
    given: dict[str, Any] = open_clip.get_pretrained_cfg(model, tag) if tag else {}
    quick = bool(given.get("quick_gelu"))  # which approximation of GELU the weights were trained with
    path = asked.weights or _cached(asked, given)
    logging.disable(logging.WARNING)  # it warns of random weights, which those of the file replace
    try:
        net = open_clip.create_model(model, pretrained=None, force_quick_gelu=quick, pretrained_text=False)
    finally:
        logging.disable(logging.NOTSET)
    load_strictly(net, read_state(path), path, asked.name)
    settings = open_clip.get_model_preprocess_cfg(net) | {
        k: given[k] for k in ("mean", "std", "interpolation") if k in given
    }
    size = settings["size"]
    side = size if isinstance(size, int) else size[0]
    preprocessing = Preprocessing(
        side, side, settings["interpolation"], tuple(settings["mean"]), tuple(settings["std"])
    )
    return Encoder(asked.name, net, net.encode_image, preprocessing, str(path))


def _cached(asked: Asked, given: dict[str, Any]) -> Path:
    if given.get("hf_hub"):
        repository, _, file = given["hf_hub"].rpartition("/")
        return hub_file(asked.name, repository, (file,) if file else FILES, asked.download)
    return url_file(asked.name, given["url"], CACHE.expanduser(), asked.download)
