"""GPU-hours that a search holds while its shared stage is trained: a simulation, with stages that sleep.

    python -m benchmarks.held_gpus --stages none trial own --minute 2 --out results.json

Queue, Ray Tune, stage store and lease are the real ones; GPUs are resources that two raylets of this machine are told
of, and a stage sleeps as long as it is modelled to take, a minute in `--minute` seconds. Of `--stages` `none` is how it
was: each trial brings its stages itself, and those that wait for the first one's `pretrain` hold their part of a GPU.
With `trial` it is trained before them on what a trial has, with `own` on whole GPUs (`resources.pretrain: {workers: 4,
gpus_per_worker: 1}`). Held is what Ray had reserved, asked ten times a second; `by_records` is what trainings had from
their beginning to their end, without the start of processes and what Tune takes between two.

With `--minute 0` nothing sleeps and there is no Ray: the same queue hands its tasks to a clock, for which a process
starts at once. On a busy machine that says what is held; the runs on Ray say that Ray does it.

Budget and seeds are those of the space; no trial is stopped early. The processes of trials are started before the
clock: here 16 share two cores, on a cluster each machine has its own.
"""

from __future__ import annotations

import argparse
import heapq
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna

from raymc.execution.driver import Slots, plan_slots, quiet_environment, run_work
from raymc.execution.live import Board
from raymc.execution.needs import Needs
from raymc.execution.trial import Plan, run_task
from raymc.provenance import versions
from raymc.space.space import Space, load_space
from raymc.storage.stage_store import Store
from raymc.study import files
from raymc.study.distributions import compile_space
from raymc.study.objective import Objective
from raymc.study.queue import TrialQueue

PRETRAIN = 16.6
"""Minutes of stage 1 of ResNet-18 on one GPU: 600 epochs of 1.66 s, as `docs/scaling.md` models them."""
ON_FOUR = 5.2
"""The same on four workers of one machine, an epoch in 0.52 s."""
HEADS, FINETUNE = 4.6, 11.0
"""Minutes of stages 2 and 3 on a quarter of a GPU, four times those of a whole one."""
KEY = "pretrain"
PRELOADED = "raymc.execution.trial,raymc.storage.stage_store,ray.tune"
OBJECTIVE = Objective("acc")


@dataclass(frozen=True)
class Sleeping:
    """A training whose stages sleep; a minute takes `minute` seconds. Its stage 1 is in the store, or it brings it."""

    storage: str
    minute: float
    gpus: int = 0

    def __call__(self, params: Mapping[str, Any], seed: int, out: Path, report: Any) -> dict[str, Any]:
        self._pretrain(PRETRAIN)
        for name, minutes in (("heads", HEADS), ("finetune", FINETUNE)):
            report({"event": "epoch", "stage": name, "epoch": 1, "epochs": 1, "loss": 0.0})
            time.sleep(minutes * self.minute)
        return {"metrics": {"acc": 0.5 + 0.01 * (seed % 7)}, "stages": []}

    def stage(self, name: str, params: Mapping[str, Any], seed: int, out: Path, report: Any) -> dict[str, Any]:
        with _workers(self.gpus):
            report({"event": "plan"})
            self._pretrain(ON_FOUR if self.gpus else PRETRAIN)
        return {"stages": []}

    def epochs(self, params: Mapping[str, Any]) -> dict[str, int]:
        return {"heads": 1}

    def _pretrain(self, minutes: float) -> None:
        store = Store(self.storage)
        lease = store.lease(KEY)
        if lease.acquire_unless(lambda: store.load(KEY)) is None:
            with lease:
                time.sleep(minutes * self.minute)
                store.save(KEY, {}, {})


@contextmanager
def _workers(gpus: int) -> Iterator[None]:
    """So many whole GPUs, held as Ray Train holds those of its workers."""
    if not gpus:
        yield
        return
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([{"GPU": 1.0}] * gpus)
    ray.get(group.ready())
    yield
    remove_placement_group(group)


class Meter(threading.Thread):
    """What is reserved of the GPUs, over the time since it was started."""

    def __init__(self, gpus: int) -> None:
        super().__init__(daemon=True)
        self.gpus, self.held, self.seconds = gpus, 0.0, 0.0
        self._over = threading.Event()

    def run(self) -> None:
        import ray

        at = begun = time.monotonic()
        while not self._over.wait(0.1):
            free = ray.available_resources().get("GPU", 0.0)  # type: ignore[no-untyped-call]
            now = time.monotonic()
            self.held += (self.gpus - free) * (now - at)
            at, self.seconds = now, now - begun

    def end(self) -> None:
        self._over.set()
        self.join()


@contextmanager
def made_up(gpus: int, processes: int, machines: int) -> Iterator[None]:
    """A Ray cluster of so many raylets on this machine, beside a head that trains nothing. All `gpus` and `processes`
    are spread over them; a raylet starts its processes, which import what a trial needs, before there is a trial.
    """
    import ray
    from ray.cluster_utils import Cluster
    from ray.tune.execution import class_cache

    class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = {}, set()  # else the processes are of no use
    cluster = Cluster()
    for cpus, share in ((0, 0), *[(processes // machines + 1, gpus // machines)] * machines):
        cluster.add_node(num_cpus=cpus, num_gpus=share, object_store_memory=2**27)
    ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        time.sleep(5.0 * processes)
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]


def simulate(space: Space, stages: str, gpus: int, concurrent: int, minute: float, machines: int) -> dict[str, Any]:
    """GPU-hours held and hours from start to end, in modelled hours."""
    one = space.resources.gpus_per_worker
    assert gpus == concurrent * one and gpus > 1
    with tempfile.TemporaryDirectory(prefix="raymc-") as place, made_up(gpus, concurrent, machines):
        folder = Path(place) / "study"
        folder.mkdir()
        queue = _queue(space, folder)
        training = Sleeping(place, minute, gpus if stages == "own" else 0)
        work, slots = _scheduled(queue, folder, stages, one, gpus, concurrent)
        meter = Meter(gpus)
        with Board(f"{stages}, {gpus} made-up GPUs", "acc", queue.left) as board:
            meter.start()
            run_work(work, {"": (Plan(folder, OBJECTIVE), training)}, slots, board)
            meter.end()
        counts = queue.counts()
        by_records = one * _seconds(folder, "trials", "confirm") + (training.gpus or one) * _seconds(folder, "stages")
    hour = 60 * minute
    found = {"gpu_hours_held": meter.held / hour, "by_records": by_records / hour, "hours": meter.seconds / hour}
    return {"stages": stages, **{name: round(value, 3) for name, value in found.items()}, "trials": counts}


def reckon(space: Space, stages: str, gpus: int, concurrent: int) -> dict[str, Any]:
    """The same as the queue decides it, where nothing but the stages takes time."""
    one = space.resources.gpus_per_worker
    with tempfile.TemporaryDirectory(prefix="raymc-") as place:
        folder = Path(place) / "study"
        folder.mkdir()
        queue = _queue(space, folder)
        work, _ = _scheduled(queue, folder, stages, one, gpus, concurrent)
        plan, training = Plan(folder, OBJECTIVE), Sleeping(place, 0.0)
        running: list[tuple[float, int, float, Any]] = []  # its end, a number, what it holds, the task
        now, held, begun, there = 0.0, 0.0, 0, PRETRAIN if stages == "none" else 0.0
        while True:
            while len(running) < concurrent and (task := work.next()) is not None:
                own, of_stage = stages == "own", task.kind == "stage"
                minutes = (ON_FOUR if own else PRETRAIN) if of_stage else len(task.seeds) * (HEADS + FINETUNE)
                end, part = max(now, 0.0 if of_stage else there) + minutes, gpus if of_stage and own else one
                heapq.heappush(running, (end, begun := begun + 1, part, task))
                held += part * (end - now)
            if not running:
                break
            now, _, _, task = heapq.heappop(running)
            run_task(plan, task, training, lambda row: None)
            work.ended(task)
        found = {"gpu_hours_held": held / 60, "hours": now / 60}
        return {"stages": stages, **{name: round(value, 3) for name, value in found.items()}, "trials": queue.counts()}


def _seconds(folder: Path, *kinds: str) -> float:
    """Of trainings, from their beginning to their end, without the start of their processes."""
    places = (place for kind in kinds for place in (folder / kind).glob("*"))
    return sum(run.seconds for place in places for run in files.read_seeds(place))


def _queue(space: Space, folder: Path) -> TrialQueue:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    budget, confirm = space.budget, space.budget.confirm
    study = optuna.create_study(direction="maximize")
    fresh = range(1000, 1000 + confirm.seeds) if confirm else ()
    return TrialQueue(
        folder,
        study,
        compile_space(space.params),
        objective=OBJECTIVE,
        trials=budget.trials,
        seeds=range(budget.seeds),
        seed=0,
        top=confirm.top if confirm else 0,
        fresh=tuple(fresh),
    )


def _scheduled(
    queue: TrialQueue, folder: Path, stages: str, one: float, gpus: int, concurrent: int
) -> tuple[Any, Slots]:
    needs = Needs(1, one, 1.0)
    nodes = [{"CPU": 4.0 * concurrent, "GPU": float(gpus)}]
    if stages == "none":  # as a version does that knows no other way
        return queue, plan_slots(needs, nodes, concurrent, fixed=False)
    from raymc.study.stage_keys import Needed
    from raymc.study.stage_queue import StageQueue

    if stages == "own":
        needs = replace(needs, stages=(("pretrain", Needs(gpus, 1.0, 1.0)),))
    store = Store(str(folder.parent))
    shared = StageQueue(
        queue,
        lambda task: folder,
        OBJECTIVE,
        lambda task: [[Needed("pretrain", KEY, {}, 0, True)]],
        lambda key: store.load(key) is not None,
        frozenset(name for name, _ in needs.stages),
        queue.restart_clock,
    )
    shared.ahead = concurrent
    return shared, plan_slots(needs, nodes, concurrent, fixed=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", choices=("none", "trial", "own"), default=["none", "trial", "own"])
    parser.add_argument("--space", default="nmce_cifar20")
    parser.add_argument("--gpus", type=int, default=4)
    parser.add_argument("--concurrent", type=int, default=16)
    parser.add_argument("--machines", type=int, default=2, help="raylets that share the GPUs")
    parser.add_argument("--minute", type=float, default=2.0, help="seconds that a modelled minute takes")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_preload_python_modules": PRELOADED}
    os.environ["RAY_memory_monitor_refresh_ms"] = "0"  # sleeping takes no memory; what else is on the machine may
    quiet_environment()
    rows = []
    for stages in args.stages:
        asked_of = (load_space(args.space), stages, args.gpus, args.concurrent)
        rows.append(simulate(*asked_of, args.minute, args.machines) if args.minute else reckon(*asked_of))
        print(json.dumps(rows[-1]), flush=True)
    asked = {name: getattr(args, name) for name in ("space", "gpus", "concurrent", "machines", "minute")}
    if args.out:
        args.out.write_text(json.dumps({**asked, "rows": rows, "versions": versions()}, indent=2))


if __name__ == "__main__":
    main()
