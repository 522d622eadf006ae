"""A study's own run in MLflow, and the thread that sends the spools of all its trials."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from raymc.errors import InputError
from raymc.tracking import runs
from raymc.tracking.shipper import Shipper
from raymc.tracking.spool import Spool, ending

CLOSE_SECONDS, INTERRUPTED_SECONDS = 30.0, 5.0
"""How long the last lines may take into MLflow: at the end of a study, and after Ctrl-C or an error."""


class StudyTracker:
    """Tracks a study from its driver, as a context manager or between `start` and `close`.

    Args:
        study_dir: the study's folder; its spools are in `spool/`.
        study: the study's name, which its run gets.
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
        folder = runs.spool_folder(study_dir)
        self._spool = Spool(folder / f"{runs.STUDY}.jsonl")
        self._spool.start(name=study, tags=tags, params=params)
        try:
            self._shipper = Shipper(folder, tracking_uri, space, study=study)
        except OSError as error:
            raise InputError(f"cannot write {folder}: {error.strerror}") from error

    @property
    def experiment_id(self) -> str | None:
        """MLflow's id of the experiment, now or in an earlier sitting; None where MLflow was never reached."""
        return self._shipper.experiment_id

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the study's run, now or in an earlier sitting; None where MLflow was never reached."""
        return self.run_ids().get(runs.STUDY)

    def run_ids(self) -> dict[str, str]:
        """MLflow's run ids by spool name (`raymc.tracking.runs.run_name`), also those of earlier sittings."""
        return self._shipper.run_ids()

    def start(self) -> None:
        """Import MLflow and start sending."""
        self._shipper.start()

    def log_statistics(self, statistics: Mapping[str, Mapping[str, Any]], step: int) -> None:
        """Statistics of the confirmation as `acc_mean`, …, at `step` = trials of the study that have ended."""
        runs.log_statistics(self._spool, statistics, step)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of the study as a whole, at `step` = trials that have ended."""
        self._spool.metrics(values, step)

    def tags(self, values: Mapping[str, object]) -> None:
        """Add to the tags of the study's run."""
        self._spool.tags(values)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Keep a copy of a file, such as the report, with the study's run."""
        self._spool.artifact(path, folder)

    def flush(self, timeout: float) -> bool:
        """Wait until MLflow has all that is written so far; False where that takes longer than `timeout` seconds."""
        return self._shipper.flush(timeout)

    def close(self, state: str = "finished", timeout: float = CLOSE_SECONDS) -> bool:
        """End the study's run with one of `runs.ENDINGS`, and send what is left; False where MLflow lacks something.

        What it lacks waits in the spools: the study's next sitting sends it.
        """
        runs.close_run(self._spool, state)
        return self._shipper.close(timeout)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        states = {"FINISHED": "finished", "KILLED": "interrupted", "FAILED": "failed"}
        self.close(states[ending(kind)], timeout=CLOSE_SECONDS if kind is None else INTERRUPTED_SECONDS)
