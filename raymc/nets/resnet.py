"""Residual nets for small images: torchvision's own with the CIFAR stem, and the two other stems of NMCE.

All take float images `[b, c, h, w]` and give `[b, 8 * width]` after global average pooling.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

RESNET10 = (1, 1, 1, 1)
RESNET18 = (2, 2, 2, 2)
RESNET34 = (3, 4, 6, 3)


def cifar_resnet(blocks: Sequence[int]) -> nn.Module:
    """torchvision's ResNet with a 3x3 first layer of stride 1, no max-pooling and no classifier (NMCE B.3).

    Initialised as torchvision does (He, fan out), but for the new first layer: it has PyTorch's default, as
    in the published code.
    """
    from torchvision.models.resnet import BasicBlock, ResNet  # seconds to import, which other nets need not wait for

    net: nn.Module = ResNet(BasicBlock, list(blocks))
    net.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    net.maxpool = nn.Identity()
    net.fc = nn.Identity()
    return net


def pooled_resnet(blocks: Sequence[int], channels: int, width: int) -> nn.Module:
    """ResNet with a 5x5 first layer of stride 2, max-pooling, `width` filters in the first stage (NMCE B.3).

    torchvision's blocks under torchvision's names; its ResNet class has 64 filters only. PyTorch's default
    initialisation, as in the published code.
    """
    layers: list[tuple[str, nn.Module]] = [
        ("conv1", nn.Conv2d(channels, width, kernel_size=5, stride=2, padding=2, bias=False)),
        ("bn1", nn.BatchNorm2d(width)),
        ("relu", nn.ReLU(inplace=True)),
        ("maxpool", nn.MaxPool2d(kernel_size=3, stride=2, padding=1)),
    ]
    planes = width
    for index, count in enumerate(blocks):
        wider = width * 2**index
        layers.append((f"layer{index + 1}", _stage(planes, wider, count)))
        planes = wider
    layers += [("avgpool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten(1))]
    return nn.Sequential(OrderedDict(layers))


def _stage(planes: int, wider: int, count: int) -> nn.Sequential:
    """`count` blocks; the first one halves the image and widens it, except in the first stage."""
    from torchvision.models.resnet import BasicBlock

    first = BasicBlock(planes, wider)
    if wider != planes:
        shortcut = nn.Sequential(nn.Conv2d(planes, wider, kernel_size=1, stride=2, bias=False), nn.BatchNorm2d(wider))
        first = BasicBlock(planes, wider, stride=2, downsample=shortcut)
    return nn.Sequential(first, *(BasicBlock(wider, wider) for _ in range(count - 1)))
