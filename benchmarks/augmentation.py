"""Images/s of the CIFAR policy by library, and of every image policy of raymc.

    python -m benchmarks.augmentation --threads 1 2 --out results.json

A call makes one view of a batch of 1024 uint8 images of 32x32, parameters drawn per image within the time. The
functional candidates get raymc's parameters, and torchvision's views are compared with raymc's in the same run
(kornia's crop maps corner pixels to corner pixels, so its views cannot be equal). Medians of wall and of process time;
on a busy machine the latter is the one to compare. kornia is left out where it is absent.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import facts
from raymc.datasets import POLICIES, augmentation

BATCH = 1024
SHAPES = {"cifar": (3, 32, 32), "stl": (3, 96, 96), "coil": (1, 64, 64), "mnist": (1, 28, 28), "digits": (1, 8, 8)}
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
POLICY = POLICIES["cifar"]
View = Callable[[Tensor, torch.Generator], Tensor]


def raymc(x: Tensor, generator: torch.Generator, name: str = "cifar") -> Tensor:
    """This project's policy `name` as the training loop calls it."""
    params = POLICIES[name].draw(generator, len(x), tuple(x.shape[1:]))
    return POLICIES[name].apply(x, {key: value.to(x.device) for key, value in params.items()})


def raymc_whole(x: Tensor, generator: torch.Generator) -> Tensor:
    """The same without working in chunks."""
    before, augmentation.CHUNK = augmentation.CHUNK, x.numel()
    try:
        return raymc(x, generator)
    finally:
        augmentation.CHUNK = before


def torchvision_functional(x: Tensor, generator: torch.Generator) -> Tensor:
    """torchvision's functional operations image by image, with raymc's parameters."""
    import torchvision.transforms.v2.functional as F

    p = POLICY.draw(generator, len(x), tuple(x.shape[1:]))
    lists = {name: value.tolist() for name, value in p.items()}
    out = torch.empty(x.shape)
    for i, image in enumerate(x):
        left, top, width, height = (int(v) for v in lists["box"][i])
        y = F.resized_crop(image.float() / 255, top, left, height, width, list(x.shape[2:]))
        y = F.horizontal_flip(y) if lists["flip"][i] else y
        y = F.adjust_contrast(F.adjust_brightness(y, lists["brightness"][i]), lists["contrast"][i])
        y = F.adjust_hue(F.adjust_saturation(y, lists["saturation"][i]), lists["hue"][i])
        y = F.rgb_to_grayscale(y, 3) if lists["grey"][i] else y
        out[i] = F.normalize(y, list(MEAN), list(STD))
    return out


def torchvision_transforms() -> View:
    """torchvision's own transforms image by image on bytes, with its own draws: the usual loader's work."""
    from torchvision.transforms import v2

    one = v2.Compose(
        [
            v2.RandomResizedCrop(32, scale=(0.08, 1.0)),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    return lambda x, generator: torch.stack([one(image) for image in x])


def kornia_functional(x: Tensor, generator: torch.Generator) -> Tensor:
    """kornia's batched functions with raymc's parameters."""
    from kornia import enhance
    from kornia.geometry.transform import crop_and_resize

    p = POLICY.draw(generator, len(x), tuple(x.shape[1:]))
    left, top, width, height = p["box"].unbind(1)
    right, bottom = left + width - 1, top + height - 1
    corners = [torch.stack(pair, 1) for pair in ((left, top), (right, top), (right, bottom), (left, bottom))]
    y = crop_and_resize(x.float() / 255, torch.stack(corners, 1), (32, 32), align_corners=False)
    y = torch.where(p["flip"][:, None, None, None], y.flip(3), y)
    y = enhance.adjust_brightness_accumulative(y, p["brightness"])
    y = enhance.adjust_contrast_with_mean_subtraction(y, p["contrast"])
    y = enhance.adjust_saturation_with_gray_subtraction(y, p["saturation"])
    y = enhance.adjust_hue(y, p["hue"] * 2 * torch.pi)
    grey = y.mul(torch.tensor((0.2989, 0.587, 0.114))[:, None, None]).sum(1, keepdim=True)
    y = torch.where(p["grey"][:, None, None, None], grey, y)
    return enhance.normalize(y, torch.tensor(MEAN), torch.tensor(STD))


def kornia_modules() -> View:
    """kornia's augmentation modules with their own draws."""
    import kornia.augmentation as K

    modules = torch.nn.Sequential(
        K.RandomResizedCrop((32, 32), scale=(0.08, 1.0)),
        K.RandomHorizontalFlip(),
        K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        K.RandomGrayscale(p=0.2),
        K.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    )
    return lambda x, generator: modules(x.float() / 255)


def candidates() -> dict[str, View]:
    found: dict[str, View] = {"raymc": raymc, "raymc, one chunk": raymc_whole}
    if importlib.util.find_spec("kornia") is not None:
        found |= {"kornia modules": kornia_modules(), "kornia functional": kornia_functional}
    return found | {
        "torchvision transforms, bytes": torchvision_transforms(),
        "torchvision functional, floats": torchvision_functional,
    }


def measure(view: View, x: Tensor, repeats: int) -> dict[str, float]:
    """Medians over `repeats` calls after one to warm up."""
    generator = torch.Generator().manual_seed(0)
    wall, cpu = [], []
    for _ in range(repeats + 1):
        starts = time.perf_counter(), time.process_time()
        view(x, generator)
        if x.is_cuda:
            torch.cuda.synchronize()
        wall.append(time.perf_counter() - starts[0])
        cpu.append(time.process_time() - starts[1])
    seconds, cpu_seconds = statistics.median(wall[1:]), statistics.median(cpu[1:])
    return {"ms": 1e3 * seconds, "cpu_ms": 1e3 * cpu_seconds, "images_per_second": len(x) / seconds}


def difference(view: View, x: Tensor) -> float:
    """Largest difference to raymc's view of the same draws, in units of one grey level of 255."""
    pair = [function(x, torch.Generator().manual_seed(0)) for function in (view, raymc)]
    return float((pair[0] - pair[1]).abs().max() * max(STD) * 255)


def images(shape: tuple[int, ...], device: str) -> Tensor:
    """Noise smoothed over a few pixels: as dark, bright and coloured as photographs, with ties and clipping."""
    noise = torch.rand(BATCH, *shape, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool2d(noise, 3, stride=1, padding=1)
    return ((smooth - 0.5) * 4 + 0.5).clamp(0, 1).mul(255).to(torch.uint8).to(device)


def rows(threads: int, device: str, repeats: int) -> Iterator[dict[str, Any]]:
    """Every library on the CIFAR policy (on a GPU raymc alone), then raymc on the other policies."""
    torch.set_num_threads(threads)
    x = images(SHAPES["cifar"], device)
    for name, view in candidates().items() if device == "cpu" else [("raymc", raymc)]:
        row: dict[str, Any] = {"library": name, "policy": "cifar", "batch": BATCH, **facts(device, threads)}
        row |= measure(view, x, repeats)
        if view is torchvision_functional:
            row["largest_difference_in_grey_levels"] = difference(view, x)
        yield row
    for policy, shape in SHAPES.items():
        if policy != "cifar":
            row = {"library": "raymc", "policy": policy, "batch": BATCH, **facts(device, threads)}
            yield row | measure(partial(raymc, name=policy), images(shape, device), repeats)


def main() -> None:
    options = argparse.ArgumentParser(description="Images/s of the augmentation.")
    options.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options.add_argument("--repeats", type=int, default=9)
    options.add_argument("--device", default="cpu")
    options.add_argument("--out", type=Path, help="write the rows as JSON, as they come")
    args = options.parse_args()
    found: list[dict[str, Any]] = []
    for row in (row for threads in args.threads for row in rows(threads, args.device, args.repeats)):
        found.append(row)
        apart = row.get("largest_difference_in_grey_levels")
        print(
            f"{row['threads']} threads  {row['policy']:7} {row['library']:31} {row['images_per_second']:9.0f} images/s"
            f"  wall {row['ms']:7.1f} ms  cpu {row['cpu_ms']:7.1f} ms" + (f"  apart {apart:.3f}" if apart else ""),
            flush=True,
        )
        if args.out:
            args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
