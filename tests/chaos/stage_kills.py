"""The machine of a shared stage killed: the stage is done again on another, and trials that need it hold nothing."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymc.config import Value
from raymc.execution.driver import plan_slots, run_work
from raymc.execution.live import Board
from raymc.execution.needs import Needs
from raymc.execution.trial import Plan, Report
from raymc.study.objective import Objective
from raymc.study.seed_queue import SeedQueue
from raymc.study.stage_keys import Needed
from raymc.study.stage_queue import StageQueue
from tests.chaos.machines import PATIENCE, Machines, wait_until

ACC = Objective("acc")


@dataclass(frozen=True)
class Sleeping:
    """Its stage notes its machine and sleeps until it is let go; a trial needs no time."""

    notes: Path

    def __call__(self, params: Mapping[str, Value], seed: int, out: Path, report: Report) -> dict[str, Any]:
        return {"metrics": {"acc": 0.5}, "stages": []}

    def stage(self, name: str, params: Mapping[str, Value], seed: int, out: Path, report: Report) -> dict[str, Any]:
        import ray

        report({"event": "plan"})
        with (self.notes / "machines").open("a") as file:
            file.write(f"{ray.get_runtime_context().get_node_id()}\n")
        while not (self.notes / "go").exists():
            time.sleep(0.1)
        return {"stages": [{"name": name, "epochs": 1, "cached": False, "seconds": 1.0, "key": "k"}]}

    def epochs(self, params: Mapping[str, Value]) -> dict[str, int]:
        return {"heads": 1}


def of_a_shared_stage(cluster: Machines, folder: Path, trials: int = 3) -> dict[str, Any]:
    """Kill the machine of a stage for which `trials` wait on two machines of one core; another one joins."""
    import ray

    cluster.fill(2)
    folder.mkdir(parents=True)
    queue = SeedQueue(folder, "stability", ACC, {0: {}}, range(trials))
    needed = [[Needed("pretrain", "k", {}, 0, True)]]
    work = StageQueue(queue, lambda task: folder, ACC, lambda task: needed, lambda key: False)
    slots = plan_slots(Needs(), [{"CPU": 1.0}] * 2, None, fixed=False)
    work.ahead = slots.count
    found: dict[str, Any] = {}
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(_search, work, folder, slots)
        wait_until(lambda: len(_machines(folder)) == 1, running)
        time.sleep(3.0)  # a trial that would hold a core has begun by now
        found["free"] = ray.available_resources().get("CPU", 0.0)  # type: ignore[no-untyped-call]
        cluster.kill(_machines(folder)[0])
        cluster.add()
        wait_until(lambda: len(_machines(folder)) == 2, running)
        (folder / "go").touch()
        found["shown"] = running.result(PATIENCE)
    return found | {"machines": _machines(folder)}


def _search(work: StageQueue, folder: Path, slots: Any) -> str:
    shown = io.StringIO()
    with Board("stage kills", "acc", work.left, stream=shown) as board:
        run_work(work, {"": (Plan(folder, ACC), Sleeping(folder))}, slots, board)
    return shown.getvalue()


def _machines(folder: Path) -> list[str]:
    file = folder / "machines"
    return file.read_text().split() if file.exists() else []
