"""What the process of a trial of Tune does with a task: unpack it, work on it, say where its machine is at fault."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray import cloudpickle, tune

from raymc.errors import MachineError, StorageError, StorageLostError
from raymc.execution.remote import at_work
from raymc.execution.requirements import check_space, lacking
from raymc.execution.trial import Plan, Trainable, WithWorkers, run_task
from raymc.masking import masked
from raymc.storage.shared_folder import require_folder
from raymc.study.records import BEGUN, PLACED, REFUSED, UNFIT, Row, Task, task_of


def work_on(payload: bytes, config: Mapping[str, Any], place: Mapping[str, str]) -> None:
    """Run the task of a trial's `config`; `payload` are the pickled trainings, `place` says which machine this is."""

    def report(row: Row) -> None:
        tune.report({**place, **row})

    report({"state": PLACED})
    task = task_of(config["task"])
    try:
        plan, trainable = cloudpickle.loads(payload)[task.configuration]
        if isinstance(trainable, WithWorkers):
            trainable = trainable.on_nodes(config["nodes"])
        _run(plan, task, trainable, report)
    except ImportError as error:
        report({"state": UNFIT, "error": masked(lacking(error).message)})
    except MachineError as error:
        where = {"node": error.node, "machine": error.machine} if error.node else {}
        report({"state": UNFIT, "error": masked(error.message), **where})
    except StorageError as error:  # no other process would fare better: the search ends here
        report({"state": REFUSED, "error": str(error)})
    except StorageLostError as error:
        report({"state": REFUSED, "error": str(error), "lost": True})


def _run(plan: Plan, task: Task, trainable: Trainable, report: Any) -> None:
    try:
        with at_work(plan, task) as here:
            require_folder(here.folder)
            report({"state": BEGUN})
            run_task(here, task, trainable, report)
    except StorageError:
        if plan.uri is not None:  # then its files are in a folder of this machine first
            check_space()
        raise
