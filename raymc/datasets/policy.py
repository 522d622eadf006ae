"""The policy of a training: `augmentation` by name, with what `augment.strength`, `.noise` and `.dropout` make of it.

Strength s takes ranges of an image policy s times as far from what changes nothing: area and aspect of a crop, scale,
brightness, contrast and saturation from 1; distortion, angles, shifts, hue, blur and noise from 0. What is done or not
(flip, grey, solarise) is done s times as often, a flip at most every second time. How often a jitter, a blur or a
perspective is drawn stays. At 1 it is the policy itself, at 0 a view is the plain sample.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from raymc.bare_keys import Augment
from raymc.datasets.augmentation import POLICIES, ImagePolicy, Policy
from raymc.datasets.base import Dataset
from raymc.datasets.scaling import column_figures
from raymc.errors import InputError

LEAST_AREA, LEAST_SCALE = 0.02, 0.1  # of what a strength above 1 leaves of a crop and of an affine map's scale


@dataclass(frozen=True, eq=False)
class VectorPolicy:
    """Views of vectors by the policy `base`, then Gaussian noise, then columns set to their mean.

    Attributes:
        deviation: of the noise in each column, `[d]` on the CPU, where it is drawn.
        mean: of each column, `[d]` on the device of the samples.
        dropout: probability with which a column of a view is set to its mean, each for itself.
    """

    base: Policy
    deviation: Tensor
    mean: Tensor
    dropout: float

    def draw(self, generator: torch.Generator, n: int, shape: tuple[int, ...]) -> dict[str, Tensor]:
        """See `Policy.draw`."""
        params = self.base.draw(generator, n, shape)
        if self.deviation.any():
            params["column_noise"] = self.deviation * torch.randn(n, *shape, generator=generator)
        if self.dropout:
            params["dropped"] = torch.rand(n, *shape, generator=generator) < self.dropout
        return params

    @torch.no_grad()
    def apply(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """See `Policy.apply`."""
        x = self.base.apply(x, params)
        if "column_noise" in params:
            x = x.add_(params["column_noise"])
        return torch.where(params["dropped"], self.mean, x) if "dropped" in params else x

    def plain(self, x: Tensor) -> Tensor:
        """See `Policy.plain`."""
        return self.base.plain(x)


def build_policy(augmentation: str, augment: Augment, data: Dataset, device: torch.device) -> Policy:
    """The policy of a training on `data`; figures of columns are those of its training rows.

    Raises InputError for an unknown name, and as `check_augment`.
    """
    check_augment(augmentation, augment, data)
    policy = POLICIES[augmentation]
    if augment.noise or augment.dropout:
        mean, deviation = (torch.from_numpy(one).float() for one in column_figures(data.train.x.cpu().numpy()))
        return VectorPolicy(policy, augment.noise * deviation, mean.to(device), augment.dropout)
    return scaled(policy, augment.strength) if isinstance(policy, ImagePolicy) else policy


def check_augment(augmentation: str, augment: Augment, data: Dataset) -> None:
    """Raises InputError where a name is no policy, and where it or a key of `augment` is not for such samples."""
    if augmentation not in POLICIES:
        raise InputError(f"augmentation: {augmentation!r} is not one of {', '.join(POLICIES)}")
    policy = POLICIES[augmentation]
    if data.train.x.dtype == torch.uint8:
        colours, channels = len(policy.mean) if isinstance(policy, ImagePolicy) else 0, data.train.x.shape[1]
        if colours not in (0, channels):
            raise InputError(f"augmentation: {augmentation} is for {colours} colours, and {data.name} has {channels}")
        for key in ("noise", "dropout", "neighbours"):
            if getattr(augment, key):
                raise InputError(f"augment.{key} is for vectors, and {data.name} holds images; see augment.strength")
        if augment.strength != 1 and not isinstance(policy, ImagePolicy):
            raise InputError(f"augment.strength: augmentation {augmentation} has nothing that could be scaled")
        return
    if isinstance(policy, ImagePolicy):
        raise InputError(
            f"augmentation: {augmentation} is for images, and {data.name} holds vectors; see augment.noise and .dropout"
        )
    if augment.strength != 1:
        raise InputError(
            f"augment.strength scales a policy of images, and {data.name} holds vectors; see augment.noise and .dropout"
        )
    if augment.neighbours and data.stream is not None:
        raise InputError(f"augment.neighbours: the samples of {data.name} are made while training, and none is kept")
    others = len(data.train) - 1
    if augment.neighbours > others:
        raise InputError(f"augment.neighbours: {augment.neighbours} is more than the {others} others of a sample")


def scaled(policy: ImagePolicy, strength: float) -> ImagePolicy:
    """The policy at a strength from 0 (none) to 2; 1: itself. How each of its parameters is scaled is said above."""
    if strength == 1:
        return policy
    if strength == 0:
        return ImagePolicy(side=policy.side, mean=policy.mean, std=policy.std)

    def off(value: float, least: float = 0.0) -> float:
        return max(least, 1 + strength * (value - 1))

    crop, perspective, affine, jitter, blur = policy.crop, policy.perspective, policy.affine, policy.jitter, policy.blur
    if affine is not None:
        degrees, shift, smallest, largest, shear = affine
        scales = off(smallest, LEAST_SCALE), off(largest, LEAST_SCALE)
        affine = (strength * degrees, strength * shift, *scales, strength * shear)
    if jitter is not None:
        brightness, contrast, saturation, hue = (strength * one for one in jitter)
        jitter = (brightness, contrast, saturation, min(hue, 0.5))
    return replace(
        policy,
        crop=None if crop is None else (off(crop[0], LEAST_AREA), off(crop[1], LEAST_AREA)),
        aspect=policy.aspect**strength,
        flip=min(0.5, strength * policy.flip),
        perspective=None if perspective is None else (min(1.0, strength * perspective[0]), perspective[1]),
        affine=affine,
        jitter=jitter,
        grey=min(1.0, strength * policy.grey),
        blur=None if blur is None else (strength * blur[0], strength * blur[1]),
        solarise=min(1.0, strength * policy.solarise),
        noise=strength * policy.noise,
    )
