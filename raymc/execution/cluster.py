"""Starting Ray on this machine, or joining a cluster."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from raymc.errors import InputError
from raymc.execution.session_folder import plasma_folder, session_folder

STARTS = 3
"""How often a start is tried: Ray gives its processes 30 seconds, which a busy machine may exceed."""

OBJECT_STORE = 256 * 2**20
"""Bytes of shared memory: only reports and small settings travel, data sets are read by the workers themselves."""


@contextmanager
def ray_session(address: str | None, dashboard: bool) -> Iterator[None]:
    """Ray for the length of the block: a private one that this machine alone can reach, or the cluster at `address`.

    Inside another such block it is that one's: Ray may end a process that stops it and starts it again.
    `dashboard` is needed where Ray Train runs under Tune (it frees the resources of stopped trials through it).
    Raises InputError when no cluster answers at `address`, StorageError where Ray has no folder for its session.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    with nullcontext("") if address else session_folder() as folder, nullcontext() if address else _on_loopback():
        handler = signal.getsignal(signal.SIGTERM)
        _join(address) if address else _start(dashboard, folder)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray's own would exit at once
        try:
            yield
        finally:
            gc.collect()  # a handle that is collected after the end makes Ray exit the process
            ray.shutdown()


def _join(address: str) -> None:
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, job_config=_installed_first())
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"no Ray cluster answers at {address}: {error}") from error


class _SearchPath(list[str]):
    """What Ray puts before the installed packages of workers: not the working folder, which may hold a `torch.py`.

    A net of the user's is found there all the same (`raymc.nets.user_nets`).
    """

    def extend(self, folders: Iterable[str]) -> None:
        super().extend(folder for folder in folders if folder != os.getcwd())


def _installed_first() -> Any:
    from ray.job_config import JobConfig

    job = JobConfig()
    job._py_driver_sys_path = _SearchPath()
    return job


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Ray's processes listen on 127.0.0.1 alone, as where Ray knows no clusters (macOS); else on every network.

    For those it starts the variable says so, for this process, which may have imported Ray before, the constant. Both
    are put back, since `ray start` refuses to run with the variable.
    """
    from ray._private import ray_constants

    name, enabled = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    before = os.environ.get(name)
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = enabled
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _start(dashboard: bool, folder: str) -> None:
    import ray

    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    for attempt in range(1, STARTS + 1):
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
                job_config=_installed_first(),
            )
            return
        except Exception as error:
            ray.shutdown()
            if attempt == STARTS or "timed out during startup" not in str(error):
                raise
