"""One session of a study: from its folder to as many finished trials as were asked for, or until interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from raymc.errors import Interrupted, StorageError, storage_error
from raymc.execution.driver import Place, Slots, Trainings, run_on_ray
from raymc.execution.remote import driving, shared
from raymc.execution.train_seed import TrainSeed, needs_of
from raymc.execution.trial import Plan, Trainable
from raymc.masking import masked
from raymc.space.space import Space
from raymc.storage.mirror import Mirror
from raymc.study import files
from raymc.study import folder as study
from raymc.study.baseline import keep_studys_baseline
from raymc.study.database import Database
from raymc.study.distributions import compile_space
from raymc.study.manifest import StudyBudget, budget_of
from raymc.study.objective import Objective
from raymc.study.queue import TrialQueue
from raymc.study.records import Record, Row
from raymc.study.request import (
    Request,
    database_again,
    existing_study,
    new_study,
    resume_line,
    take_up,
)
from raymc.study.winner import winner_kind
from raymc.tracking import uri
from raymc.tracking.outcome import study_tags
from raymc.tracking.study import StudyTracker

if TYPE_CHECKING:
    from raymc.execution.searcher import Halving

Finish = Callable[[Path, Row, TrialQueue, StudyTracker, str, str], Row]
"""`finish(folder, manifest, queue, tracker, tracking_uri, place)`: what is done when all trials have ended."""

OnTrial = Callable[[str, Record], bool]
"""`on_trial(study's name, record)`, called when a trial of the search has ended: whether no more are to be started."""

SEED_FACTOR, EPOCH_FACTOR = 2, 3
"""Of the trials that reach a rung, one in so many goes on past the bar that the others set."""


def tune(request: Request, finish: Finish, on_trial: OnTrial | None = None) -> Row:
    """Run a new study, or go on with one; what `finish` returns, called while the study's run in MLflow is open.

    Raises InputError for what is wrong before anything is made; Interrupted, with the line that resumes, on
    Ctrl-C, and StorageError, with that line too, when the disk is full; TrainingError when no trial finished.
    """
    folder = existing_study(request) if request.resume else new_study(request, uri.resolve(request.tracking_uri))
    with study.locked(folder), driving(request.storage, folder) as mirror:
        manifest = study.read_manifest(folder)
        space = study.read_space(folder, manifest)
        if request.resume:
            take_up(request, folder, manifest, space)
        try:
            return _session(request, folder, manifest, space, mirror, finish, on_trial)
        except KeyboardInterrupt as error:
            raise Interrupted(resume_line(request, folder.name)) from error
        except Exception as error:
            if (refused := storage_error(error, folder)) is None:
                raise
            line = resume_line(request, folder.name)
            raise StorageError(f"{refused}; nothing is lost, and when it can be written go on with: {line}") from error


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
        queue = _make_queue(folder, manifest, budget_of(manifest), database, space)
        queue.on_trial = None if on_trial is None else partial(on_trial, folder.name)
        with timed(folder, manifest) as tick:
            if queue.left:
                _run(request, folder, manifest, space, queue, mirror, tick)
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
    budget = budget_of(manifest)
    needs = needs_of(space)
    # Workers cannot be stopped in the middle of a stage, so there a trial is compared when a seed has ended.
    fidelity = "seeds" if budget.fidelity == "epochs" and needs.workers > 1 else budget.fidelity
    plan = Plan(
        folder, Objective.of(manifest["objective"], manifest["smoke"]), fidelity, mirror.uri if mirror else None
    )

    def trainings(slots: Slots) -> dict[str, tuple[Plan, TrainSeed]]:
        own = (manifest["seed"], manifest["seeds_from"], manifest["smoke"])
        keep = winner_kind(budget)
        training = TrainSeed(space, request.storage, request.data, *own, keep_rows_of=keep).on(slots)
        return {"": (replace(plan, resources=slots.resources(needs.workers)), training)}

    def scheduler(trainings: Trainings) -> Halving | None:
        return _halving(*trainings[""], budget, queue, space)

    place = Place(needs, request.concurrent, request.address)
    with shared(queue, mirror) as work:
        run_on_ray(work, trainings, place, f"study {folder.name}", tick, scheduler)


def _halving(plan: Plan, training: Trainable, budget: StudyBudget, queue: TrialQueue, space: Space) -> Halving | None:
    """ASHA over seeds (compared after 1, 2, 4, …) or epochs (a ninth and a third of a seed's, then by seeds)."""
    from raymc.execution.searcher import Halving

    mode, seeds = space.objective.mode, len(budget.seeds)
    if plan.fidelity == "epochs":
        epochs = max(1, sum(training.epochs({}).values()))
        first = max(1, epochs // EPOCH_FACTOR**2)
        scheduler = Halving(plan.folder, mode, first, epochs * seeds, EPOCH_FACTOR)
    elif plan.fidelity == "seeds" and seeds > 1:
        scheduler = Halving(plan.folder, mode, 1, seeds, SEED_FACTOR)
    else:
        return None
    scheduler.replay(queue.history())
    return scheduler


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


def _make_queue(folder: Path, manifest: Row, budget: StudyBudget, database: Database, space: Space) -> TrialQueue:
    return TrialQueue(
        folder,
        database,
        compile_space(space.params),
        objective=Objective.of(manifest["objective"], manifest["smoke"]),
        trials=budget.trials,
        seeds=budget.seeds,
        seed=manifest["seed"],
        top=budget.top,
        fresh=budget.fresh,
    )
