"""Stage 1 by many small crops against two views, at equal compute: probes and clusters behind each, seed by seed.

    python -m benchmarks.many_crops OUT --images 500 --epochs 1 --seeds 1      # a rehearsal
    python -m benchmarks.many_crops OUT                                        # CIFAR-100, 10,000 images, 3 seeds
    python -m benchmarks.many_crops OUT --dataset coil20 --epochs 6            # COIL-20, 64 pixels

EMP-SSL (Tong et al., arXiv 2304.03977) sees 20 crops of a quarter of the image in few epochs, NMCE two views in many.
Both see an image equally often, 20 times `--epochs`, by as many steps, of 2,000 or 2,048 views (COIL-20: 500 or 512),
through a ResNet-10 of 32 filters; learning rates are those of the presets. Behind each MLC's heads are trained on a
bank of its plain features. Of COIL-20 every fourth view of an object is held out for the probes. OUT keeps each
training: the same command goes on where it stopped, and prints the table of what is there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from benchmarks.samplers import shown
from raymc.atomic import write_json
from raymc.cli import Parser
from raymc.config import Value
from raymc.datasets import load
from raymc.errors import InputError
from raymc.methods.mlc_presets import PRESETS

WAYS = {"two views": "shared", "20 crops": "emp_ssl"}  # and the preset
# One of 1,024 would be all of COIL-20, and an epoch a step.
BATCHES = {"cifar20": {"two views": 1024, "20 crops": 100}, "coil20": {"two views": 256, "20 crops": 25}}
FIGURES = ("knn_projection", "svm_projection", "knn_pool", "svm_pool", "acc", "nmi")
CROPS, VIEWS = 20, 2
FIRST_SEED = 500
OF_DATA = ("backbone", "pre_feature_dim", "feature_dim")


def words(way: str, dataset: str, images: int, epochs: int) -> dict[str, Any]:
    """The keys of a training: as many views of an image in all, and as many steps."""
    longer = CROPS // VIEWS if way == "two views" else 1
    preset = cast(Mapping[str, Value], PRESETS["cifar20"][WAYS[way]])
    known = {key: value for key, value in preset.items() if key not in OF_DATA}
    more = {"n_samples": images} if dataset == "cifar20" else {**known, "n_clusters": 20}
    return more | {
        "backbone": "resnet10_colour",
        "pre_feature_dim": 512,
        "precision": "float32",
        "pretrain.epochs": epochs * longer,
        "pretrain.warmup_epochs": 0,
        "pretrain.batch_size": BATCHES[dataset][way],
        "heads.epochs": 20,
        "heads.batch_size": 512,
        "heads.feature_bank": 10,
        "heads.frozen_statistics": True,
        "evaluate_every": 20,
        "probes": True,
        "probe_views": 0,
        "probe_features": "pool,projection",
    }


def train(out: Path, way: str, seed: int, args: argparse.Namespace) -> None:
    folder = out / way.replace(" ", "-") / str(seed)
    if (folder / "metrics.json").exists():
        return
    space = out / f"{way.replace(' ', '-')}.yaml"
    content: dict[str, Any] = {"method": "mlc", "dataset": args.dataset, "preset": WAYS[way]}
    if args.dataset == "coil20":
        content |= {"dataset": coil20(out), "preset": "own"}
    space.write_text(json.dumps(content) + "\n", encoding="utf-8")
    values = words(way, args.dataset, args.images, args.epochs)
    keys = [f"{key}={json.dumps(value).strip(chr(34))}" for key, value in values.items()]
    command = [sys.executable, "-m", "raymc.train", str(space), *keys, "--seed", str(seed)]
    begun = time.monotonic()
    subprocess.run([*command, "--out", str(folder), "--storage", str(out / "storage")], check=True)
    write_json(folder / "seconds.json", {"seconds": time.monotonic() - begun})


def coil20(out: Path) -> dict[str, str]:
    """The files of its images, three views of an object in four and the fourth one."""
    data = load("coil20").train
    assert data.y is not None
    held_out = torch.arange(len(data.x)) % 4 == 3
    for name, rows in (("views", ~held_out), ("held-out", held_out)):
        np.savez(out / f"{name}.npz", x=data.x[rows].expand(-1, 3, -1, -1).numpy(), y=data.y[rows].numpy())
    return {"path": str(out / "views.npz"), "test": str(out / "held-out.npz")}


def table(out: Path, seeds: range) -> str:
    """Markdown: mean over the seeds that are there, and its 95 % interval."""
    lines = ["| stage 1 | seeds | " + " | ".join(FIGURES) + " |", "|---|---:|" + "---:|" * len(FIGURES)]
    for way in WAYS:
        places = [out / way.replace(" ", "-") / str(seed) / "metrics.json" for seed in seeds]
        found = [json.loads(place.read_text(encoding="utf-8"))["metrics"] for place in places if place.exists()]
        cells = [shown([one[name] for one in found if name in one]) for name in FIGURES]
        lines.append(f"| {way} | {len(found)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="python -m benchmarks.many_crops", description=__doc__, formatter_class=form)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dataset", choices=("cifar20", "coil20"), default="cifar20")
    parser.add_argument("--images", type=int, default=10_000, help="of CIFAR-100")
    parser.add_argument("--epochs", type=int, default=2, help="of 20 crops; two views have ten times as many")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    for name, least in (("images", 100), ("epochs", 1), ("seeds", 1)):
        if getattr(args, name) < least:
            raise InputError(f"--{name} {getattr(args, name)}: at least {least} is needed")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{args.out} cannot be written: {error.strerror}") from error
    seeds = range(FIRST_SEED, FIRST_SEED + args.seeds)
    for seed in seeds:
        for way in WAYS:
            train(args.out, way, seed, args)
            print(table(args.out, seeds), flush=True)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
