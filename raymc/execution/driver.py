"""Runs the tasks of a `Work` as trials of Ray Tune, as many at a time as the machine or the cluster holds."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import raymc
from raymc.errors import InputError, TrainingError
from raymc.execution.cluster import ENVIRONMENT, ray_session
from raymc.execution.failures import alive_nodes
from raymc.execution.live import Board
from raymc.execution.needs import Needs
from raymc.execution.nodes import NODE, check_shared, machines
from raymc.execution.ray_internals import HEAD, keep_here, lost_calls_are_lost_actors
from raymc.execution.room import at_a_time, check_room, held
from raymc.execution.trial import Plan, Trainable
from raymc.study.records import UNFIT, Resources, Row
from raymc.study.seed_queue import Work

Trainings = Mapping[str, tuple[Plan, Trainable]]
"""Where tasks of a configuration leave their results and how they train, by the configuration's name."""

UNKNOWN = 8
"""Trainings at a time on a cluster of which no machine holds one yet."""

WAIT_SECONDS = 120.0
"""How long a search on a cluster waits for machines where none is left that can train; another may be coming up."""

WAITING = {HEAD: 0.001}
"""What a trial takes that only waits for its workers: nothing that they need. The head outlives the other machines."""

CLOUD_KEYS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"}
"""Tune would send them to each trial. A machine has its own: a role, or what its Ray was started with."""


@dataclass(frozen=True)
class Slots:
    """How many tasks run at a time, and what Ray reserves for each of them.

    `gpus_per_worker` and `cpus_per_worker` are what a worker gets; they can be less than was asked for. `assumed`
    says that no machine holds a training yet, `fixed` that no machine will come; `least` workers begin a training.
    `stages` are those of stages that take something else.
    """

    count: int
    reserved: Mapping[str, float]
    gpus_per_worker: float
    cpus_per_worker: float
    assumed: bool = False
    fixed: bool = True
    least: int = 1
    stages: Mapping[str, Slots] = field(default_factory=dict)

    def of(self, stage: str) -> Slots:
        """Those of a task that trains `stage` by itself; empty: of one that trains all."""
        return self.stages.get(stage, self)

    def hold(self, nodes: Sequence[Mapping[str, float]]) -> bool:
        """Whether the machines with these resources can hold a training, if nothing else is on them."""
        each = Needs(1, self.gpus_per_worker, self.cpus_per_worker).each
        return sum(held(node, each) for node in nodes) >= self.least

    def resources(self, workers: int) -> Resources:
        """What a training of so many workers is given."""
        return Resources(workers, self.cpus_per_worker, self.gpus_per_worker)


def plan_slots(needs: Needs, nodes: Sequence[Mapping[str, float]], concurrent: int | None, fixed: bool) -> Slots:
    """Slots of the machines with the resources `nodes` (`CPU`, `GPU`).

    `fixed` says that there is one machine and no other will come: then a training that asks for more than there is
    gets what there is, as few workers as will do, and with `concurrent` that many share the machine. On a cluster
    missing machines are waited for; while none is there for even one training, `UNKNOWN` of them wait, which is what
    makes an autoscaler start machines.
    """
    stages = {name: plan_slots(own, nodes, None, fixed) for name, own in needs.stages}
    if fixed:
        share = (concurrent or 1) * needs.least
        gpus = min(needs.gpus_per_worker, nodes[0].get("GPU", 0.0) / share)
        needs = replace(
            needs, gpus_per_worker=gpus, cpus_per_worker=min(needs.cpus_per_worker, nodes[0]["CPU"] / share)
        )
    places = sum(held(node, needs.each) for node in nodes)
    room = places // needs.workers or places // needs.least
    return Slots(
        concurrent or room or UNKNOWN,
        needs.each if needs.workers == 1 else WAITING,
        needs.gpus_per_worker,
        needs.cpus_per_worker,
        assumed=not (concurrent or room),
        fixed=fixed,
        least=needs.least,
        stages=stages,
    )


@dataclass(frozen=True)
class Place:
    """Where tasks run: on this machine or the cluster at `address`, `concurrent` at a time (None: what fits)."""

    needs: Needs
    concurrent: int | None = None
    address: str | None = None


def run_on_ray(
    work: Work,
    make_trainings: Callable[[Slots], Trainings],
    place: Place,
    title: str,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Start or join Ray, run all tasks of `work` with a live table, and leave Ray again.

    `tick` is called whenever a task has ended.
    """
    if place.address is None:
        check_room(place.needs)
    quiet_environment()
    # Without the dashboard's State API, Ray leaks the workers of a stopped Train run.
    with ray_session(place.address, dashboard=place.needs.several):
        there = None if place.address is None else machines()
        if there is not None:
            check_room(place.needs, there)
        concurrent = at_a_time(place.concurrent, place.needs, there)
        slots = plan_slots(place.needs, node_resources(), concurrent, fixed=place.address is None)
        trainings = make_trainings(slots)
        plans = [plan for plan, _ in trainings.values()]
        if folders := [plan.folder for plan in plans if plan.uri is None]:
            above = Path(os.path.commonpath(folders))
            check_shared(next(path for path in (above, *above.parents) if path.is_dir()))
        with Board(
            f"{title}, {describe(slots, place.needs)}", plans[0].objective.metric, work.left, tick=tick
        ) as board:
            run_work(work, trainings, slots, board)


def quiet_environment() -> None:
    """Settings that Ray reads when it is imported or started, here and in its workers."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Not the working folder, which an empty part of it stands for: a torch.py there would take torch's place.
    places = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place not in ("", os.getcwd())]
    root = Path(raymc.__file__).parents[1]
    if root.name != "site-packages":  # not installed: Ray's workers must find this folder too
        places.insert(0, str(root))
    if places:
        os.environ["PYTHONPATH"] = os.pathsep.join(places)
    else:
        os.environ.pop("PYTHONPATH", None)


def run_work(work: Work, trainings: Trainings, slots: Slots, board: Board) -> None:
    """Run all tasks of `work`. Ray must be initialised after `quiet_environment`.

    Raises StorageError, or an error that came of it, when a file is refused; MachineError where no machine is left that
    can train; RuntimeError when tasks stay unfinished although Tune says that it is done.
    """
    if work.left:
        _fit(work, trainings, slots, board)
    if work.left:
        raise RuntimeError(f"Ray Tune ended with {work.left} tasks still to run")


def _fit(work: Work, trainings: Trainings, slots: Slots, board: Board) -> None:
    from ray import tune

    from raymc.execution.searcher import Scheduler, TaskSearcher, Watch

    keep_here(CLOUD_KEYS)
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # it lists the trials whose tasks ran again
    folders = {name: plan.folder for name, (plan, _) in trainings.items()}
    search = TaskSearcher(
        work, board, folders, lambda nodes, stage: slots.of(stage).hold(nodes), 0.0 if slots.fixed else WAIT_SECONDS
    )
    with _folder() as folder:
        tuner = tune.Tuner(
            tune.with_resources(_tune_function(trainings), _requests(slots)),
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=Scheduler(search),
                num_samples=-1,  # the searcher says when there is no more; what runs again is another trial of Tune
                max_concurrent_trials=slots.count,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name="tasks",
                storage_path=str(folder),
                verbose=0,
                callbacks=[Watch(search)],
                failure_config=tune.FailureConfig(max_failures=0),  # the searcher says what runs again
            ),
        )
        try:
            with lost_calls_are_lost_actors():
                tuner.fit()
        except (tune.TuneError, TrainingError):
            if search.unable is not None:
                raise search.unable from None
            raise


def _requests(slots: Slots) -> Callable[[Row], Any]:
    """What Ray reserves for a trial by its `config`; pickled with the function, see `_tune_function`."""
    by_stage = {name: dict(one.reserved) for name, one in {"": slots, **slots.stages}.items()}
    label, waiting = NODE, dict(WAITING)

    def request(config: Row) -> Any:
        from ray.tune import PlacementGroupFactory

        reserved = by_stage.get(config["task"]["stage"], by_stage[""])
        if not config["nodes"] or reserved == waiting:  # workers have places of their own
            return PlacementGroupFactory([reserved])
        return PlacementGroupFactory([reserved], bundle_label_selector=[{label: config["nodes"]}])

    return request


def _tune_function(trainings: Trainings) -> Callable[[Row], None]:
    """The function that Tune runs for each task, in a process that it uses for one task after the other.

    It is pickled by value, and nothing of raymc is needed to unpickle it: the machine may have another version.
    """
    from ray import cloudpickle

    payload = cloudpickle.dumps(dict(trainings))  # type: ignore[no-untyped-call]
    version, unfit = raymc.__version__, UNFIT

    def raymc_task(config: Row) -> None:
        import ray
        from ray import tune

        address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        place = {"node": ray.get_runtime_context().get_node_id(), "machine": address}
        error = ""
        try:
            import raymc

            if raymc.__version__ == version:
                from raymc.execution.task import work_on
            else:
                error = f"it has raymc {raymc.__version__}, and the driver has {version}"
        except ImportError as absent:
            error = f"a package is missing or broken: {' '.join(str(absent).split())}"
        if error:
            tune.report({**place, "state": unfit, "error": error})
        else:
            work_on(payload, config, place)

    return raymc_task


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
    assumed = " (no machine holds one yet; --concurrent says how many to start)" if slots.assumed else ""
    return f"{slots.count} at a time, {each}{per}{missing}{assumed}"


def node_resources() -> list[dict[str, float]]:
    """CPUs, GPUs and the like of each machine of the Ray cluster that this process is in."""
    return list(alive_nodes().values())
