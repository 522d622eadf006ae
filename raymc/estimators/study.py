"""The Python face of a study: run one as `raymc tune` does, or look at one that is there."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raymc.cli import storage_place
from raymc.config import Value
from raymc.datasets import data_root
from raymc.errors import InputError, Interrupted
from raymc.estimators.base import ManifoldClusterer
from raymc.estimators.gcml import GCML
from raymc.estimators.mlc import MLC
from raymc.estimators.nmce import NMCE
from raymc.estimators.study_data import space_file
from raymc.reporting.search.page import notebook_page, write_report
from raymc.reporting.search.trials_table import trial_rows
from raymc.space.space import load_space
from raymc.storage.mirror import fetched
from raymc.study.names import find_study, study_names
from raymc.study.reader import Study as StudyFolder
from raymc.study.reader import confirmation_of, read_study, winner
from raymc.study.records import FINISHED, Record
from raymc.study.request import Request, report_folder
from raymc.study.winner import chosen_run

if TYPE_CHECKING:
    from pandas import DataFrame

ESTIMATORS: Mapping[str, type[ManifoldClusterer]] = {"nmce": NMCE, "mlc": MLC, "gcml": GCML}
FRAME = "width:100%;height:36rem;border:0"


@dataclass(frozen=True)
class Trial:
    """A configuration of a search that has ended, as callbacks get it.

    Attributes:
        number: counted from 0.
        params: the searched values, by their dotted keys.
        state: `finished`, `pruned`, `diverged`, `collapsed`, `out_of_memory` or `failed`.
        score: in the study's objective; None where the trial did not finish.
        metrics: means over the seeds that ended.
        seeds: those that ended.
        seconds: of training.
    """

    number: int
    params: Mapping[str, Any]
    state: str
    score: float | None
    metrics: Mapping[str, float]
    seeds: tuple[int, ...]
    seconds: float

    @classmethod
    def of(cls, record: Record) -> Trial:
        seeds = tuple(run.seed for run in record.seeds)
        return cls(
            record.trial, dict(record.params), record.state, record.score, dict(record.metrics), seeds, record.seconds
        )


class Study:
    """A study in a storage. What it says is read anew each time, so a study that runs may be looked at.

    In a notebook it is a table of its trials with the course of the search.
    """

    def __init__(self, name: str, storage: str) -> None:
        """Raises InputError, naming the nearest one, where the storage has no such study."""
        self.name, self.storage = name, storage
        find_study(storage, name)
        self._stopped = False

    @property
    def best_params(self) -> dict[str, Any] | None:
        """The searched values of the winner (on fresh seeds, else in the search); None where no trial finished."""
        with self._read() as study:
            best = winner(study)
            return dict(best.params) if best else None

    @property
    def best_score(self) -> float | None:
        """What the winner reaches in the objective: the mean of its fresh seeds, else of its search seeds."""
        with self._read() as study:
            best = winner(study)
            if best is None:
                return None
            fresh = confirmation_of(study, best.trial)
            return study.level(fresh if fresh is not None and fresh.state == FINISHED else best)

    @property
    def trials(self) -> DataFrame:
        """A row a trial, as `trials.csv` has it: `trial`, `state`, `score`, `seeds`, `param.KEY`, `metric.NAME`, …"""
        from pandas import DataFrame

        with self._read() as study:
            return DataFrame(trial_rows(study))

    @property
    def confirmation(self) -> DataFrame:
        """A row a configuration and fresh seed: `trial`, `seed`, `state`, `seconds`, and its metrics (`acc`, …)."""
        from pandas import DataFrame

        with self._read() as study:
            rows = [
                {"trial": record.trial, "seed": run.seed, "state": run.state, "seconds": run.seconds, **run.metrics}
                for record in study.confirmations
                for run in record.seeds
            ]
        return DataFrame(rows, columns=None if rows else ["trial", "seed", "state", "seconds"])

    @property
    def report(self) -> Path:
        """The page of the study, written anew to `reports/NAME/index.html` in the working folder."""
        with self._folder() as folder:
            return write_report(folder, report_folder(self.name))

    def best_estimator(self) -> ManifoldClusterer:
        """The winner as a fitted estimator: of its seeds the one that agrees most with the others, as in `winner/`.

        Its `fit` trains the winner's configuration on other samples.

        Raises:
            InputError: no trial finished, the study left no model, or its method is no estimator.
        """
        with self._read() as study:
            found, method = chosen_run(study), str(study.get("method"))
            if found is None:
                raise InputError(f"study {self.name}: no trial finished")
            if method not in ESTIMATORS:
                raise InputError(f"study {self.name}: {method} is no estimator; known: {', '.join(ESTIMATORS)}")
            return ESTIMATORS[method].of_training(found.run.folder, found.run.seed, found.run.metrics)

    def stop(self) -> None:
        """For callbacks: start no more trials. Those that run end, and the best are confirmed."""
        self._stopped = True

    def __repr__(self) -> str:
        return f"<raymc.Study {self.name} in {self.storage}>"

    def _repr_html_(self) -> str:
        with self._folder() as folder:
            page = notebook_page(folder)
        return f'<iframe srcdoc="{html.escape(page)}" title="{html.escape(self.name)}" style="{FRAME}"></iframe>'

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        with fetched(self.storage, f"studies/{self.name}") as folder:
            yield folder

    @contextmanager
    def _read(self) -> Iterator[StudyFolder]:
        with self._folder() as folder:
            yield read_study(folder)


Callback = Callable[[Study, Trial], None]


def load_study(name: str, storage: str | None = None) -> Study:
    """The study `name` of a storage.

    Args:
        storage: folder or URI; None: RAYMC_STORAGE, else ./raymc-storage.

    Raises:
        InputError: there is none.
    """
    return Study(name, storage_place(storage))


def run_study(
    space: str | Path | Mapping[str, Any],
    *,
    data: Any = None,
    labels: Any = None,
    overrides: Mapping[str, Value] | None = None,
    name: str | None = None,
    trials: int | None = None,
    seeds: int | None = None,
    seed: int | None = None,
    storage: str | None = None,
    resume: bool | Literal["auto"] = False,
    callbacks: Sequence[Callback] = (),
    sampler: str | None = None,
    pruner: str | None = None,
    hours: float | None = None,
    gpu_hours: float | None = None,
    from_study: str | None = None,
    retry: Literal["failed"] | None = None,
    concurrent: int | None = None,
    address: str | None = None,
    tracking_uri: str | None = None,
    register: str | None = None,
    database: str | None = None,
    smoke: bool = False,
    data_folder: str | None = None,
) -> Study:
    """Search a space and confirm the best on fresh seeds, as `raymc tune` does with the same words.

    Args:
        space: a name in `search_spaces/`, a path, or the content of a space file.
        data: in place of the space's `dataset`: an array `[n, d]` or of images, a DataFrame, a path, or the content of
            a `dataset` section. What is in memory is written to `data/` of the storage first, since trials run in
            processes of their own and a study may be gone on with.
        labels: `[n]`, of data in memory; they measure, and choose only where the space's objective says so.
        overrides: values by dotted key, as KEY=VALUE.
        name: of the study; None: the space's and the time.
        resume: go on with the study `name`; `"auto"`: if there is one, else begin it.
        callbacks: each is called as `callback(study, trial)` with this `Study` and a `Trial` when a trial of the search
            has ended; `study.stop()` ends the search early.
        sampler: what draws trials; None: the space's.
        pruner: what stops bad trials early; None: the space's.
        hours: of wall clock, after which no trial begins; None: the space's, if any.
        gpu_hours: that trials held, after which none begins; None: the space's, if any.
        from_study: an earlier study, whose finished trials the sampler knows (`--from`).
        retry: `"failed"` runs again what failed or lacked memory, of a study that is gone on with.
        register: a name under which the winner's model is registered in MLflow.
        database: server of the trials; None: RAYMC_DATABASE, else a file of the study.
        data_folder: of the known datasets; None: RAYMC_DATA, else the user's cache folder.

    Returns:
        The study; its report and its winner's files are written.

    Raises:
        InputError: what is asked for is wrong, before anything is made.
        TrainingError: no trial finished.
        KeyboardInterrupt: by Ctrl-C; nothing that was finished is lost, and `resume=True` goes on.
    """
    from raymc.execution.address import check_address
    from raymc.execution.needs import needs_of
    from raymc.execution.room import check_room
    from raymc.execution.session import tune
    from raymc.reporting.search.outcome import finish

    if resume == "auto" and name is None:
        raise InputError("resume='auto' needs a name: each call would begin another study")
    if retry not in (None, "failed"):
        raise InputError(f"retry={retry!r}: 'failed' or None is needed")
    place = storage_place(storage)
    machines = check_address(address)
    going_on = resume is True or (resume == "auto" and name in study_names(place))
    with tempfile.TemporaryDirectory(prefix="raymc-") as scratch:
        request = Request(
            space=space_file(space, data, labels, place, Path(scratch)),
            overrides=dict(overrides or {}),
            storage=place,
            data=str(data_root(data_folder)),
            name=name,
            trials=trials,
            seeds=seeds,
            seed=seed,
            concurrent=concurrent,
            address=address,
            tracking_uri=tracking_uri,
            database=database,
            hours=hours,
            gpu_hours=gpu_hours,
            source=from_study,
            retry=None if resume == "auto" and not going_on else retry,
            sampler=sampler,
            pruner=pruner,
            register=register,
            resume=going_on,
            smoke=smoke,
        )
        if not going_on:
            check_room(needs_of(load_space(request.space).pinned(request.overrides)), machines)
        try:
            found = tune(request, partial(finish, register=register), _listener(callbacks, place))
        except Interrupted as error:
            raise KeyboardInterrupt("the study is kept: run_study with its name and resume=True goes on") from error
    return Study(found["study"], place)


def _listener(callbacks: Sequence[Callback], storage: str) -> Callable[[str, Record], bool] | None:
    """What `tune` calls with the study's name and a trial's record; whether the search is to end."""
    if not callbacks:
        return None
    studies: dict[str, Study] = {}

    def ended(name: str, record: Record) -> bool:
        study = studies.setdefault(name, Study(name, storage))
        for callback in callbacks:
            callback(study, Trial.of(record))
        return study._stopped

    return ended
