"""Starting Ray on this machine, or joining a cluster."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from raymc.errors import InputError

STARTS = 3
"""How often a start is tried: Ray gives its processes 30 seconds, which a busy machine may exceed."""

OBJECT_STORE = 256 * 2**20
"""Bytes of shared memory: only reports and small settings travel, data sets are read by the workers themselves."""


@contextmanager
def ray_session(address: str | None, dashboard: bool) -> Iterator[None]:
    """Ray for the length of the block: a private one on this machine, or the cluster at `address`.

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
    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            # Without an address Ray would attach to any cluster that already runs on this machine.
            os.environ.setdefault("RAY_AUTH_MODE", "disabled")
            _start(dashboard)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if address:
            raise InputError(f"no Ray cluster answers at {address}: {error}") from error
        raise
    try:
        yield
    finally:
        gc.collect()  # a handle that is collected after the end makes Ray exit the process
        ray.shutdown()


def _start(dashboard: bool) -> None:
    import ray

    for attempt in range(1, STARTS + 1):
        try:
            ray.init(
                address="local",
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
