"""Seconds of an epoch of GCML's fine-tuning: as the published code is written, and as raymc does it.

    RAYMC_DATA=... python -m benchmarks.gcml_epoch --json

`published` follows the code's formulation: torch's linear layers; at the start of an epoch the whole dataset through
encoder and decoder with the graph kept; for each cluster the full matrices of distances in both spaces with gradient,
sorted; in each batch the samples encoded twice; at the end the isometry and alignment losses of all samples. Before
that end it runs a fresh forward pass (as raymc does), since no current torch can use the stale graph of the original.
All ways start from the same weights and centres and train on the same samples in batches of 256, in an epoch in which
every loss counts; they are timed in turns.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.machine import facts
from raymc import datasets
from raymc.config import Config, resolve
from raymc.datasets import Dataset
from raymc.distributed import Workers
from raymc.methods import METHODS, gcml, gcml_state
from raymc.methods.base import preset_values
from raymc.methods.gcml_settings import Finetune
from raymc.ops import student_t_assignment, target_distribution
from raymc.training.feed import Feed
from raymc.training.loop import Hooks, fit
from raymc.training.stages import enter, weights_of

METHOD = METHODS["gcml"]
QUIET = Hooks(report=lambda row: None, save=None, evaluate=None, evaluate_every=1)


def _finetune(config: Config) -> Finetune:
    settings = config.stages["finetune"]
    assert isinstance(settings, Finetune)
    return settings


def start(data: Dataset) -> tuple[Config, nn.ModuleDict, Feed]:
    """The configuration, a model after five epochs of pretraining with centres by k-means, and the samples."""
    preset = preset_values(METHOD.presets["pendigits"]["published"])
    config = resolve("gcml", "pendigits", "published", METHOD.stage_settings, preset)
    feed = Feed.build(data, "none", torch.device("cpu"), torch.float32, False, Workers())
    shape = tuple(data.train.x.shape[1:])
    first, second = METHOD.stages(config)
    net = enter(METHOD, first, config, shape, 10, {}, 0)
    fit(net, first, dataclasses.replace(config.stages["pretrain"], epochs=5), feed, 0, QUIET)
    model = enter(METHOD, second, config, shape, 10, weights_of(net), 0)
    settings = dataclasses.replace(_finetune(config), centers_by="kmeans")
    gcml_state.first_centers(model, feed, settings, 0)
    return config, model, feed


def raymc_epoch(config: Config, model: nn.ModuleDict, feed: Feed, precision: str) -> Callable[[], None]:
    """An epoch of the loop itself, with preset `published`."""
    # Constant weights, so that every loss counts in this one epoch.
    settings = dataclasses.replace(_finetune(config), epochs=1, start_epoch=0, continuation_epochs=0)
    stage = dataclasses.replace(METHOD.stages(config)[1], begin=None)
    autocast = torch.bfloat16 if precision == "bfloat16" else None

    def epoch() -> None:
        fit(model, stage, settings, feed, 0, QUIET, autocast)

    return epoch


def published_epoch(model: nn.ModuleDict, data: Dataset) -> Callable[[], None]:
    """The same epoch, formulated as the published code is."""
    x = data.train.x.flatten(1).float()
    encoder, decoder = _linear(model["encoder"]), _linear(model["decoder"])
    centers = nn.Parameter(gcml_state.centers_of(model).detach().clone())
    parameters = [*encoder.parameters(), *decoder.parameters(), centers]
    by_batch, by_epoch = (torch.optim.Adam(parameters, lr=1e-3) for _ in range(2))
    batches, clusters = len(x) // 256, range(len(centers))

    def epoch() -> None:
        z = encoder(x)
        decoder(z)
        q = student_t_assignment(z, centers)
        target = target_distribution(q).detach()
        labels = q.argmax(1)
        means = torch.stack([x[labels == c].mean(0) for c in clusters]).nan_to_num()
        order = torch.randperm(len(x))
        for step in range(batches):
            rows = order[step * 256 : (step + 1) * 256]
            by_batch.zero_grad()
            out = decoder(encoder(x[rows]))
            soft = student_t_assignment(encoder(x[rows]), centers)
            divergence = functional.kl_div(soft.log(), target[rows], reduction="batchmean") / len(centers)
            loss = 0.1 * divergence + functional.mse_loss(out, x[rows])
            loss = loss + (torch.cdist(centers, centers) - 3 * torch.cdist(means, means)).norm() / 10 / batches
            loss.backward()
            by_batch.step()
        by_epoch.zero_grad()
        fresh = encoder(x)
        members = [labels == c for c in clusters]
        local = [_local(x[some], fresh[some]) for some in members if int(some.sum()) > 5]
        align = [(fresh[some].mean(0) - centers[c]).norm() for c, some in enumerate(members) if bool(some.any())]
        (torch.cat(local).norm() + torch.stack(align).mean()).backward()
        by_epoch.step()

    return epoch


def _local(x: Tensor, z: Tensor) -> Tensor:
    """Differences of distances between each point and its 5 nearest in the cluster, all pairs in the graph."""
    apart: list[Tensor] = [_distances(part) / part.shape[1] ** 0.5 for part in (x, z)]
    near = apart[1].sort(1).indices[:, 1:6]
    return apart[0].gather(1, near) - apart[1].gather(1, near)


def _distances(x: Tensor) -> Tensor:
    square = x.square().sum(1)
    return (square.unsqueeze(1) + square - 2 * x @ x.mT).clamp_min(1e-8).sqrt()


def _linear(net: nn.Module) -> nn.Sequential:
    """torch's own layers with the weights of raymc's."""
    layers: list[nn.Module] = []
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            plain = nn.Linear(layer.in_features, layer.out_features)
            plain.load_state_dict(layer.state_dict())
            layers += [plain, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="pendigits")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data = datasets.load(args.dataset)
    config, model, feed = start(data)
    ways = {
        "published": published_epoch(model, data),
        "raymc": raymc_epoch(config, copy.deepcopy(model), feed, "float32"),
        "raymc_bfloat16": raymc_epoch(config, copy.deepcopy(model), feed, "bfloat16"),
    }
    wall: dict[str, list[float]] = {name: [] for name in ways}
    process: dict[str, list[float]] = {name: [] for name in ways}
    for epoch in ways.values():
        epoch()  # warm
    for _ in range(args.repeats):
        for name, epoch in ways.items():
            begun = time.perf_counter(), time.process_time()
            epoch()
            wall[name].append(time.perf_counter() - begun[0])
            process[name].append(time.process_time() - begun[1])
    rows: dict[str, Any] = {
        name: {"wall_s": statistics.median(wall[name]), "process_s": statistics.median(process[name])} for name in ways
    }
    for name in ways:
        rows[name]["faster_than_published"] = rows["published"]["wall_s"] / rows[name]["wall_s"]
    _, q = gcml.heads(model, feed.rows(torch.arange(len(feed))))
    assert q is not None
    share = float(torch.bincount(q.argmax(1)).max()) / len(feed)
    result = {
        "machine": facts("cpu", args.threads),
        "dataset": args.dataset,
        "n": len(data.train),
        "largest_cluster_share": share,
        "ways": rows,
    }
    if args.json:
        print(json.dumps(result, indent=1))
        return
    for name, one in rows.items():
        print(f"{name:16}" + "  ".join(f"{key} {value:.3g}" for key, value in one.items()))


if __name__ == "__main__":
    main()
