"""Ray Train's workers as one function call that reports as it goes."""

from __future__ import annotations

import json
import tempfile
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from raymc.errors import StageHeld
from raymc.execution.needs import Needs
from raymc.execution.worker import Job, run_workers
from raymc.storage.stage_store import Store
from raymc.training.loop import Report, Row

POLL_SECONDS = 0.2


def run_and_report(job: Job, needs: Needs, report: Report, nodes: str = "") -> Row:
    """Train under Ray Train and report from here what rank 0 reports there; the content of `metrics.json`.

    `nodes`: on which machines, see `TrainSeed.on_nodes`.

    Ray Train runs in a thread: on the main one it would take Ctrl-C for itself.
    """
    with tempfile.TemporaryDirectory(prefix="raymc-", ignore_cleanup_errors=True) as folder:
        events = Path(folder) / "events.jsonl"
        reported = 0
        pool = ThreadPoolExecutor(1)
        training = pool.submit(_train, job, needs, events, nodes)
        try:
            while not wait([training], POLL_SECONDS).done:
                reported += _tell(events, reported, report)
        finally:  # when interrupted, the thread ends with Ray
            pool.shutdown(wait=False)
        _tell(events, reported, report)
        return training.result()


def _train(job: Job, needs: Needs, events: Path, nodes: str) -> Row:
    """Train; where another process has a stage in hand, the workers go, and come when it is there.

    Nothing is held meanwhile, and a group of workers may take a collective that is slow for one that hangs.
    """
    while True:
        try:
            return run_workers(job, needs, [_relay(events)], nodes)
        except StageHeld as held:
            lease = Store(job.storage, wait=True).lease(held.key)
            lease.acquire_unless(lambda: None)
            lease.release()
            _append(events, {"event": "held", "idle": lease.waited})


def _append(events: Path, row: Row) -> None:
    with events.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _relay(events: Path) -> Any:
    """A Ray Train callback that appends rank 0's reports to a file, each with the number of `workers` at work.

    It runs in Train's controller, a process of its own that Ray keeps on the machine of the one that waits here.
    """
    from ray.train import UserCallback

    class Relay(UserCallback):
        def after_report(self, run_context: Any, metrics: list[Row], checkpoint: Any) -> None:
            row = {key: value for key, value in metrics[0].items() if key != "node"}
            _append(events, {**row, "workers": len(metrics)})

    return Relay()


def _tell(events: Path, reported: int, report: Report) -> int:
    """Report the complete lines after the first `reported`; how many there were."""
    try:
        text = events.read_text(encoding="utf-8")
    except FileNotFoundError:
        return 0
    lines = text.splitlines(keepends=True)[reported:]
    complete = [line for line in lines if line.endswith("\n")]
    for line in complete:
        report(json.loads(line))
    return len(complete)
