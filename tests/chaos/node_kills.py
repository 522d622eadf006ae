"""Machines of a cluster killed in the middle of a training: it goes on from its last epoch, and ends as if unbroken.

    python -m tests.chaos.node_kills --times 3 --out reports/DATE-many-nodes

Three ways: a training on two machines, one of which is killed and another joins; the same with `min_workers: 1`, where
none joins; a search's trial with one worker, whose machine is killed. Each prints the seconds from the kill to the next
new epoch, how many epochs were told twice, how many of those had been in the store at the kill (none may), and how far
the loss curve is from that of one process that nobody killed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.machine import facts
from raymc.atomic import write_json
from raymc.config import Config, Value, resolve
from raymc.execution.driver import plan_slots, run_work
from raymc.execution.live import Board
from raymc.execution.needs import Needs
from raymc.execution.train_seed import TrainSeed
from raymc.execution.trial import Plan, Report
from raymc.execution.worker import Job, run_workers
from raymc.methods import METHODS
from raymc.provenance import versions
from raymc.space.space import make_space
from raymc.study.files import seed_folder
from raymc.study.objective import Objective
from raymc.study.seed_queue import SeedQueue
from raymc.training.run import run
from raymc.training.stages import seeds_of
from tests.chaos.machines import PATIENCE, Machines, machines, wait_until

Row = dict[str, Any]

NMCE = METHODS["nmce"]
SMALL: dict[str, Value] = {
    "pre_feature_dim": 32, "feature_dim": 16, "precision": "float64", "evaluate_every": 10,
    "pretrain.epochs": 6, "heads.epochs": 1, "finetune.epochs": 1,
}  # fmt: skip
EPOCHS = 8
KILL_AFTER = 3
"""Epochs of the first stage that are done at the kill."""


def small() -> Config:
    """Eight epochs in float64, so that another order of sums cannot pass for a lost epoch."""
    return resolve("nmce", "digits", "paper", NMCE.stage_settings, NMCE.presets["digits"]["paper"], SMALL)


def job(folder: Path) -> Job:
    return Job(
        config=small(),
        storage=str(folder / "store"),
        data=None,
        out=folder / "out",
        stage_seeds=seeds_of(tuple(NMCE.stage_settings), 0, 0, None),
    )


def unbroken(folder: Path) -> list[Row]:
    """The loss curve of one process."""
    alone = job(folder)
    run(alone.config, storage=alone.storage, out=alone.out, stage_seeds=alone.stage_seeds, device="cpu")
    return curve(alone.out)


def curve(out: Path) -> list[Row]:
    return [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]


def apart(mine: list[Row], theirs: list[Row]) -> float:
    """The largest relative difference of a loss; infinite where epochs are missing."""
    if [(row["stage"], row["epoch"]) for row in mine] != [(row["stage"], row["epoch"]) for row in theirs]:
        return float("inf")
    return max(abs(a["loss"] - b["loss"]) / abs(b["loss"]) for a, b in zip(mine, theirs, strict=True))


def on_two_machines(cluster: Machines, folder: Path, *, replaced: bool) -> Row:
    """Kill one of the two machines of a training with two workers; another joins, or one worker has to do."""
    cluster.fill(2)
    task, told = job(folder), folder / "told.jsonl"
    needs = Needs(2, 0.0, 1.0, min_workers=None if replaced else 1)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_workers, task, needs, [_listener(told)])
        wait_until(lambda: len(_epochs(told)) >= KILL_AFTER, running)
        stored = _stored(folder)
        killed = cluster.kill(cluster.alive[0])
        if replaced:
            cluster.add()
        running.result(PATIENCE)
    return _summary("replaced" if replaced else "elastic", _epochs(told), killed, stored, curve(task.out))


def of_a_search(cluster: Machines, folder: Path) -> Row:
    """Kill the machine on which the only worker of a search's trial is; another one takes the trial up."""
    cluster.fill(2)
    content = {"method": "nmce", "dataset": "digits", "fixed": SMALL}
    trainable = Slow(make_space(folder / "small.yaml", content), str(folder / "store"), "", 0, "pretrain")
    folder.mkdir(parents=True, exist_ok=True)
    queue = SeedQueue(folder, "stability", Objective("acc"), {0: {}}, (0,))
    out = seed_folder(folder, "stability", 0, 0)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(_search, queue, folder, trainable)
        wait_until(lambda: len(_epochs(out / "told.jsonl")) >= KILL_AFTER, running)
        stored = _stored(folder)
        killed = cluster.kill((out / "machine").read_text())
        running.result(PATIENCE)
    return _summary("alone", _epochs(out / "told.jsonl"), killed, stored, curve(out))


def _search(queue: SeedQueue, folder: Path, trainable: TrainSeed) -> None:
    slots = plan_slots(Needs(), [{"CPU": 1.0}], 1, fixed=True)
    with Board("node kills", "acc", queue.left, stream=io.StringIO()) as board:
        run_work(queue, {"": (Plan(folder, Objective("acc")), trainable)}, slots, board)


class Slow(TrainSeed):
    """Notes its machine and its epochs, each of which takes a second."""

    def __call__(self, params: Mapping[str, Value], seed: int, out: Path, report: Report) -> Row:
        import ray

        out.mkdir(parents=True, exist_ok=True)
        (out / "machine").write_text(ray.get_runtime_context().get_node_id())

        def slowly(row: Row) -> None:
            report(row)
            _note(out / "told.jsonl", row, 1)
            time.sleep(1.0)

        return super().__call__(params, seed, out, slowly)


def _listener(told: Path) -> Any:
    """A Ray Train callback that notes rank 0's epochs and how many workers reported them."""
    from ray.train import UserCallback

    class Listener(UserCallback):
        def after_report(self, run_context: Any, metrics: list[Row], checkpoint: Any) -> None:
            _note(told, metrics[0], len(metrics))

    return Listener()


def _note(told: Path, row: Row, workers: int) -> None:
    with told.open("a") as file:
        file.write(json.dumps({"time": time.time(), "workers": workers, **row}) + "\n")


def _epochs(told: Path) -> list[Row]:
    if not told.exists():
        return []
    rows = [json.loads(line) for line in told.read_text().splitlines()]
    return [row for row in rows if row["event"] == "epoch"]


def _stored(folder: Path) -> set[tuple[str, int]]:
    """Stage and number of each epoch that a result or a checkpoint in the store holds."""
    rows: list[Row] = []
    for file in (folder / "store" / "stages").glob("*/*.json"):
        with contextlib.suppress(FileNotFoundError):  # a checkpoint goes when its stage ends
            rows += json.loads(file.read_text())["meta"]["curve"]
    return {(row["stage"], row["epoch"]) for row in rows}


def _summary(way: str, epochs: list[Row], killed: float, stored: set[tuple[str, int]], rows: list[Row]) -> Row:
    names = [(row["stage"], row["epoch"]) for row in epochs]
    new = [row["time"] for at, row in enumerate(epochs) if names[at] not in names[:at] and row["time"] > killed]
    return {
        "way": way,
        "epochs_before": sum(row["time"] <= killed for row in epochs),
        "seconds_to_next_epoch": new[0] - killed,
        "epochs_twice": len(names) - len(set(names)),
        "epochs_stored": len(stored),
        "stored_twice": sum(names.count(name) > 1 for name in stored),
        "workers": [row["workers"] for row in epochs],
        "curve": rows,
    }


WAYS: dict[str, Callable[[Machines, Path], Row]] = {
    "replaced": partial(on_two_machines, replaced=True),
    "elastic": partial(on_two_machines, replaced=False),
    "alone": of_a_search,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as place, machines() as cluster:
        expected = unbroken(Path(place) / "unbroken")
        for number in range(args.times):
            for way in args.ways:
                folder = Path(place) / f"{way}-{number}"
                row = WAYS[way](cluster, folder)
                rows.append(row | {"curve": apart(row["curve"], expected)})
                print(rows[-1], flush=True)
    if args.out:
        write_json(args.out / "node_kills.json", {"machine": facts("cpu", 1), "versions": versions(), "rows": rows})


if __name__ == "__main__":
    main()
