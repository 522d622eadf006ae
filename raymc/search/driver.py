"""Runs the units of a `Work` as trials of Ray Tune, as many at a time as the machine or the cluster holds."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import raymc
from raymc.errors import InputError, StorageError
from raymc.scale.local import ray_session
from raymc.search.ledger import Work
from raymc.search.live import Board
from raymc.search.records import REFUSED, Row, unit_of
from raymc.search.unit import Body, Plan, run_unit

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

B = TypeVar("B", bound=Body)

PASSES = 3
"""How often units that Tune lost are started again before the search gives up."""

ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean the same in a trial as on the command line
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours: nothing has to be saved first
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that went wrong has no metric
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our records replace five files per trial
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # a resume reads our records, not Tune's snapshots
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "600",  # a trial that cleans up slowly must not fail the next one
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "60",
}


@dataclass(frozen=True)
class Needs:
    """What one training takes."""

    workers: int = 1
    gpus_per_worker: float = 0.0
    cpus_per_worker: float = 1.0


@dataclass(frozen=True)
class Slots:
    """How many units run at a time, and what Ray reserves for each of them.

    `gpus_per_worker` and `cpus_per_worker` are what a worker gets; they can be less than was asked for.
    """

    count: int
    reserved: Mapping[str, float]
    gpus_per_worker: float
    cpus_per_worker: float


def plan_slots(needs: Needs, total: Mapping[str, float], concurrent: int | None, fixed: bool) -> Slots:
    """Slots of a machine or cluster with the resources `total` (`CPU`, `GPU`).

    `fixed` says that `total` cannot grow (this machine): then a training that asks for more than there is gets
    what there is, and with `concurrent` that many share the machine. On a cluster missing nodes are waited for.
    """
    cpus, gpus = needs.cpus_per_worker, needs.gpus_per_worker
    if fixed:
        share = (concurrent or 1) * needs.workers
        cpus = min(cpus, total.get("CPU", 1.0) / share)
        gpus = min(gpus, total.get("GPU", 0.0) / share)
    # A trial with workers of its own only waits for them; Ray has no trial that reserves nothing.
    waiting = {} if needs.workers == 1 else {"driver": 1.0} if "driver" in total else {"CPU": 0.01}
    room = [total.get("CPU", 1.0) / (cpus * needs.workers + waiting.get("CPU", 0.0))]
    room += [total.get("GPU", 0.0) / (gpus * needs.workers)] if gpus else []
    count = concurrent or max(1, math.floor(min(room) + 1e-9))
    return Slots(count, waiting or {"CPU": cpus} | ({"GPU": gpus} if gpus else {}), gpus, cpus)


@dataclass(frozen=True)
class Place:
    """Where units run: on this machine or the cluster at `address`, `concurrent` at a time (None: what fits)."""

    needs: Needs
    concurrent: int | None = None
    address: str | None = None


def run_on_ray(
    work: Work,
    plan: Plan,
    make_body: Callable[[Slots], B],
    place: Place,
    title: str,
    tick: Callable[[], None],
    make_scheduler: Callable[[B], TrialScheduler | None],
) -> None:
    """Start or join Ray, run all units of `work` with a live table, and leave Ray again.

    `tick` is called whenever a unit has ended.
    """
    quiet_environment()
    # Without the dashboard's State API, Ray leaks the workers of a stopped Train run.
    with ray_session(place.address, dashboard=place.needs.workers > 1):
        slots = plan_slots(place.needs, total_resources(), place.concurrent, fixed=place.address is None)
        body = make_body(slots)
        with Board(f"{title}, {describe(slots, place.needs)}", plan.judge.metric, work.left, tick=tick) as board:
            run_work(work, plan, body, slots, board, make_scheduler(body))


def quiet_environment() -> None:
    """Settings that Ray reads when it is imported or started, here and in its workers."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    root = Path(raymc.__file__).parents[1]
    if root.name != "site-packages":  # not installed: Ray's workers must find this folder too
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = f"{root}{os.pathsep}{before}" if before else str(root)


def run_work(
    work: Work, plan: Plan, body: Body, slots: Slots, board: Board, scheduler: TrialScheduler | None = None
) -> None:
    """Run all units of `work`. Ray must be initialised after `quiet_environment`.

    Raises StorageError, or an error that came of it, when a file is refused; RuntimeError when units stay unfinished
    although Tune says that it is done.
    """
    for _ in range(PASSES):
        if work.left == 0:
            return
        _fit(work, plan, body, slots, board, scheduler)
    if work.left:
        raise RuntimeError(f"Ray Tune ended {PASSES} times with {work.left} units still to run")


def _fit(work: Work, plan: Plan, body: Body, slots: Slots, board: Board, scheduler: TrialScheduler | None) -> None:
    from ray import tune

    from raymc.search.tuning import UnitSearch, Watch

    search = UnitSearch(work, board)
    with _folder() as folder:
        tuner = tune.Tuner(
            tune.with_resources(_trainable(plan, body), dict(slots.reserved)),
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=scheduler,
                num_samples=work.left,
                max_concurrent_trials=slots.count,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name="units",
                storage_path=str(folder),
                verbose=0,
                callbacks=[Watch(search)],
                failure_config=tune.FailureConfig(max_failures=3),
            ),
        )
        tuner.fit()


def _trainable(plan: Plan, body: Body) -> Callable[[Row], None]:
    """The function that Tune runs for each unit, in a process that it uses for one unit after the other."""

    def raymc_unit(config: Row) -> None:
        from ray import tune

        def report(row: Row) -> None:
            tune.report(row)

        try:
            run_unit(plan, unit_of(config["unit"]), body, report)
        except StorageError as error:  # no other process would fare better: the search ends here
            report({"state": REFUSED, "error": str(error)})

    return raymc_unit


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for what Tune writes and nobody reads; short, since sockets' paths are."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="raymc-"))
    except OSError as error:
        raise InputError(f"no folder for temporary files: {error}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def describe(slots: Slots, needs: Needs) -> str:
    """`2 at a time, 1 CPU each`, with what was asked for and is not there."""
    each = f"{slots.cpus_per_worker:g} CPU" + (f" + {slots.gpus_per_worker:g} GPU" if slots.gpus_per_worker else "")
    per = f" for each of {needs.workers} workers" if needs.workers > 1 else " each"
    missing = " (no GPU here)" if needs.gpus_per_worker and not slots.gpus_per_worker else ""
    return f"{slots.count} at a time, {each}{per}{missing}"


def total_resources() -> dict[str, Any]:
    """CPUs and GPUs of the Ray cluster that this process is in."""
    import ray

    return dict(ray.cluster_resources())  # type: ignore[no-untyped-call]
