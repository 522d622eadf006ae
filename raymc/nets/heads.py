"""Layers behind a backbone: the pre-feature layer and the unit-norm linear heads for z."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class UnitLinear(nn.Linear):
    """Linear layer whose output rows have length 1: `[b, in]` -> `[b, out]`.

    Normalised in float32 where the layer ran in half precision: the rates need unit rows to more digits.
    """

    def forward(self, input: Tensor) -> Tensor:
        z = super().forward(input)
        return nn.functional.normalize(z.to(torch.promote_types(z.dtype, torch.float32)), dim=1)


def pre_feature_layer(in_dim: int, width: int) -> nn.Module:
    """Linear-BatchNorm-ReLU to `width` features (NMCE section 4: 4096); the identity at width 0."""
    if width == 0:
        return nn.Identity()
    return nn.Sequential(nn.Linear(in_dim, width), nn.BatchNorm1d(width), nn.ReLU())
