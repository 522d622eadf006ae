"""`transformers:ID`: the pooled features of an image model of the transformers library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from raymc.encoders.base import Asked, Encoder, Preprocessing
from raymc.encoders.files import elsewhere
from raymc.errors import InputError


def load_transformers(asked: Asked) -> Encoder:
    """The model `asked.model` from the user's cache, or of a folder that `save_pretrained` wrote."""
    import transformers

    place = place_of(asked)
    options: dict[str, Any] = {"local_files_only": not asked.download, "trust_remote_code": False}
    transformers.utils.logging.disable_progress_bar()
    try:
        found, report = transformers.AutoModel.from_pretrained(
            place, output_loading_info=True, weights_only=True, **options
        )
        processor = transformers.AutoImageProcessor.from_pretrained(place, **options)
    except Exception as error:  # each file of a model has errors of its own
        raise absent(asked, place, error) from error
    lacking = [key for key in report["missing_keys"] if "pooler" not in key]
    if lacking or report["mismatched_keys"]:
        wrong = [*lacking, *report["mismatched_keys"]]
        raise InputError(
            f"{place} is of another net than its own configuration says: {len(wrong)} weights ({wrong[0]})"
        )
    pooled = not report["missing_keys"]  # else its weights would be random ones
    return Encoder(asked.name, found, _features(found, pooled), _preprocessing(processor), place)


def place_of(asked: Asked) -> str:
    """The folder given as weights, else the model's name in the cache.

    Raises InputError where that name is a folder here, which a library would read in the cache's place.
    """
    if asked.weights is None and Path(asked.model).expanduser().exists():
        raise InputError(f"encoder {asked.name}: {asked.model} is a folder or file here; give such by weights")
    return str(asked.weights or asked.model)


def _features(net: Any, pooled: bool) -> Callable[[Tensor], Tensor]:
    """What the model itself pools; without that the class token, or the mean over the pixels."""

    def encode(x: Tensor) -> Tensor:
        out = net.get_image_features(pixel_values=x) if hasattr(net, "get_image_features") else net(pixel_values=x)
        if isinstance(out, Tensor):
            return out
        given = getattr(out, "pooler_output", None)
        if pooled and given is not None:
            flat: Tensor = given.flatten(1)
            return flat
        last: Tensor = out.last_hidden_state
        return last[:, 0] if last.dim() == 3 else last.mean((2, 3))

    return encode


def _preprocessing(processor: Any) -> Preprocessing:
    size, crop = dict(processor.size), dict(getattr(processor, "crop_size", None) or {})
    resize = size.get("shortest_edge") or size["height"]
    side = crop.get("height") if getattr(processor, "do_center_crop", False) else None
    interpolation = "bilinear" if int(processor.resample) == 2 else "bicubic"  # Pillow's numbers
    mean, std = tuple(processor.image_mean), tuple(processor.image_std)
    return Preprocessing(side or resize, resize, interpolation, mean, std)


def absent(asked: Asked, place: str, error: Exception) -> InputError:
    """The one line on a model that could not be loaded, and on where it was looked for."""
    from huggingface_hub.constants import HF_HUB_CACHE

    reason = " ".join(str(error).split())[:160]
    where = f"{place}" if asked.weights else f"{place} (in the cache {HF_HUB_CACHE})"
    return InputError(f"encoder {asked.name}: {where} could not be loaded: {reason}; {elsewhere(asked.name)}")
