"""Milliseconds of an optimiser's step on ResNet-18's 66 parameters: raymc's beside timm's and torch's, in turns.

    python -m benchmarks.optimisers --threads 2 --json

Random gradients, laid out anew before each step; least and median of --repeats steps after three to warm up.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from timm.optim.lars import Lars as TimmLars
from torch import nn

from benchmarks.machine import facts
from raymc.nets import UnitLinear, build_backbone, pre_feature_layer
from raymc.training.lars import Lars
from raymc.training.optim import LARS_TRUST, MOMENTUM

RATE, DECAY = 0.3, 1e-4


def net(device: torch.device) -> nn.Module:
    """Stage 1's net for CIFAR."""
    torch.manual_seed(0)
    backbone = build_backbone("resnet18_cifar", (3, 32, 32))
    return nn.Sequential(backbone, pre_feature_layer(512, 4096), UnitLinear(4096, 128)).to(device)


def groups(parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    everything = list(parameters)
    weights, others = [p for p in everything if p.ndim != 1], [p for p in everything if p.ndim == 1]
    return [
        {"params": weights, "weight_decay": DECAY, "always_adapt": True, "lr": RATE},
        {"params": others, "weight_decay": 0.0, "always_adapt": False, "lr": RATE},
    ]


def candidates() -> dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]]:
    def timm(foreach: bool) -> Callable[[list[nn.Parameter]], torch.optim.Optimizer]:
        more: dict[str, Any] = {"momentum": MOMENTUM, "trust_coeff": LARS_TRUST, "trust_clip": True}
        return lambda p: TimmLars(groups(p), **more, foreach=foreach)

    def sgd(**how: bool) -> Callable[[list[nn.Parameter]], torch.optim.Optimizer]:
        return lambda p: torch.optim.SGD(p, RATE, MOMENTUM, weight_decay=DECAY, **how)

    return {
        "LARS, raymc": lambda p: Lars(groups(p), MOMENTUM, LARS_TRUST),
        "LARS, timm, loop": timm(False),
        "LARS, timm, foreach": timm(True),
        "SGD, fused (raymc)": sgd(fused=True),
        "SGD, loop": sgd(foreach=False),
        "SGD, foreach": sgd(foreach=True),
    }


def measure(device: torch.device, repeats: int) -> list[dict[str, Any]]:
    sides = {}
    for name, make in candidates().items():
        parameters = list(net(device).parameters())
        sides[name] = (parameters, make(parameters))
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats + 3):
        for name, (parameters, optimiser) in sides.items():
            for p in parameters:
                p.grad = torch.randn_like(p)
            times[name].append(step(optimiser, device))
    rows = {name: each[3:] for name, each in times.items()}
    return [
        {"optimiser": name, "least_ms": 1e3 * min(each), "median_ms": 1e3 * statistics.median(each)}
        for name, each in rows.items()
    ]


def step(optimiser: torch.optim.Optimizer, device: torch.device) -> float:
    """Seconds of a step until the device is through with it."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    optimiser.step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    machine, rows = facts(args.device, args.threads), measure(torch.device(args.device), args.repeats)
    if args.json:
        print(json.dumps({"machine": machine, "rows": rows}, indent=1))
        return
    for row in rows:
        print(f"{row['optimiser']:24} least {row['least_ms']:8.3f} ms, median {row['median_ms']:8.3f} ms")


if __name__ == "__main__":
    main()
