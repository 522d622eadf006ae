"""A training that does nothing, and a driver that runs tasks one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from raymc.execution import session
from raymc.execution.driver import Slots
from raymc.execution.trial import Plan, run_task
from raymc.reporting.search.outcome import finish
from raymc.study.objective import Objective
from raymc.study.queue import TrialQueue
from raymc.study.records import task_of, task_row
from raymc.study.request import Request
from raymc.study.seed_queue import Work

SPACE: dict[str, BaseDistribution] = {
    "heads.weight_decay": FloatDistribution(1e-5, 1e-2, log=True),
    "heads.epochs": IntDistribution(2, 6),
}
FIRST = {"heads.weight_decay": 1e-3, "heads.epochs": 3}


def tune(request: Request) -> dict[str, Any]:
    """What `raymc tune` does with its options."""
    return session.tune(request, finish)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours may catch it."""


ACC = Objective("acc")


class FakeTrainable:
    """Scores a configuration by a formula; `calls` lists the trainings that began, `ended` those that came to an end,
    `stages` the stages that were trained before them.

    `before` is called before each epoch and may raise.
    """

    def __init__(
        self, before: Callable[[Mapping[str, Any], int, int], None] = lambda params, seed, epoch: None
    ) -> None:
        self.before = before
        self.calls: list[tuple[str, int]] = []
        self.stages: list[str] = []
        self.ended: list[tuple[str, int]] = []

    def __call__(
        self, params: Mapping[str, Any], seed: int, out: Path, report: Callable[[Any], None]
    ) -> dict[str, Any]:
        self.calls.append((out.parent.name, seed))
        out.mkdir(parents=True, exist_ok=True)
        epochs = params.get("heads.epochs", 3)
        for epoch in range(1, epochs + 1):
            self.before(params, seed, epoch)
            row = {"loss": 1 / epoch, "acc": accuracy(params, seed)}
            report({"event": "epoch", "stage": "heads", "epoch": epoch, "epochs": epochs, **row})
        stage = {"name": "heads", "epochs": epochs, "cached": False, "seconds": 0.0, "key": "0"}
        report({"event": "stage", **stage})
        metrics = {"acc": accuracy(params, seed), "nmi": 0.5}
        report({"event": "done", "metrics": metrics})
        self.ended.append((f"{out.parent.parent.name}/{out.parent.name}", seed))
        return {"metrics": metrics, "stages": [stage]}

    def stage(
        self, name: str, params: Mapping[str, Any], seed: int, out: Path, report: Callable[[Any], None]
    ) -> dict[str, Any]:
        self.stages.append(name)
        return {"stages": [{"name": name, "epochs": 3, "cached": False, "seconds": 0.0, "key": "0"}]}

    def epochs(self, params: Mapping[str, Any]) -> dict[str, int]:
        return {"heads": params.get("heads.epochs", 3)}


def accuracy(params: Mapping[str, Any], seed: int) -> float:
    """Best at weight decay 1e-3 and many epochs, a little different for each seed."""
    import math

    distance = abs(math.log10(params.get("heads.weight_decay", 1e-3)) + 3)
    return 0.9 - 0.1 * distance + 0.01 * params.get("heads.epochs", 3) + 0.001 * (seed % 7)


def make_queue(
    folder: Path, study: optuna.Study, space: Mapping[str, BaseDistribution] = SPACE, **changes: Any
) -> TrialQueue:
    settings: dict[str, Any] = {
        "objective": Objective("acc"), "trials": 5, "seeds": (0, 1), "seed": 0, "top": 2, "fresh": (1000, 1001)
    }  # fmt: skip
    return TrialQueue(folder, study, space, **settings | changes)


def new_study(mode: str | list[str] = "maximize", storage: Any = None) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    modes = [mode] if isinstance(mode, str) else mode
    return optuna.create_study(directions=modes, storage=storage, study_name="s")


def run_here(
    work: Work,
    folder: Path,
    trainable: FakeTrainable,
    fidelity: str = "none",
    hear: Callable[[Any, dict[str, Any]], None] | None = None,
    objective: Objective = ACC,
) -> list[Any]:
    """Run all tasks in turn; the tasks in the order in which they started. `hear(task, row)` gets each report."""
    tasks = []
    plan = Plan(folder, objective, fidelity)
    while (task := work.next()) is not None:
        task = task_of(task_row(task))
        tasks.append(task)

        def report(row: dict[str, Any], task: Any = task) -> None:
            work.on_report(task, row)
            if hear is not None:
                hear(task, row)

        run_task(plan, task, trainable, report)
        work.ended(task)
    assert work.left == 0
    return tasks


def driver_here(choose: Callable[[Any], Any], slots: int = 1, flights: list[list[Any]] | None = None) -> Any:
    """Stands for `run_on_ray`: tasks run in this process, as many begun as there are slots, the first begun first.

    `choose` gives what a task runs for the real training; `flights` gets the tasks that were in flight, at each start.
    """

    def run(work: Any, make: Any, place: Any, title: str, tick: Any = lambda: None) -> None:
        trainings, running = make(Slots(slots, {}, 0.0, 1.0)), []
        while True:
            while len(running) < slots and (task := work.next()) is not None:
                running.append(task)
                if flights is not None:
                    flights.append(list(running))
            if not running:
                return
            task = running[0]
            plan, real = trainings[task.configuration]
            run_task(plan, task, choose(real), lambda row: None)
            work.ended(running.pop(0))
            tick()

    return run


class FakeTracker:
    """Stands for MLflow; `begun` are the runs that were asked for, `artifacts` the files of each."""

    begun: list[dict[str, Any]] = []  # noqa: RUF012
    artifacts: list[tuple[str, str]] = []  # noqa: RUF012

    refusal: str | None = None

    def __init__(self, folder: Path, **facts: Any) -> None:
        assert folder.is_dir()
        self.begun.append(facts)
        self.study = facts["study"]

    def start(self) -> None:
        pass

    def close(self, timeout: float = 0.0) -> bool:
        return True

    def __exit__(self, *_: object) -> None:
        pass

    def artifact(self, path: Path, folder: str | None = None) -> None:
        assert path.is_file() and folder == "report"
        self.artifacts.append((self.study, path.name))

    def log_statistics(self, statistics: Mapping[str, Any], step: int) -> None:
        pass
