"""An encoder whose features a test can compute by hand; and what a worker does with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from raymc.distributed import Workers, world
from raymc.encoders.base import Encoder, Preprocessing
from raymc.storage.stage_store import Store
from raymc.training.features.stage import Features


class Small(nn.Module):
    """The mean of each colour in each quarter of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(x, 2).flatten(1) * self.weight


def small(side: int = 12) -> Encoder:
    net = Small().eval().requires_grad_(False)
    return Encoder("small", net, net, Preprocessing(side, side, "bicubic", (0.0,) * 3, (1.0,) * 3), "nowhere")


def features_of(group: ProcessGroup, x: np.ndarray[Any, Any], storage: str) -> tuple[np.ndarray[Any, Any], int]:
    """The features of the images `x`, and how many of them this worker computed."""
    computed: list[int] = []

    def encode(given: Tensor) -> Tensor:
        computed.append(len(given))
        features: Tensor = encoder.module(given)
        return features

    encoder = small()
    counting = Encoder(encoder.name, encoder.module, encode, encoder.preprocessing, encoder.source)
    features = Features(counting, torch.from_numpy(x), Store(storage), "float32", torch.device("cpu"))
    features.obtain(Workers(*world(group), group), lambda row: None)
    return features.array(), sum(computed)
