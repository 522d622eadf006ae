"""Starting Ray on this machine, or joining a cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from raymc.errors import InputError


@contextmanager
def ray_session(address: str | None, dashboard: bool) -> Iterator[None]:
    """Ray for the length of the block: a private one on this machine, or the cluster at `address`.

    `dashboard` is needed where Ray Train runs under Tune (it frees the resources of stopped trials through it).
    Raises InputError when no cluster answers at `address`.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
    import ray

    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            # Without an address Ray would attach to any cluster that already runs on this machine.
            os.environ.setdefault("RAY_AUTH_MODE", "disabled")
            ray.init(
                address="local",
                include_dashboard=dashboard,
                dashboard_host="127.0.0.1",
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        if address:
            raise InputError(f"no Ray cluster answers at {address}: {error}") from error
        raise
    try:
        yield
    finally:
        ray.shutdown()
