"""Encoders and decoders of dense layers, and the centres of clusters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

AUTOENCODERS: dict[str, tuple[int, ...]] = {
    "dense_2000": (500, 500, 500, 2000),  # GCML as published: one layer of 500 more than DEC and IDEC
    "dense_256": (256, 256),  # ours, for the 64 pixels of the digits
    "identity": (),  # the samples are their own embedding
}
"""Widths of an encoder's hidden layers, by the name that the key `backbone` has; the decoder is their mirror."""


class Dense(nn.Linear):
    """A linear layer `[b, i] -> [b, o]`, with a ReLU unless it is the last of a net."""

    def __init__(self, in_dim: int, out_dim: int, relu: bool) -> None:
        super().__init__(in_dim, out_dim)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """`[b, i] -> [b, o]`; the last layer of a net in float32 at least, since distances are taken of it."""
        if self.relu:
            return functional.relu(super().forward(x))
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.weight.dtype))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, relu={self.relu}"


class Centers(nn.Module):
    """Trainable centres `[k, m]`, its output; at first they lie around the origin.

    `first`: the cluster int64 `[n]` of each sample by which the centres were found, while that is still needed.
    """

    def __init__(self, n_clusters: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_clusters, dim))
        self.register_buffer("first", torch.empty(0, dtype=torch.int64))

    first: Tensor

    def forward(self) -> Tensor:
        return self.weight

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        """As every module, but that `first` may have any length."""
        found = state_dict.get(f"{prefix}first")
        if found is not None:
            self.first = self.first.new_empty(found.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def build_encoder(name: str, in_dim: int, out_dim: int) -> nn.Sequential:
    """Samples `[b, ...]` of `in_dim` numbers, flattened, to `[b, out_dim]`; `identity`: flattened only."""
    widths = AUTOENCODERS[name]
    return nn.Sequential(nn.Flatten(1), *(_stack((in_dim, *widths, out_dim)) if widths else ()))


def build_decoder(name: str, in_dim: int, out_dim: int) -> nn.Sequential:
    """The encoder's mirror: `[b, out_dim]` to the flat samples `[b, in_dim]`."""
    return nn.Sequential(*_stack((out_dim, *reversed(AUTOENCODERS[name]), in_dim)))


def _stack(widths: tuple[int, ...]) -> list[nn.Module]:
    pairs = list(zip(widths, widths[1:], strict=False))
    return [Dense(i, o, relu=at < len(pairs) - 1) for at, (i, o) in enumerate(pairs)]
