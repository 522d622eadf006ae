"""Stage 1 as a usual script trains it, to compare raymc's with.

torchvision's PIL transforms in DataLoader workers, float32 on a CPU and bfloat16 autocast on a GPU, weights in torch's
own layout, nothing compiled, timm's or torch's optimiser with its defaults, `loss.item()` in every step. Net and loss
are the same as raymc's, the loss written out anew.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms as T

from raymc.config import StageConfig
from raymc.datasets.augmentation import ImagePolicy
from raymc.training.optim import LARS_TRUST, MOMENTUM

WARM = 1  # steps before the clock starts: the workers have begun by then


class Seconds(NamedTuple):
    """Of the clock on the wall, and of all processors that worked: on a busy machine the latter are to compare."""

    wall: float
    processors: float

    @staticmethod
    def now() -> Seconds:
        return Seconds(time.perf_counter(), time.process_time())


def _of_children() -> float:
    """Processor seconds of processes that have ended: the workers of a loader that is through."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def pil_transforms(policy: ImagePolicy, side: int) -> Callable[[Image.Image], Tensor]:
    """What `policy` does to images of `side` pixels, as torchvision's transforms of one PIL image."""
    steps: list[Callable[[Image.Image], Image.Image]] = []
    if policy.crop is not None:
        steps += [T.RandomResizedCrop(policy.side or side, scale=policy.crop)]
    steps += [T.RandomHorizontalFlip(policy.flip)] if policy.flip else []
    if policy.perspective is not None:
        steps += [T.RandomPerspective(*policy.perspective)]
    if policy.affine is not None:
        degrees, shift, smallest, largest, shear = policy.affine
        steps += [T.RandomAffine(degrees, (shift, shift), (smallest, largest), shear)]
    steps += [T.RandomApply([T.ColorJitter(*policy.jitter)], policy.jitter_share)] if policy.jitter else []
    steps += [T.RandomGrayscale(policy.grey)] if policy.grey else []
    steps += [T.RandomApply([T.GaussianBlur(9, policy.blur)], policy.blur_share)] if policy.blur else []
    last: list[Callable[[Tensor], Tensor]] = []
    if policy.noise:
        last += [lambda x: x + policy.noise * torch.randn_like(x)]
    last += [T.Normalize(policy.mean, policy.std)] if policy.mean else []
    made: Callable[[Image.Image], Tensor] = T.Compose([*steps, T.ToTensor(), *last])
    return made


class TwoViews(Dataset[tuple[Tensor, Tensor]]):
    """Two views of each image of uint8 `[n, c, h, w]`, made one by one."""

    def __init__(self, x: Tensor, policy: ImagePolicy) -> None:
        self.images = x.permute(0, 2, 3, 1).squeeze(3).numpy()
        self.view = pil_transforms(policy, x.shape[-1])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, at: int) -> tuple[Tensor, Tensor]:
        image = Image.fromarray(self.images[at])
        return self.view(image), self.view(image)


def plain_loss(z1: Tensor, z2: Tensor, settings: Any) -> Tensor:
    """NMCE's eq. 5 on unit rows `[n, d]`; MLC's where `views` is `average`."""

    def rate(z: Tensor) -> Tensor:
        n, d = z.shape
        identity = torch.eye(d, device=z.device)
        return torch.logdet(identity + d / (n * settings.eps_sq) * (z.T @ z)) / 2

    z1, z2 = z1.float(), z2.float()
    cosine = (z1 * z2).sum(1)
    if settings.views == "separate":
        total = (rate(z1) + rate(z2)) / 2
    elif settings.views == "mean":
        total = rate(functional.normalize(z1 + z2, dim=1))
    else:
        total, cosine = rate((z1 + z2) / 2), cosine.abs()
    weight: float = settings.similarity_weight
    return -total - weight * cosine.mean()


class PlainLoop:
    """The loop itself, on a net of `backbone`, `pre_feature` and `projection`."""

    def __init__(
        self, net: nn.Module, x: Tensor, policy: ImagePolicy, settings: StageConfig, device: torch.device, workers: int
    ) -> None:
        self.net, self.settings, self.device, self.workers = net.to(device).train(), settings, device, workers
        self.images = TwoViews(x, policy)
        self.optimiser = plain_optimiser(net, settings)

    def batches(self, steps: int) -> Iterator[list[Tensor]]:
        batch = self.settings.batch_size
        index = torch.randint(len(self.images), (steps * batch,)) if steps * batch > len(self.images) else None
        order = torch.randperm(len(self.images))[: steps * batch] if index is None else index
        loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
            self.images,
            batch,
            sampler=order.tolist(),
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            drop_last=True,
        )
        yield from loader

    def loss(self, views: list[Tensor]) -> Tensor:
        x1, x2 = (view.to(self.device, non_blocking=True) for view in views)
        half = self.device.type == "cuda"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half):
            z1, z2 = self.net(torch.cat([x1, x2])).chunk(2)
        return plain_loss(z1, z2, self.settings)

    def step(self, views: list[Tensor]) -> float:
        self.optimiser.zero_grad()
        loss = self.loss(views)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return loss.item()

    def run(self, steps: int) -> Seconds:
        """Time of so many steps, after one to warm up; that of the processors has the workers' share in it."""
        begun, before = Seconds(0.0, 0.0), _of_children()
        for at, views in enumerate(self.batches(steps + WARM)):
            self.step(views)
            if at + 1 == WARM:
                begun = Seconds.now()
        now = Seconds.now()
        beside = (_of_children() - before) * steps / (steps + WARM)
        return Seconds(now.wall - begun.wall, now.processors - begun.processors + beside)

    def operations(self) -> int:
        """Floating-point operations of the products and convolutions of a step: a multiply-add is two."""
        views = next(iter(self.batches(1)))
        with FlopCounterMode(display=False) as counter:
            self.loss(views).backward()  # type: ignore[no-untyped-call]
        return int(counter.get_total_flops())


def plain_optimiser(net: nn.Module, settings: StageConfig) -> torch.optim.Optimizer:
    """As a script makes it: timm's LARS, torch's SGD or Adam."""
    lr, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "adam":
        return torch.optim.Adam(net.parameters(), lr, (MOMENTUM, settings.adam_beta2), weight_decay=decay)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(net.parameters(), lr, MOMENTUM, weight_decay=decay)
    from timm.optim.lars import Lars

    weights = [p for p in net.parameters() if p.ndim != 1]
    others = [p for p in net.parameters() if p.ndim == 1]
    groups = [
        {"params": weights, "weight_decay": decay, "always_adapt": True},
        {"params": others, "weight_decay": 0.0, "always_adapt": False},
    ]
    optimiser: torch.optim.Optimizer = Lars(
        groups, lr=lr, momentum=MOMENTUM, trust_coeff=LARS_TRUST, trust_clip=True, eps=1e-8
    )
    return optimiser
