"""Stage 1 on a machine that is lent by the minute: as many epochs as fit, and on from there in the next command.

    python -m benchmarks.gpu_stage1 nmce_cifar20 pretrain.epochs=600 --minutes 9 --name cifar100-nmce --out "$OUT"

Needs neither network nor ray, mlflow, optuna. The number of epochs is part of the stage's key (the learning rate falls
to 0 over them), so that a training that was cut is not the result of fewer: the script says how far it came and what is
left. Below --out: `curve.jsonl`, a line per epoch as it ends; `stage1.json`; of a finished stage the checkpoint's
folder, written before the probes. CIFAR's 20 and 100 classes have the same images: `--probe cifar20 cifar100` scores
both by one linear SVM each on the projection (fitted on the training split, the accuracy is that of the held-out one).
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

import torch

from benchmarks.machine import facts
from raymc import datasets
from raymc.cli import Parser, execute, storage_root
from raymc.config import Config, parse_overrides
from raymc.datasets import data_root, load
from raymc.errors import InputError
from raymc.methods.base import Stage
from raymc.metrics.probes import knn_accuracy, svm_accuracy
from raymc.seed_parts import Seed
from raymc.space import load_space
from raymc.training import evaluate
from raymc.training.export import export
from raymc.training.loop import Hooks, Progress, Row
from raymc.training.outputs import write_json
from raymc.training.run import ALONE, Training, pick_device
from raymc.training.smoke import limited
from raymc.training.stages import seeds_of, stage_key

RESERVE = 1.0
"""Minutes kept for features, shards and the SVM."""


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
        self._last = time.monotonic()
        (out / "curve.jsonl").write_text("")

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
        self._last = time.monotonic()

    @property
    def pace(self) -> float:
        """Seconds of an epoch; the first one of a command warms up."""
        return statistics.median(self.seconds[1:] or self.seconds or [0.0])

    def is_over(self) -> bool:
        return time.monotonic() + self.pace > self.until

    def add(self, rows: Sequence[Row]) -> None:
        self.rows += rows
        with (self.out / "curve.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


class Timed(Training):
    """Ends when the time is up and the epochs so far have been saved."""

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


def run(args: argparse.Namespace) -> Row:
    """Train until the stage or the time ends; the content of `stage1.json`."""
    began = time.monotonic()
    space = load_space(args.space)
    config = space.config(parse_overrides(args.overrides) | {"seed": args.seed})
    seeds = seeds_of(tuple(space.stage_keys), args.seed, 0, config.seeds_from, config.varies)
    data = str(data_root(args.data))
    args.out.mkdir(parents=True, exist_ok=True)
    watch = Watch(args.out, began + 60 * (args.minutes - RESERVE), args.probe_every)
    training = _training(config, storage_root(args), data, seeds, watch)
    stage = training.method.stages(config)[0]
    model = training.enter(stage, {})
    watch.probe = lambda: _probe(training, model, knn_accuracy, "knn", args.probe, data)
    seed = seeds[stage.name]
    key = stage_key(stage, config, model, training.dataset.fingerprint, seed, None)
    try:
        rows, stored = training.obtain(stage, model, key, seed, anew=False, needed=False)
    except TimeIsUp:
        rows, stored = [], False
    if stored:
        watch.add(rows)
    result = _result(config, stage.name, key, watch, str(training.device)) | {"finished": bool(rows)}
    write_json(args.out / "stage1.json", result)
    if rows:
        command = shlex.join(["python", "-m", "raymc.train", space.name, *args.overrides, "--seed", str(args.seed)])
        made_by = {"space": space.name, "command": command}
        export(config, stage.name, seeds, args.out / args.name, storage=storage_root(args), data=data, made_by=made_by)
        for accuracy, name in ((knn_accuracy, "knn"), (svm_accuracy, "svm")):
            result["probe"] |= _probe(training, model, accuracy, name, args.probe, data)
            write_json(args.out / "stage1.json", result)
    _tell(result)
    return result


def _training(config: Config, storage: str, data: str, seeds: Mapping[str, Seed], watch: Watch) -> Training:
    dataset = limited(datasets.load_once(config, data), config)
    training = Timed(config, dataset, storage, dict(seeds), ALONE, pick_device(None), watch, smoke=False)
    training.watch = watch
    return training


def _probe(training: Training, model: Any, accuracy: Any, name: str, labels: Sequence[str], data: str) -> Row:
    """`{"knn_cifar20": 0.61, …}`: of the projection, for each set of labels that these images have."""
    own = training.dataset
    if own.test is None:
        return {}
    train, test = (
        evaluate.features(training.method, model, training.feed, split.x)["projection"]
        for split in (own.train, own.test)
    )
    found = {}
    for other in labels or [own.name]:
        known = own if other == own.name else load(other, data)
        if known.fingerprint != own.fingerprint or known.test is None:
            raise InputError(f"--probe: {other} has not the images of {own.name}")
        assert known.train.y is not None and known.test.y is not None
        found[f"{name}_{other}"] = accuracy(train, known.train.y, test, known.test.y)
    return found


def _result(config: Config, stage: str, key: str, watch: Watch, device: str) -> Row:
    epochs, done = config.stages[stage].epochs, len(watch.rows)
    return {
        "stage": stage,
        "key": key,
        "epochs": epochs,
        "done": done,
        "seconds_per_epoch": watch.pace,
        "minutes_left": (epochs - done) * watch.pace / 60,
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
