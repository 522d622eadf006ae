"""Starting Ray on this machine, or joining a cluster."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from raymc.errors import InputError

STARTS = 3
"""How often a start is tried: Ray gives its processes 30 seconds, which a busy machine may exceed."""

OBJECT_STORE = 256 * 2**20
"""Bytes of shared memory: only reports and small settings travel, data sets are read by the workers themselves."""


@contextmanager
def ray_session(address: str | None, dashboard: bool) -> Iterator[None]:
    """Ray for the length of the block: a private one that this machine alone can reach, or the cluster at `address`.

    Inside another such block it is that one's: Ray may end a process that stops it and starts it again.
    `dashboard` is needed where Ray Train runs under Tune (it frees the resources of stopped trials through it).
    Raises InputError when no cluster answers at `address`.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    with nullcontext() if address else _on_loopback(), _own_output():
        with _own_sigterm():
            _join(address) if address else _start(dashboard)
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


@contextmanager
def _own_output() -> Iterator[None]:
    """Keep off standard output what Ray's processes say of their own ends, traces as well: it prints that there."""
    from ray._private import worker

    before, worker._worker_logs_enabled = worker._worker_logs_enabled, False
    try:
        yield
    finally:
        worker._worker_logs_enabled = before


def _join(address: str) -> None:
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"no Ray cluster answers at {address}: {error}") from error


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


def _start(dashboard: bool) -> None:
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
            )
            return
        except Exception as error:
            ray.shutdown()
            if attempt == STARTS or "timed out during startup" not in str(error):
                raise
