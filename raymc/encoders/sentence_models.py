"""`sentence_transformers:ID`: texts as vectors."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from raymc.encoders.base import Asked, Encoder
from raymc.encoders.transformers_models import absent, place_of


def load_sentences(asked: Asked) -> Encoder:
    """The model `asked.model` from the user's cache, or of a folder that its `save` wrote."""
    import sentence_transformers
    import transformers

    place = place_of(asked)
    transformers.utils.logging.disable_progress_bar()
    try:
        net = sentence_transformers.SentenceTransformer(
            place, device="cpu", local_files_only=not asked.download, trust_remote_code=False
        )
    except Exception as error:  # each file of a model has errors of its own
        raise absent(asked, place, error) from error

    def encode(texts: Any) -> Tensor:
        found: Tensor = net.encode(texts, batch_size=len(texts), show_progress_bar=False, convert_to_tensor=True)
        return found

    return Encoder(asked.name, net, encode, None, place)
