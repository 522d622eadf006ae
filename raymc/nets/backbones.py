"""Backbones by name: residual nets, ELU nets for vectors, a small convolutional net for 8x8 digits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from raymc.config import nearest
from raymc.errors import InputError
from raymc.nets.resnet import RESNET10, RESNET18, RESNET34, cifar_resnet, pooled_resnet


@dataclass(frozen=True)
class Net:
    """What is known of a backbone before it is built.

    Attributes:
        build: input shape without the batch -> net, initialised from torch's global generator.
        out_dim: width of its output `[b, out_dim]`, the papers' "pool" feature.
        channels: channels of the images that it takes; None: it takes vectors of any width.
    """

    build: Callable[[tuple[int, ...]], nn.Module]
    out_dim: int
    channels: int | None


class Backbone(nn.Module):
    """A net with the width of its output: `[b, ...]` float (images already normalised) -> `[b, out_dim]`."""

    def __init__(self, net: nn.Module, out_dim: int) -> None:
        super().__init__()
        self.net = net
        self.out_dim = out_dim

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


def elu_mlp(in_dim: int, width: int, depth: int) -> nn.Sequential:
    """`depth` times Linear-ELU: `[b, in_dim]` -> `[b, width]` (NMCE section 4: "a MLP backbone, ELU")."""
    layers: list[nn.Module] = []
    for index in range(depth):
        layers += [nn.Linear(width if index else in_dim, width), nn.ELU()]
    return nn.Sequential(*layers)


def conv_net(channels: int, widths: tuple[int, ...]) -> nn.Sequential:
    """3x3 convolutions with BatchNorm and ReLU, all but the first of stride 2, then the mean over pixels.

    `[b, channels, h, w]` -> `[b, widths[-1]]`.
    """
    layers: list[nn.Module] = []
    for index, width in enumerate(widths):
        planes = widths[index - 1] if index else channels
        layers.append(nn.Conv2d(planes, width, 3, stride=2 if index else 1, padding=1, bias=False))
        layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(1))


BACKBONES = {
    "resnet18_cifar": Net(lambda shape: cifar_resnet(RESNET18), 512, 3),
    "resnet34_cifar": Net(lambda shape: cifar_resnet(RESNET34), 512, 3),
    "resnet18_stl": Net(lambda shape: pooled_resnet(RESNET18, 3, 64), 512, 3),
    "resnet34_stl": Net(lambda shape: pooled_resnet(RESNET34, 3, 64), 512, 3),
    "resnet18_grey": Net(lambda shape: pooled_resnet(RESNET18, 1, 32), 256, 1),
    "resnet10_grey": Net(lambda shape: pooled_resnet(RESNET10, 1, 32), 256, 1),
    "conv_digits": Net(lambda shape: conv_net(1, (32, 64, 128)), 128, 1),
    "conv_colour": Net(lambda shape: conv_net(3, (64, 128, 256, 256)), 256, 3),  # for a CPU: 1/11 of ResNet-18
    # MLC's toy (appendix D.1): one hidden layer of 100.
    "relu_100": Net(lambda shape: nn.Sequential(nn.Linear(shape[0], 100), nn.ReLU()), 100, None),
    # Five hidden layers of 128 are the published spiral net; the paper gives no sizes for the synthetic one.
    "mlp_spiral": Net(lambda shape: elu_mlp(shape[0], 128, 5), 128, None),
    "mlp_synthetic": Net(lambda shape: elu_mlp(shape[0], 128, 3), 128, None),
    "mlp": Net(lambda shape: elu_mlp(shape[0], 128, 3), 128, None),
}


def build_backbone(name: str, input_shape: tuple[int, ...]) -> Backbone:
    """The backbone `name` for samples of `input_shape` (`(d,)` or `(c, h, w)`), untrained.

    Initialised from torch's global generator. Raises InputError as `check_backbone` does.
    """
    check_backbone(name, input_shape)
    net = BACKBONES[name]
    return Backbone(net.build(input_shape), net.out_dim)


def check_backbone(name: str, input_shape: tuple[int, ...]) -> None:
    """Raises InputError for an unknown name, naming the nearest known one, and for samples that it cannot take."""
    net = _known(name)
    shape = "x".join(map(str, input_shape))
    if net.channels is None and len(input_shape) != 1:
        raise InputError(f"backbone {name} takes vectors; the samples are {shape}")
    if net.channels is not None and (len(input_shape) != 3 or input_shape[0] != net.channels):
        kind = "grey" if net.channels == 1 else "colour"
        raise InputError(f"backbone {name} takes {kind} images ({net.channels}xHxW); the samples are {shape}")


def backbone_width(name: str) -> int:
    """Width of the backbone's output; raises InputError for an unknown name."""
    return _known(name).out_dim


def _known(name: str) -> Net:
    if name not in BACKBONES:
        raise InputError(f"unknown backbone {name}{nearest(name, BACKBONES)} (known: {', '.join(BACKBONES)})")
    return BACKBONES[name]
