"""Stage 1 on a machine that is lent by the minute: as many epochs as fit, and on from there in the next command.

    python -m benchmarks.gpu_stage1 nmce_cifar20 pretrain.epochs=600 --minutes 9 --name cifar100-nmce --out "$OUT"

Needs neither network nor ray, mlflow, optuna. The number of epochs is part of the stage's key (the learning rate falls
to 0 over them), so that a training that was cut is not the result of fewer: the script says how far it came and what is
left. Below --out: `curve.jsonl`, a line per epoch as it ends; `stage1.json`; of a finished stage the checkpoint's
folder, written before the probes. CIFAR's 20 and 100 classes have the same images: `--probe cifar20 cifar100` scores
both by k-NN and a linear probe each on the projection (fitted on the training split, the accuracy is that of the
held-out one). Below 60 seconds on a GPU; an SVM would take minutes, and the checkpoint is there for it.
What is wrong with a command is found before anything is trained or written.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from benchmarks.machine import facts
from raymc import datasets
from raymc.atomic import write_json
from raymc.cli import Parser, execute, storage_root
from raymc.config import Config, parse_overrides
from raymc.datasets import Dataset, data_root, fingerprint, load
from raymc.errors import InputError, unwritable
from raymc.methods import METHODS
from raymc.methods.base import Stage
from raymc.metrics.clustering import Labels, as_labels
from raymc.metrics.probes import knn_accuracy
from raymc.space.space import load_space
from raymc.training import inference, loop
from raymc.training.checkpoints.export import export
from raymc.training.loop import Hooks, Progress, Row
from raymc.training.obtain import obtain
from raymc.training.smoke import limited
from raymc.training.stages import seeds_of, stage_key
from raymc.training.training import ALONE, Training, pick_device

RESERVE = 2.0
"""Minutes kept for the shards, the features and the probes; each score is written as it is known."""

Labelled = Mapping[str, tuple[Labels, Labels]]
"""Of each set of labels its name, and those of the training and of the held-out split."""


class TimeIsUp(Exception):
    """Raised when all epochs so far are in the store, where the next command goes on."""


class Watch:
    """Writes the curve as it grows and probes now and then; knows when the time is up."""

    def __init__(self, out: Path, until: float, probe_every: int) -> None:
        self.out, self.until, self.probe_every = out, until, probe_every
        self.rows: list[Row] = []
        self.seconds: list[float] = []
        self.probes: list[Row] = []
        self.probe: Any = None
        self.result: Row
        self.file: Path
        self._last = time.monotonic()

    def __call__(self, event: Row) -> None:
        if event["event"] == "resumed":
            self.add(event["curve"])
        if event["event"] != "epoch":
            self._last = time.monotonic()
            return
        now = time.monotonic()
        self.seconds.append(now - self._last)
        self.add([{key: value for key, value in event.items() if key != "event"}])
        done, epochs = event["epoch"], event["epochs"]
        if done < epochs and self.probe_every and done % self.probe_every == 0:
            self.probes.append({"epoch": done, **self.probe()})
            print(json.dumps(self.probes[-1]), flush=True)
        print(f"epoch {done}/{epochs} loss {event['loss']:.3f} {self.seconds[-1]:.2f} s", flush=True)
        self.write()
        if self.is_over():
            loop.SAVE_SHARE = 0  # the loop asks for a save now, whatever the last one cost
        self._last = time.monotonic()

    @property
    def pace(self) -> float:
        """Seconds of an epoch; the first one of a command warms up."""
        return statistics.median(self.seconds[1:] or self.seconds or [0.0])

    def write(self) -> None:
        """How far it is, into the file of results."""
        done, pace = len(self.rows), self.pace
        self.result |= {"done": done, "seconds_per_epoch": pace}
        self.result["minutes_left"] = (self.result["epochs"] - done) * pace / 60
        write_json(self.file, self.result)

    def is_over(self) -> bool:
        return time.monotonic() + self.pace > self.until

    def add(self, rows: Sequence[Row]) -> None:
        """Rows of the curve; the first ones take the place of an earlier command's file, whose rows they repeat."""
        with (self.out / "curve.jsonl").open("a" if self.rows else "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        self.rows += rows


class Timed(Training):
    """Ends after the epoch that leaves no time for a further one, once the epochs so far have been saved."""

    watch: Watch

    def hooks(self, stage: Stage, key: str) -> Hooks:
        own = super().hooks(stage, key)

        def save(at: Progress) -> None:
            assert own.save is not None
            own.save(at)
            if self.watch.is_over():
                raise TimeIsUp

        return dataclasses.replace(own, save=save)


def parser() -> Parser:
    parser = Parser(prog="python -m benchmarks.gpu_stage1", description="Stage 1 within so many minutes.")
    parser.add_argument("space", help="e.g. nmce_cifar20, whose stage 1 serves the 100 classes too")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. pretrain.epochs=600 channels_last=true")
    parser.add_argument(
        "--minutes", type=float, required=True, help=f"of this command, {RESERVE:g} of them for the end"
    )
    parser.add_argument("--name", required=True, help="of the checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="what comes back from the machine")
    parser.add_argument(
        "--probe", nargs="+", metavar="DATASET", default=[], help="labels of the same images (default: own)"
    )
    parser.add_argument(
        "--probe-every", type=int, default=50, help="epochs between two k-NN probes; 0: at the end only"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--storage", help="where the next command finds it (default: RAYMC_STORAGE, else ./raymc-storage)"
    )
    parser.add_argument("--data", help="datasets (default: RAYMC_DATA)")
    parser.add_argument("--json", action="store_true")
    return parser


def run(args: argparse.Namespace, file: Path | None = None) -> Row:
    """Train until the stage or the time ends; the content of `file` (default: `stage1.json`), written as it goes.

    Raises InputError before any training.
    """
    file = file or args.out / "stage1.json"
    until = time.monotonic() + 60 * (args.minutes - RESERVE)
    config, origin = _asked(args)
    seeds = seeds_of(tuple(METHODS[config.method].stage_settings), args.seed, 0, config.seeds_from, config.varies)
    data, storage = str(data_root(args.data)), storage_root(args)
    dataset = limited(datasets.load_once(config, data), config)
    labels = _labels(dataset, args.probe, data)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(args.out, error) from error
    watch = Watch(args.out, until, args.probe_every)
    training = Timed(config, dataset, storage, dict(seeds), ALONE, pick_device(None), watch, smoke=False)
    training.watch = watch
    config = training.config  # its precision is that of the device
    stage = training.method.stages(config)[0]
    model = training.enter(stage, {})
    watch.probe = lambda: _knn(training, model, labels)
    key = stage_key(stage, config, model, dataset.fingerprint, training.seeds[stage.name], None)
    result = watch.result = _result(config, stage.name, key, watch, str(training.device))
    watch.file = file
    result["finished"] = _trained(training, stage, model, key)
    watch.write()
    if result["finished"]:
        export(config, stage.name, seeds, args.out / args.name, storage=storage, data=data, origin=origin)
        _probe_at_end(training, model, labels, result, file)
    _tell(result)
    return result


def _asked(args: argparse.Namespace) -> tuple[Config, dict[str, str]]:
    """The configuration, and what a checkpoint's card says of it. Raises InputError where --name is there already."""
    if not args.minutes >= 0:
        raise InputError(f"--minutes {args.minutes:g}: 0 or more is needed")
    place = args.out / args.name
    if place.exists():
        raise InputError(f"{place} is there already: choose another --out or --name, or move it away")
    space = load_space(args.space)
    config = space.config(parse_overrides(args.overrides) | {"seed": args.seed})
    command = shlex.join(["python", "-m", "raymc.train", space.name, *args.overrides, "--seed", str(args.seed)])
    return config, {"space": space.name, "command": command}


def _labels(own: Dataset, asked: Sequence[str], data: str) -> Labelled:
    """The labels to probe, by default those of the images themselves, if they have any and a held-out split.

    Raises InputError for a set that has other images, no held-out split or no labels.
    """
    found = {}
    for name in asked or [own.name]:
        known = own if name == own.name else load(name, data)
        y, test_y = known.train.y, known.test.y if known.test else None
        if y is None or test_y is None:
            if asked:
                raise InputError(f"--probe: {name} has no labels with a held-out split")
            continue
        if known is not own and _images(known) != _images(own):
            raise InputError(f"--probe: {name} has not the images of {own.name}")
        found[name] = (y, test_y)
    return found


def _images(data: Dataset) -> tuple[str, str | None]:
    """What tells images from others, of either split."""
    return data.fingerprint, None if data.test is None else fingerprint(data.test.x)


def _trained(training: Timed, stage: Stage, model: nn.ModuleDict, key: str) -> bool:
    """Whether the model is at the stage's end now: found in the store, or trained in time."""
    with mock.patch.object(loop, "SAVE_SHARE", loop.SAVE_SHARE):  # `Watch` sets it when the time is up
        try:
            rows, stored = obtain(training, stage, model, key, anew=False, needed=False)
        except TimeIsUp:
            return False
    if stored:
        training.watch.add(rows)
    return True


def _projections(training: Training, model: nn.ModuleDict) -> tuple[torch.Tensor, torch.Tensor]:
    """z of the training and the held-out split, which there is, `[n, d]` on the training's device."""
    own = training.dataset
    assert own.test is not None
    train, test = (
        inference.features(training.method, model, training.feed, split.x)["projection"]
        for split in (own.train, own.test)
    )
    return train, test


def _knn(training: Training, model: nn.ModuleDict, labels: Labelled) -> Row:
    """`{"knn_cifar20": 0.61, …}` of the model as it is."""
    if not labels:
        return {}
    train, test = _projections(training, model)
    return {f"knn_{name}": knn_accuracy(train, y, test, test_y) for name, (y, test_y) in labels.items()}


def linear_accuracy(train: torch.Tensor, labels: Labels, test: torch.Tensor, test_labels: Labels) -> float:
    """Multinomial logistic regression with an l2 penalty (C=1) by L-BFGS on the default device; accuracy of `test`."""
    device = pick_device(None)
    classes, y = np.unique(as_labels(labels), return_inverse=True)
    x, asked, wanted = train.to(device).float(), test.to(device).float(), torch.as_tensor(y, device=device)
    net = nn.Linear(x.shape[1], len(classes), device=device)
    nn.init.zeros_(net.weight)
    nn.init.zeros_(net.bias)
    optimiser = torch.optim.LBFGS(net.parameters(), max_iter=200, tolerance_change=1e-7, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        found = nn.functional.cross_entropy(net(x), wanted) + net.weight.square().sum() / (2 * len(x))
        found.backward()  # type: ignore[no-untyped-call]
        return found

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    predicted = classes[net(asked).argmax(1).cpu().numpy()]
    return float((predicted == as_labels(test_labels)).mean())


def _probe_at_end(training: Training, model: nn.ModuleDict, labels: Labelled, result: Row, out: Path) -> None:
    """Both probes of one pass over the images into `result["probe"]`, written to `out` as each is known."""
    if not labels:
        return
    train, test = _projections(training, model)
    for kind, accuracy in (("knn", knn_accuracy), ("linear", linear_accuracy)):
        for name, (y, test_y) in labels.items():
            result["probe"][f"{kind}_{name}"] = accuracy(train, y, test, test_y)
            write_json(out, result)


def _result(config: Config, stage: str, key: str, watch: Watch, device: str) -> Row:
    return {
        "stage": stage,
        "key": key,
        "epochs": config.stages[stage].epochs,
        "finished": False,
        "probe": {},
        "probes": watch.probes,
        "machine": facts(device, torch.get_num_threads()),
    }


def _tell(result: Row) -> None:
    print(f"{result['stage']} {result['key']}: {result['done']} of {result['epochs']} epochs", end="")
    if result["finished"]:
        print(f", {json.dumps(result['probe'])}")
    else:
        print(f"; NOT FINISHED, about {result['minutes_left']:.1f} minutes are left: the same command goes on")


if __name__ == "__main__":
    sys.exit(execute(parser(), run))
