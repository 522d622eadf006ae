"""A study in MLflow: a thread of the driver sends what the records say, and goes on trying while MLflow is away."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from raymc.errors import InputError, Interrupted
from raymc.masking import masked
from raymc.tracking.client import Away, Unusable, prepare
from raymc.tracking.projection import STUDY, Run, points_of, run_name, statistics_metrics, texts
from raymc.tracking.sender import Sender

INTERVAL, LONGEST_WAIT = 1.0, 10.0
"""Seconds between two passes over the records, and at most between two tries during an outage."""

SILENT_SECONDS = 2.0
"""Of a wait for MLflow, before it is told."""

CLOSE_SECONDS, INTERRUPTED_SECONDS = 30.0, 5.0
"""How long the last points may take into MLflow: at the end of a study, and after Ctrl-C or an error."""

logger = logging.getLogger("raymc.tracking")


class StudyTracker:
    """Tracks a study from its driver, as a context manager or between `start` and `close`.

    Nothing that happens in its thread reaches the caller: an outage is one warning and a lengthening wait, and since
    all that is sent comes from the records, nothing is lost.

    Args:
        study_dir: the study's folder, with its records.
        study: the study's name, which its run gets, and all its runs as a tag.
        space: the search space's name, which the experiment gets.
        tracking_uri: as `raymc.tracking.uri.resolve` returns it.
        params: the study's fixed values under dotted names.
        tags: what else is known of it (method, dataset, versions).

    Raises InputError where the study's folder cannot be written; MLflow being away raises nothing, here or later.
    """

    def __init__(
        self,
        study_dir: Path,
        *,
        study: str,
        space: str,
        tracking_uri: str,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, object] | None = None,
    ) -> None:
        run = Run(STUDY, started=_now(), title=study, params=texts(params or {}), tags=texts(tags or {}))
        try:
            self._sender = Sender(study_dir, tracking_uri, space, study=run)
        except OSError as error:
            raise InputError(f"cannot write {study_dir}: {error.strerror}") from error
        self._uri = tracking_uri
        self._is_away = self._was_awaited = False
        self._asked = self._answered = self._refused = 0
        self._closing = False
        self._turn = threading.Condition()
        self._thread: threading.Thread | None = None

    refusal: str | None = None
    """Why MLflow takes nothing until somebody mends it; None where it does, or is away."""

    @property
    def experiment_id(self) -> str | None:
        """MLflow's id of the experiment; None where MLflow was not reached."""
        return self._sender.client.experiment_id

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the study's run; None where MLflow was not reached."""
        return self.run_ids().get(STUDY)

    def run_ids(self) -> dict[str, str]:
        """MLflow's run ids by name (`raymc.tracking.projection.run_name`), as far as MLflow was reached."""
        return self._sender.run_ids()

    def start(self) -> None:
        """Import MLflow, which takes seconds, and start sending."""
        # The import is done here: two threads that import large packages at once can see each other's half.
        prepare()
        self._thread = threading.Thread(target=self._work, name="raymc-tracking", daemon=True)
        self._thread.start()

    def log_statistics(self, statistics: Mapping[str, Mapping[str, Any]], step: int) -> None:
        """Statistics of the confirmation as `acc_mean`, …, at `step` = trials of the study that have ended."""
        self._log(STUDY, statistics_metrics(statistics), step)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of the study as a whole, at `step` = trials that have ended."""
        self._log(STUDY, values, step)

    def log_scores(self, trial: int, values: Mapping[str, float], step: int, *, kind: str = "search") -> None:
        """What only its study can say of a trial that has ended, at `step` = trials that have ended."""
        self._log(run_name(trial, kind=kind), values, step)

    def tags(self, values: Mapping[str, object]) -> None:
        """Add to the tags of the study's run."""
        study = self._sender.study
        self._sender.study = replace(study, tags={**study.tags, **texts(values)})

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Keep a copy of a file, such as the report, with the study's run."""
        self._sender.artifacts.append((path.resolve(), folder))

    def flush(self, timeout: float) -> bool:
        """Wait until MLflow has all that is recorded so far; False where that takes longer than `timeout` seconds.

        A wait that a user may notice is told, and an outage is waited for once; what MLflow refuses is not waited for.
        """
        if self._thread is None or not self._thread.is_alive():
            return False
        timeout = min(timeout, SILENT_SECONDS) if self._is_away and self._was_awaited else timeout
        with self._turn:
            self._asked += 1
            asked = self._asked
            self._turn.notify_all()
            if self._turn.wait_for(lambda: max(self._answered, self._refused) >= asked, min(timeout, SILENT_SECONDS)):
                return self._answered >= asked
            if timeout > SILENT_SECONDS:
                self._was_awaited = True
                print(f"waiting up to {timeout:g} s for MLflow at {masked(self._uri)}", file=sys.stderr, flush=True)
                self._turn.wait_for(lambda: max(self._answered, self._refused) >= asked, timeout - SILENT_SECONDS)
            return self._answered >= asked

    def close(self, state: str = "finished", timeout: float = CLOSE_SECONDS) -> bool:
        """End the study's run with one of `projection.ENDINGS`, and send what is left; False where something is not.

        The study's next session sends it.
        """
        self._sender.study = replace(self._sender.study, state=state, ended=max(self._sender.study.started, _now()))
        self._sender.over = True
        done = self.flush(timeout)
        with self._turn:
            self._closing = True
            self._turn.notify_all()
        if self._thread is not None:
            self._thread.join(1.0)
        if not done:
            logger.warning("MLflow has not everything; the rest is in %s and goes with --resume", self._sender.folder)
        return done

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(ending(kind), timeout=CLOSE_SECONDS if kind is None else INTERRUPTED_SECONDS)

    def _log(self, run: str, values: Mapping[str, object], step: int) -> None:
        self._sender.late += [(run, point) for point in points_of(values, _now(), step)]

    def _work(self) -> None:
        wait = INTERVAL
        while not self._closing:
            asked = self._asked
            try:
                self._sender.send_all()
            except Exception as error:  # whatever it is: the training goes on, and the records are kept
                wait = min(LONGEST_WAIT, 2 * wait)
                self._warn(error)
                self._note(error, asked)
            else:
                wait = INTERVAL
                self._answer(asked)
            with self._turn:
                self._turn.wait_for(lambda: self._closing or self._asked != asked, wait)  # noqa: B023

    def _answer(self, asked: int) -> None:
        if self._is_away:
            logger.info("MLflow at %s is back", masked(self._uri))
        self._is_away = self._was_awaited = False
        self.refusal = None
        with self._turn:
            self._answered = asked
            self._turn.notify_all()

    def _note(self, error: Exception, asked: int) -> None:
        """Let nobody wait for what MLflow refuses for good."""
        self.refusal = str(error) if isinstance(error, Unusable) else None
        with self._turn:
            self._refused = asked if self.refusal else self._refused
            self._turn.notify_all()

    def _warn(self, error: Exception) -> None:
        if not self._is_away or (isinstance(error, Unusable) and str(error) != self.refusal):
            trace = None if isinstance(error, Away | OSError) else error
            text = "MLflow at %s does not take metrics (%s); they wait in %s"
            logger.warning(text, masked(self._uri), error, self._sender.folder, exc_info=trace)
        self._is_away = True


def ending(kind: type[BaseException] | None) -> str:
    """The state of a study that is left with an exception of type `kind`.

    Interrupted: also when stopped from outside (a scheduler's SystemExit). Failed: any other error.
    """
    if kind is None:
        return "finished"
    stopped = not issubclass(kind, Exception) or issubclass(kind, Interrupted)
    return "interrupted" if stopped else "failed"


def _now() -> int:
    return int(time.time() * 1000)
