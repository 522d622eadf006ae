"""One session of a study: from its folder to as many finished trials as were asked for, or until interrupted."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from raymc.errors import Interrupted, MachineError, StorageError, StorageLostError, TrainingError, storage_error
from raymc.execution.driver import Place, Slots, run_on_ray
from raymc.execution.needs import needs_of
from raymc.execution.remote import driving, shared
from raymc.execution.requirements import Requirements
from raymc.execution.train_seed import TrainSeed
from raymc.execution.trial import Plan
from raymc.masking import masked
from raymc.space.settled import longest
from raymc.space.shared import shared_stages
from raymc.space.space import Space
from raymc.storage.mirror import Mirror
from raymc.storage.stage_store import Store
from raymc.study import files
from raymc.study import folder as study
from raymc.study.baseline import keep_studys_baseline
from raymc.study.database import Database
from raymc.study.distributions import compile_space
from raymc.study.limits import Limits, gpu_seconds, gpu_seconds_by_now
from raymc.study.manifest import StudyBudget, budget_of, load_data, sampler_of
from raymc.study.objective import Objective
from raymc.study.pruner import make_pruner
from raymc.study.queue import TrialQueue
from raymc.study.reader import read_study
from raymc.study.records import FINAL, Record, Resources, Row
from raymc.study.request import (
    Request,
    database_again,
    existing_study,
    new_study,
    resume_line,
    take_up,
)
from raymc.study.stage_keys import StageKeys
from raymc.study.stage_queue import StageQueue
from raymc.study.winner import winner_kind
from raymc.tracking import uri
from raymc.tracking.outcome import study_tags
from raymc.tracking.study import StudyTracker

Finish = Callable[[Path, Row, TrialQueue, StudyTracker, str, str], Row]
"""`finish(folder, manifest, queue, tracker, tracking_uri, place)`: what is done when all trials have ended."""

OnTrial = Callable[[str, Record], bool]
"""`on_trial(study's name, record)`, called when a trial of the search has ended: whether no more are to be started."""


def tune(request: Request, finish: Finish, on_trial: OnTrial | None = None) -> Row:
    """Run a new study, or go on with one; what `finish` returns, called while the study's run in MLflow is open.

    Raises InputError for what is wrong before anything is made; Interrupted, with the line that resumes, on
    Ctrl-C, and with that line too StorageError when the disk is full and MachineError when no machine can train;
    TrainingError when no trial finished.
    """
    folder = existing_study(request) if request.resume else new_study(request, uri.resolve(request.tracking_uri))
    try:
        with study.locked(folder), driving(request.storage, folder) as mirror:
            manifest = study.read_manifest(folder)
            space = study.read_space(folder, manifest)
            if request.resume:
                take_up(request, folder, manifest, space)
            if not space.params:
                print(f"{space.name} searches nothing (no section space): one trial, of the preset", file=sys.stderr)
            try:
                with study.attended(folder):
                    return _session(request, folder, manifest, space, mirror, finish, on_trial)
            except StorageLostError:
                raise
            except MachineError as error:
                line = resume_line(request, folder.name)
                raise MachineError(f"{error}; no trial is lost, and when one can train go on with: {line}") from error
            except Exception as error:
                if (refused := storage_error(error, folder)) is None:
                    raise
                line = resume_line(request, folder.name)
                words = f"{refused}; nothing is lost, and when it can be written go on with: {line}"
                raise StorageError(words) from error
    except KeyboardInterrupt as error:
        raise Interrupted(resume_line(request, folder.name)) from error


def _session(
    request: Request,
    folder: Path,
    manifest: Row,
    space: Space,
    mirror: Mirror | None,
    finish: Finish,
    on_trial: OnTrial | None,
) -> Row:
    tracking_uri = uri.resolve(request.tracking_uri, str(manifest["tracking_uri"]))
    url = database_again(request, manifest)
    if manifest["tracking_uri"] != masked(tracking_uri):
        manifest |= {"tracking_uri": masked(tracking_uri), "experiment_id": None, "run_id": None}
    tracker = StudyTracker(
        folder,
        study=folder.name,
        space=space.name,
        tracking_uri=tracking_uri,
        params=manifest["fixed"],
        tags=study_tags(manifest),
    )
    with study.open_database(folder, url) as database, tracker:
        with timed(folder, manifest) as tick:
            budget, retry = budget_of(manifest, space), request.retry is not None
            queue = _make_queue(folder, manifest, budget, database, space, tick, retry)
            queue.on_trial = None if on_trial is None else partial(on_trial, folder.name)
            if queue.left:
                _run(request, folder, manifest, space, queue, mirror, tick)
            manifest["budget"]["ended_early"] = queue.ended_early
        keep_studys_baseline(folder, manifest, space, request.data, request.storage)
        place = masked(mirror.uri) if mirror else str(folder)
        return finish(folder, manifest, queue, tracker, tracking_uri, place)


def _run(
    request: Request,
    folder: Path,
    manifest: Row,
    space: Space,
    queue: TrialQueue,
    mirror: Mirror | None,
    tick: Callable[[], None],
) -> None:
    budget = budget_of(manifest, space)
    needs = needs_of(space)
    objective = Objective.of(manifest["objective"], manifest["smoke"])
    plan = Plan(folder, objective, budget.fidelity, mirror.uri if mirror else None)
    keys = StageKeys(
        space,
        manifest,
        shared_stages(space, budget.trials),
        partial(load_data, space, request.data, request.storage, manifest["smoke"]),
    )
    store = Store(request.storage, wait=True)
    stages = StageQueue(
        queue,
        lambda task: folder,
        objective,
        keys,
        lambda key: store.load(key, mapped=True) is not None,
        frozenset(name for name, _ in needs.stages),
        queue.restart_clock,
    )

    read, fingerprint = (request.storage, request.data), manifest["data"]["fingerprint"]
    requirements = Requirements(space.config(), *read, fingerprint, manifest["smoke"])

    def trainings(slots: Slots) -> dict[str, tuple[Plan, TrainSeed]]:
        seeding = (manifest["seed"], manifest["seeds_from"], manifest["smoke"])
        keep = winner_kind(budget)
        training = TrainSeed(
            space, request.storage, request.data, *seeding, keep_rows_of=keep, requirements=requirements
        ).on(slots)
        stages.ahead, keys.on_gpu = slots.count, slots.gpus_per_worker > 0
        own = {name: slots.stages[name].resources(of.workers) for name, of in needs.stages}
        return {"": (replace(plan, resources=slots.resources(needs.workers), stage_resources=own), training)}

    place = Place(needs, request.concurrent, request.address)
    try:
        with shared(stages if keys.shared else queue, mirror) as work:
            run_on_ray(work, trainings, place, f"study {folder.name}", tick)
    except TrainingError as error:
        line = resume_line(request, folder.name)
        raise TrainingError(f"{error}; no trial is charged with it; when it is mended go on with: {line}") from error


@contextmanager
def timed(folder: Path, manifest: Row) -> Iterator[Callable[[], None]]:
    """Note this session in the manifest; the function given brings its seconds up to date."""
    begun = time.monotonic()
    row: Row = {"started": files.now(), "seconds": 0.0}
    manifest["sittings"].append(row)

    def tick() -> None:
        row["seconds"] = time.monotonic() - begun
        study.write_manifest(folder, manifest)

    tick()
    try:
        yield tick
    finally:
        tick()


def _make_queue(
    folder: Path,
    manifest: Row,
    budget: StudyBudget,
    database: Database,
    space: Space,
    tick: Callable[[], None] = lambda: None,
    retry: bool = False,
) -> TrialQueue:
    asked = Resources(space.config().workers, space.resources.cpus_per_worker, space.resources.gpus_per_worker)
    open_trials = (record for record in read_study(folder).trials if record.state not in FINAL)
    before = {record.trial: gpu_seconds([record], asked) for record in open_trials}

    def over(queue: TrialQueue) -> str:
        """Which limit of the budget has been reached, with the use of the sessions before."""
        limits = budget.limits
        if limits == Limits():
            return ""
        tick()
        seconds = sum(session["seconds"] for session in manifest["sittings"])
        gpus = 0.0
        if limits.gpu_hours is not None:
            study_now = read_study(folder)
            gpus = gpu_seconds_by_now(study_now.trials, queue.running, before, asked)
            gpus += gpu_seconds(study_now.stages, asked)
        return limits.reached(seconds, gpus, queue.scores(), queue.objective.mode)

    return TrialQueue(
        folder,
        database,
        compile_space(space.params),
        params=space.params,
        sampler=sampler_of(manifest, space),
        pruner=make_pruner(budget.pruner, longest(budget.fidelity, len(budget.seeds), budget.epochs)),
        objective=Objective.of(manifest["objective"], manifest["smoke"]),
        trials=budget.trials,
        seeds=budget.seeds,
        seed=manifest["seed"],
        top=budget.top,
        fresh=budget.fresh,
        default=manifest.get("default") or None,
        retry=retry,
        over=over,
    )
