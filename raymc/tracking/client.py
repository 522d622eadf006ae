"""The MLflow side: an experiment, its runs and what is logged to them, through a client without global state."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymc.masking import masked
from raymc.tracking.projection import Point
from raymc.tracking.uri import database_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

METRICS_PER_CALL, TEXTS_PER_CALL = 800, 100
"""MLflow takes at most 1,000 entries in a call, of which 100 parameters and 100 tags."""
RUNS_PER_PAGE = 500

REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST")

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Standard output is the command's. The tracker tries again by itself; a client that does would hide an outage."""

logger = logging.getLogger("raymc.tracking")


class Away(Exception):
    """MLflow did not answer, or not as it should; the message is one line."""


class Unusable(Away):
    """MLflow answers, and takes nothing until somebody mends it; the message says how."""


class Forgotten(Exception):
    """MLflow answers, and no longer knows a run or an experiment."""


class Refused(Exception):
    """MLflow answers, and does not take a value."""


def prepare() -> None:
    """Import MLflow, with `SETTINGS` where the user has set nothing, and keep its own lines out of the terminal."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow.tracking  # noqa: F401

    for noisy in ("mlflow.store.db.utils", "alembic", "urllib3.connectionpool"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)  # a full disk would be three tracebacks; ours is one line


@dataclass
class Known:
    """What MLflow has of a run; `steps` is the last step of each metric, up to which all are there."""

    run_id: str
    status: str = "RUNNING"
    is_deleted: bool = False
    steps: dict[str, int] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class Client:
    """One experiment on a tracking server or in a database, and the runs in it that have the tags `mine`.

    Methods raise Away (also Unusable), Forgotten or Refused and nothing else.
    """

    def __init__(self, uri: str, experiment: str, mine: Mapping[str, str]) -> None:
        self._uri = uri
        self._experiment = experiment
        self._mine = dict(mine)
        self._client: MlflowClient | None = None
        self.experiment_id: str | None = None

    def connect(self) -> None:
        """Reach MLflow and find or make the experiment; a new database is made by one process at a time."""
        with translated(), _alone(self._uri):
            from mlflow import MlflowClient

            self._client = client = MlflowClient(tracking_uri=self._uri)
            found = client.get_experiment_by_name(self._experiment)
            if found is not None and found.lifecycle_stage != "active":
                fix = f"mlflow experiments restore -x {found.experiment_id}"
                raise Unusable(f"experiment {self._experiment} is deleted there; {fix} brings it back")
            new = None if found else client.create_experiment(self._experiment, _artifact_folder(self._uri))
            self.experiment_id = str(found.experiment_id if found else new)

    def runs(self) -> dict[str, Known]:
        """What MLflow has of each of the runs by the tag `raymc.run`, deleted ones too."""
        from mlflow.entities import ViewType

        where = " and ".join(f"tags.`{key}` = '{value}'" for key, value in self._mine.items())
        found: dict[str, Known] = {}
        token = None
        with translated():
            while True:
                page = self._reached.search_runs(
                    [str(self.experiment_id)], where, ViewType.ALL, RUNS_PER_PAGE, page_token=token
                )
                for run in page:
                    found.setdefault(run.data.tags.get("raymc.run", ""), _known(run))
                token = page.token
                if not token:
                    return found

    def create_run(self, title: str, tags: Mapping[str, str], parent_id: str | None, start_ms: int) -> Known:
        """Begin a run, which is shown as `title`."""
        parent = {"mlflow.parentRunId": parent_id} if parent_id else {}
        with translated():
            tags = {**self._mine, **tags, **parent}
            return _known(self._reached.create_run(str(self.experiment_id), start_ms, tags, run_name=title))

    def set_status(self, run_id: str, status: str, end_ms: int | None = None) -> None:
        """Mark a run as RUNNING, or end it; one that the user has deleted is left alone."""
        try:
            with translated():
                if end_ms is None:
                    self._reached.update_run(run_id, status=status)
                else:
                    self._reached.set_terminated(run_id, status=status, end_time=end_ms)
        except Refused as refusal:
            logger.info("run %s does not become %s: %s", run_id, status, refusal)

    def deliver(self, run_id: str, points: Sequence[Point], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Log in batches. What MLflow refuses is left out with a warning, the rest is logged."""
        from mlflow.entities import Metric, Param, RunTag

        kinds: tuple[tuple[list[Any], int], ...] = (
            ([Metric(key, value, time, step) for key, value, time, step in points], METRICS_PER_CALL),
            ([Param(key, value) for key, value in params.items()], TEXTS_PER_CALL),
            ([RunTag(key, value) for key, value in tags.items()], TEXTS_PER_CALL),
        )
        calls = max(-(-len(entries) // most) for entries, most in kinds)
        for call in range(calls):
            metrics, texts, marks = (entries[call * most : (call + 1) * most] for entries, most in kinds)
            self._log(run_id, [*metrics, *texts, *marks])

    def artifact(self, run_id: str, path: Path, folder: str | None) -> None:
        """Copy a file to the run's artifacts. Where that fails with MLflow there, it is left out with a warning."""
        try:
            with translated():
                self._reached.log_artifact(run_id, str(path), folder)
        except (Away, Refused) as error:
            self._is_deleted(run_id)  # raises where MLflow no longer has the run
            # A misconfigured artifact store must not hold the metrics up.
            logger.warning("%s is not kept in MLflow: %s", path, error)

    def _log(self, run_id: str, entries: list[Any]) -> None:
        """One call; where MLflow refuses it, its halves, down to the entry that is at fault."""
        from mlflow.entities import Metric, Param, RunTag

        try:
            with translated():
                self._reached.log_batch(
                    run_id,
                    [e for e in entries if isinstance(e, Metric)],
                    [e for e in entries if isinstance(e, Param)],
                    [e for e in entries if isinstance(e, RunTag)],
                )
        except Refused as refusal:
            if self._is_deleted(run_id):
                logger.info("run %s is deleted in MLflow; nothing more is sent to it", run_id)
            elif len(entries) == 1:
                logger.warning("MLflow does not take %s: %s", entries[0].key, refusal)
            else:
                middle = len(entries) // 2
                self._log(run_id, entries[:middle])
                self._log(run_id, entries[middle:])

    def _is_deleted(self, run_id: str) -> bool:
        with translated():
            return bool(self._reached.get_run(run_id).info.lifecycle_stage == "deleted")

    @property
    def _reached(self) -> MlflowClient:
        if self._client is None:
            raise Away("not connected yet")
        return self._client


def _known(run: Run) -> Known:
    # The steps of the newest values are in the message that a run travels as, and in no attribute.
    steps = {metric.key: metric.step for metric in run.data.to_proto().metrics}
    info, tags = run.info, dict(run.data.tags)
    return Known(info.run_id, info.status, info.lifecycle_stage == "deleted", steps, dict(run.data.params), tags)


@contextmanager
def translated() -> Iterator[None]:
    """Whatever the client raises, as Away, Forgotten or Refused."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (Away, Forgotten, Refused):
        raise
    except MlflowException as error:
        if (unusable := _unusable(error)) is not None:
            raise unusable from error
        kind = {"RESOURCE_DOES_NOT_EXIST": Forgotten} | dict.fromkeys(REFUSALS, Refused)
        raise kind.get(error.error_code, Away)(_line(error)) from error
    except Exception as error:
        raise (_unusable(error) or Away(_line(error))) from error


def _unusable(error: Exception) -> Unusable | None:
    """What no later try will change, with what will."""
    text, code = str(error), getattr(error, "error_code", "")
    if "out-of-date database schema" in text or "Can't locate revision" in text:
        fix = "`mlflow db upgrade URI` mends an older one; for a newer one install that MLflow here"
        return Unusable(f"the database's schema is another MLflow's; {fix}")
    if code in ("PERMISSION_DENIED", "UNAUTHENTICATED"):
        words = "see MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        return Unusable(f"{_line(error)}; {words}")
    return None


def _line(error: Exception) -> str:
    # Masked first: of a URI that is cut off nobody could tell where its password ends.
    text = masked(" ".join(str(error).split()) or type(error).__name__)
    return text if len(text) <= 160 else f"{text[:159]}…"


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Hold the folder of a database file, since two migrations of a new file at once break it."""
    file = database_file(uri)
    if file is None or os.name != "posix":
        yield
        return
    import fcntl

    file.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _artifact_folder(uri: str) -> str | None:
    """Beside a database file; a server knows its own place."""
    file = database_file(uri)
    return None if file is None else (file.parent / "mlartifacts").as_uri()
