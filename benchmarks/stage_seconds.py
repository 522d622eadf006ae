"""CPU seconds of an epoch of every method's stages on the digits by one thread, here and in another checkout, by turns.

    python benchmarks/stage_seconds.py                       # this checkout
    python benchmarks/stage_seconds.py --against ../before   # both, each round in new processes, and their ratio

Presets are as they are; what an earlier stage would hand over is drawn anew, since no number is compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from raymc.config import Config, Value
from raymc.distributed import Workers
from raymc.methods import METHODS
from raymc.space.space import load_space
from raymc.storage.stage_store import Store
from raymc.study.manifest import load_data
from raymc.training.feature_bank import Bank, BankedStage
from raymc.training.feed import Feed
from raymc.training.loop import Updates, train_epoch
from raymc.training.stages import clusters_of, enter, module_names, place, prepare, uses_bank

CPU = torch.device("cpu")
ONE_UPDATE: dict[str, Value] = {"finetune.alternating": False, "finetune.centers_by": "kmeans"}
CASES: dict[str, tuple[str, str, dict[str, Value]]] = {
    "NMCE stage 1": ("nmce_digits", "pretrain", {}),
    "NMCE heads": ("nmce_digits", "heads", {"heads.feature_bank": 0}),
    "NMCE heads behind a bank": ("nmce_digits", "heads", {"heads.feature_bank": 4}),
    "NMCE all": ("nmce_digits", "finetune", {"finetune.epochs": 10}),
    "MLC stage 1": ("mlc_digits", "pretrain", {}),
    "MLC heads": ("mlc_digits", "heads", {"heads.feature_bank": 0}),
    "MLC heads behind a bank": ("mlc_digits", "heads", {"heads.feature_bank": 4}),
    "GCML autoencoder": ("gcml_digits", "pretrain", {}),
    "GCML": ("gcml_digits", "finetune", {"finetune.centers_by": "kmeans"}),
    "GCML one update": ("gcml_digits", "finetune", ONE_UPDATE),
}


def seconds(space: str, name: str, over: dict[str, Value], folder: str) -> float:
    """The median of five epochs behind one that is not counted; of GCML's clustering those in which all losses act."""
    config: Config = load_space(space).pinned({**over, "seed": 0}).config()
    data, method = load_data(load_space(space), "data", folder, False), METHODS[config.method]
    stage, settings = next(one for one in method.stages(config) if one.name == name), config.stages[name]
    shape = tuple(data.train.x.shape[1:])
    drawn = stage.__class__(**{**vars(stage), "fresh": module_names(stage), "copies": (), "drop": ()})
    model = enter(method, drawn, config, shape, clusters_of(config, data), {}, 0)
    place(model, config, CPU, torch.float32)
    feed = Feed.build(data, config.augmentation, CPU, torch.float32, False, Workers())
    if uses_bank(settings):
        banked = BankedStage(model, feed, Bank(model, config, settings, feed, Store(folder), None))
        model, feed = banked.model, banked.feed
        _ = banked.feed.stored
    prepare(model, stage, settings.frozen_statistics)
    if stage.begin is not None:
        stage.begin(model, feed, settings, 0)
    updates, first = Updates(model, stage, settings, Workers(), None), getattr(settings, "start_epoch", 0)
    times = []
    for epoch in range(first, first + 6):
        begun = time.process_time()
        train_epoch(updates, feed, 0, epoch)
        times.append(time.process_time() - begun)
    return statistics.median(times[1:])


def once(tree: Path) -> dict[str, float]:
    """Every case in a process of its own checkout."""
    words = [sys.executable, __file__]
    done = subprocess.run(words, env=os.environ | {"PYTHONPATH": str(tree)}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Print JSON: seconds by case, or those of both checkouts and the median of their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.against is None:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps({title: seconds(*case, folder) for title, case in CASES.items()}))
        return
    here = Path(__file__).resolve().parent.parent
    rounds = [(once(args.against.resolve()), once(here)) for _ in range(args.rounds)]
    for title in CASES:
        before, now = ([one[at][title] for one in rounds] for at in (0, 1))
        ratio = statistics.median(b / a for a, b in zip(before, now, strict=True))
        row = {"seconds_before": statistics.median(before), "seconds": statistics.median(now), "ratio": ratio}
        print(json.dumps({"case": title} | row))


if __name__ == "__main__":
    main()
