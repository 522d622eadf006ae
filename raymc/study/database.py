"""The database of a study's trials: Optuna's, in a file of the study or on a server such as PostgreSQL.

The file is SQLite's, or a journal, to which lines are added: SQLite's locks do not hold on every network file system.
"""

from __future__ import annotations

import functools
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from raymc.errors import InputError, StorageError
from raymc.masking import DATABASES, masked

P = ParamSpec("P")
R = TypeVar("R")

Database = optuna.Study
"""A study's trials as Optuna has them."""

WAIT_SECONDS = 60  # for a database file that another process is writing
WHOLE = "raymc.made"
PATIENCE_SECONDS = 180.0  # for a server that is being started again


def check_url(url: str) -> str:
    """`url` if it names a database server. Raises InputError."""
    scheme, mark, _ = url.partition("://")
    if not mark or scheme.partition("+")[0] not in DATABASES:
        raise InputError(f"--database {masked(url)}: a server is needed (postgresql+psycopg2://user@host/optuna)")
    return url


def file_url(path: Path) -> str:
    return f"sqlite:///{path}"


def open_journal(path: Path) -> JournalStorage:
    """Optuna's storage in a journal, for one process at a time; a line that was not written to its end goes."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if path.exists():
        with path.open("r+b") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
    return JournalStorage(JournalFileBackend(str(path)))


def connect(url: str) -> RDBStorage:
    """Optuna's storage at `url`, with its tables. Raises InputError where there is no driver or no answer."""
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # A connection that a restart of the server has cut is replaced before it is used.
    engine = {"connect_args": {"timeout": WAIT_SECONDS}} if _is_file(url) else {"pool_pre_ping": True}
    try:
        return RDBStorage(url, engine_kwargs=engine)
    except (ImportError, ArgumentError, NoSuchModuleError) as error:
        hint = "; pip install psycopg2-binary" if "psycopg2" in str(error) else ""
        raise InputError(f"--database {masked(url)}: {_line(error)}{hint}") from error
    except SQLAlchemyError as error:
        raise InputError(f"the database {masked(url)} does not answer: {_line(error)}") from error


def create(storage: BaseStorage, name: str, mode: str, metrics: Sequence[str]) -> optuna.Study:
    """A new Optuna study. Raises InputError where the database has one of that name."""
    directions = optuna.study.StudyDirection
    direction = directions.MAXIMIZE if mode == "max" else directions.MINIMIZE
    _discard_incomplete(storage, name)
    try:
        study = optuna.create_study(storage=storage, study_name=name, directions=[direction] * len(metrics))
    except optuna.exceptions.DuplicatedStudyError as error:
        raise InputError(
            f"the database holds a study {name} already, of another storage: give another --name"
        ) from error
    except _refusals() as error:
        raise StorageError(f"the study's database: {_line(error)}") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(metrics))  # what optuna-dashboard calls the objectives
    return study


def load(storage: BaseStorage, name: str) -> optuna.Study:
    """An existing Optuna study. Raises InputError where there is none."""
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError as error:
        place = masked(str(storage.url)) if isinstance(storage, RDBStorage) else "its journal"
        raise InputError(f"{place} holds no study {name}") from error
    except _refusals() as error:
        raise StorageError(f"the study's database: {_line(error)}") from error


def mark_complete(study: optuna.Study) -> None:
    """Note that the study's folder is there too."""
    study.set_user_attr(WHOLE, True)


def _discard_incomplete(storage: BaseStorage, name: str) -> None:
    """Remove what a process left that was killed before the study's folder was there."""
    for study in optuna.get_all_study_summaries(storage, include_best_trial=False):
        if study.study_name == name and WHOLE not in study.user_attrs:
            optuna.delete_study(study_name=name, storage=storage)


def patient(method: Callable[P, R]) -> Callable[P, R]:
    """A method that may be called again after it failed, called again while the database does not answer.

    Raises StorageError, naming what is wrong, after PATIENCE_SECONDS, and at once where waiting would not help.
    """

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        began, warned = time.monotonic(), False
        while True:
            try:
                return method(*args, **kwargs)
            except _refusals() as error:
                if not _may_return(error) or time.monotonic() - began > PATIENCE_SECONDS:
                    raise StorageError(f"the study's database: {_line(error)}") from error
                if not warned:
                    print(f"raymc: the study's database does not answer, trying again: {_line(error)}", file=sys.stderr)
                warned = True
            time.sleep(1.0)

    return call


def _may_return(error: BaseException) -> bool:
    """Whether a server was away; a full disk or a file that cannot be written stays so."""
    from sqlalchemy.exc import DBAPIError

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, DBAPIError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None and not type(cause.orig).__module__.startswith("sqlite3")


def _is_file(url: str) -> bool:
    return url.startswith("sqlite:")


def _refusals() -> tuple[type[Exception], ...]:
    """What a database's refusal is; SQLAlchemy is imported for those alone who open one."""
    from sqlalchemy.exc import SQLAlchemyError

    return SQLAlchemyError, optuna.exceptions.StorageInternalError


def _line(error: BaseException) -> str:
    """The innermost error in one line, without the statement that met it."""
    from sqlalchemy.exc import DBAPIError

    while error.__cause__ is not None and not isinstance(error, DBAPIError):
        error = error.__cause__
    found = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return masked(" ".join(str(found).split()))
