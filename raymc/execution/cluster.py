"""Starting Ray on this machine, or joining a cluster."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from raymc.errors import InputError, MachineError
from raymc.execution.ray_internals import SLOW_STARTS, installed_first, on_loopback, own_output
from raymc.execution.session_folder import plasma_folder, session_folder

STARTS = 3
"""How often a start is tried: Ray gives its processes 30 seconds, which a busy machine may exceed."""

OBJECT_STORE = 256 * 2**20
"""Bytes of shared memory: only reports and small settings travel, data sets are read by the workers themselves."""


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
"""Settings of Ray and Tune, for the command and for the processes of its trials."""


@contextmanager
def ray_session(address: str | None, dashboard: bool) -> Iterator[None]:
    """Ray for the length of the block: a private one that this machine alone can reach, or the cluster at `address`.

    Inside another such block it is that one's: Ray may end a process that stops it and starts it again.
    `dashboard` is needed where Ray Train runs under Tune (it frees the resources of stopped trials through it). A
    cluster's processes, which were started in environments of their own, get ENVIRONMENT as it is in this one.
    Raises InputError when no cluster answers at `address`, StorageError where Ray has no folder for its session.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    with (
        nullcontext("") if address else session_folder() as folder,
        nullcontext() if address else on_loopback(),
        own_output(),
    ):
        with _own_sigterm():
            _join(address) if address else _start(dashboard, folder)
        try:
            yield
        finally:
            gc.collect()  # a handle that is collected after the end makes Ray exit the process
            ray.shutdown()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """SIGTERM does in the block what it did before, though Ray then sets a handler that exits the process at once."""
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    is_main = threading.current_thread() is threading.main_thread()
    try:
        yield
    except SystemExit:
        if not is_main:
            raise
        ray.shutdown()
        signal.signal(signal.SIGTERM, handler)
        signal.raise_signal(signal.SIGTERM)
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, handler)


def _join(address: str) -> None:
    import ray

    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")  # `ray job submit` may name the same variables
    sent = {name: os.environ[name] for name in (*ENVIRONMENT, "DO_NOT_TRACK") if name in os.environ}
    try:
        ray.init(
            address,
            runtime_env={"env_vars": sent},
            log_to_driver=False,
            logging_level=logging.ERROR,
            job_config=installed_first(),
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"no Ray cluster answers at {address}: {error}") from error


def _start(dashboard: bool, folder: str) -> None:
    import ray

    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    reason = ""
    for _ in range(STARTS):
        try:
            ray.init(
                address="local",  # without it Ray would attach to any cluster that already runs on this machine
                include_dashboard=dashboard,
                dashboard_host="127.0.0.1",
                object_store_memory=OBJECT_STORE,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=folder,
                _plasma_directory=plasma_folder(folder),
                # One process a core that Ray starts ahead is never used: a trial's has variables of its own.
                _system_config={"prestart_worker_first_driver": False},
                job_config=installed_first(),
            )
            return
        except Exception as error:
            ray.shutdown()
            if not any(words in str(error) for words in SLOW_STARTS):
                raise
            reason = str(error)
    raise MachineError(f"Ray did not start in {STARTS} tries, as on a machine with too much else to do: {reason}")
