"""Backbones by name: residual nets, nets for vectors, small convolutional nets, and those that a user brings."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from raymc.config import nearest
from raymc.errors import InputError
from raymc.nets.resnet import RESNET10, RESNET18, RESNET34, cifar_resnet, pooled_resnet
from raymc.nets.user_nets import TIMM, build_named, is_named, named_width


class Asked(NamedTuple):
    """What a net is built for: samples of `shape`, `(d,)` or `(c, h, w)`; `mlp_width` and `mlp_depth` of dense nets."""

    shape: tuple[int, ...]
    mlp_width: int = 128
    mlp_depth: int = 3

    @property
    def numbers(self) -> int:
        """Those of one sample."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Net:
    """What is known of a backbone before it is built.

    Attributes:
        build: net, initialised from torch's global generator.
        width: of its output `[b, m]`, the papers' "pool" feature.
        channels: channels of the images that it takes; None: it takes vectors of any width.
        flattens: it takes images too, as vectors of their pixels.
    """

    build: Callable[[Asked], nn.Module]
    width: Callable[[Asked], int]
    channels: int | None = None
    flattens: bool = False


class Backbone(nn.Module):
    """A net with the width of its output: `[b, ...]` float (images already normalised) -> `[b, out_dim]`.

    `keyed_as`: a name that stands in keys, for what the layers do not show of another package's net.
    """

    def __init__(self, net: nn.Module, out_dim: int, keyed_as: str = "") -> None:
        super().__init__()
        self.net = net
        self.out_dim = out_dim
        self.keyed_as = keyed_as

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


def elu_mlp(in_dim: int, width: int, depth: int) -> nn.Sequential:
    """`depth` times Linear-ELU: `[b, in_dim]` -> `[b, width]` (NMCE section 4: "a MLP backbone, ELU")."""
    layers: list[nn.Module] = []
    for index in range(depth):
        layers += [nn.Linear(width if index else in_dim, width), nn.ELU()]
    return nn.Sequential(*layers)


def bn_mlp(in_dim: int, width: int, depth: int) -> nn.Sequential:
    """Linear-BatchNorm-ReLU, then `depth - 1` times Linear-ReLU: `[b, in_dim]` -> `[b, width]` (CPP's, of depth 2)."""
    layers: list[nn.Module] = [nn.Linear(in_dim, width), nn.BatchNorm1d(width), nn.ReLU()]
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), nn.ReLU()]
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


def _flat(asked: Asked, net: nn.Sequential) -> nn.Module:
    """The net behind a layer that flattens images."""
    return net if len(asked.shape) == 1 else nn.Sequential(nn.Flatten(1), *net)


def _images(build: Callable[[], nn.Module], width: int, channels: int) -> Net:
    return Net(lambda asked: build(), lambda asked: width, channels)


def _vectors(build: Callable[[int], nn.Module], width: int) -> Net:
    return Net(lambda asked: build(asked.shape[0]), lambda asked: width)


def _sized(build: Callable[[int, int, int], nn.Sequential]) -> Net:
    def net(asked: Asked) -> nn.Module:
        return _flat(asked, build(asked.numbers, asked.mlp_width, asked.mlp_depth))

    return Net(net, lambda asked: asked.mlp_width, flattens=True)


BACKBONES = {
    "resnet18_cifar": _images(lambda: cifar_resnet(RESNET18), 512, 3),
    "resnet34_cifar": _images(lambda: cifar_resnet(RESNET34), 512, 3),
    "resnet18_stl": _images(lambda: pooled_resnet(RESNET18, 3, 64), 512, 3),
    "resnet34_stl": _images(lambda: pooled_resnet(RESNET34, 3, 64), 512, 3),
    "resnet10_colour": _images(lambda: pooled_resnet(RESNET10, 3, 32), 256, 3),
    "resnet18_grey": _images(lambda: pooled_resnet(RESNET18, 1, 32), 256, 1),
    "resnet10_grey": _images(lambda: pooled_resnet(RESNET10, 1, 32), 256, 1),
    "conv_digits": _images(lambda: conv_net(1, (32, 64, 128)), 128, 1),
    "conv_colour": _images(lambda: conv_net(3, (64, 128, 256, 256)), 256, 3),  # for a CPU: 1/11 of ResNet-18
    # MLC's toy (appendix D.1): one hidden layer of 100.
    "relu_100": _vectors(lambda d: nn.Sequential(nn.Linear(d, 100), nn.ReLU()), 100),
    # Five hidden layers of 128 are the published spiral net; the paper gives no sizes for the synthetic one.
    "mlp_spiral": _vectors(lambda d: elu_mlp(d, 128, 5), 128),
    "mlp_synthetic": _vectors(lambda d: elu_mlp(d, 128, 3), 128),
    "mlp": _sized(elu_mlp),
    "mlp_bn": _sized(bn_mlp),
    # The samples themselves, for features that an encoder made.
    "identity": Net(lambda asked: nn.Flatten(1), lambda asked: asked.numbers, flattens=True),
}


def build_backbone(name: str, input_shape: tuple[int, ...], mlp_width: int = 128, mlp_depth: int = 3) -> Backbone:
    """The backbone `name` for samples of `input_shape` (`(d,)` or `(c, h, w)`), untrained.

    `mlp_width` and `mlp_depth` are those of `mlp` and `mlp_bn`. Initialised from torch's global generator. Raises
    InputError as `check_backbone` does.
    """
    check_backbone(name, input_shape)
    width = backbone_width(name, input_shape, mlp_width)
    if is_named(name):
        return Backbone(build_named(name, input_shape), width, keyed_as=name if name.startswith(TIMM) else "")
    return Backbone(BACKBONES[name].build(Asked(input_shape, mlp_width, mlp_depth)), width)


def check_backbone(name: str, input_shape: tuple[int, ...]) -> None:
    """Raises InputError for an unknown name, naming the nearest known one, and for samples that it cannot take."""
    if is_named(name):
        named_width(name, input_shape)
        return
    net = _known(name)
    shape = "x".join(map(str, input_shape))
    if net.channels is None and len(input_shape) != 1 and not net.flattens:
        raise InputError(f"backbone {name} takes vectors; the samples are {shape}")
    if net.channels is not None and (len(input_shape) != 3 or input_shape[0] != net.channels):
        kind = "grey" if net.channels == 1 else "colour"
        raise InputError(f"backbone {name} takes {kind} images ({net.channels}xHxW); the samples are {shape}")


def backbone_width(name: str, input_shape: tuple[int, ...], mlp_width: int = 128) -> int:
    """Width of the backbone's output for samples of `input_shape`; raises InputError for an unknown name."""
    return named_width(name, input_shape) if is_named(name) else _known(name).width(Asked(input_shape, mlp_width))


def _known(name: str) -> Net:
    if name not in BACKBONES:
        others = "package.module:function, timm:NAME"
        raise InputError(f"unknown backbone {name}{nearest(name, BACKBONES)} (known: {', '.join(BACKBONES)}; {others})")
    return BACKBONES[name]
