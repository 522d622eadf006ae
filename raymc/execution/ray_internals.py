"""The names of Ray's that are not its public interface: here and nowhere else.

Seen in Ray 2.51 and 2.60. A version that lacks one is met by `tests/test_search_ray_internals.py`, before the upper
bound of `ray` in pyproject.toml is moved (`make requirements`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from typing import Any

HEAD = "node:__internal_head__"
"""A resource that the head of every cluster has, and no other machine."""

SLOW_STARTS = ("timed out during startup", "Failed to connect to GCS")
"""What Ray says where one of its own processes was not up in time."""


@contextmanager
def on_loopback() -> Iterator[None]:
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


def keep_here(names: Set[str]) -> None:
    """Variables that Tune would send to each trial's process, and that Ray would write into its logs, stay here."""
    from ray.tune.execution import class_cache

    class_cache.ENV_VARS_TO_PROPAGATE -= names


class _SearchPath(list[str]):
    """What Ray puts before the installed packages of workers: not the working folder, which may hold a `torch.py`.

    A net of the user's is found there all the same (`raymc.nets.user_nets`).
    """

    def extend(self, folders: Iterable[str]) -> None:
        super().extend(folder for folder in folders if folder != os.getcwd())


def installed_first() -> Any:
    """The settings of a job whose workers look for modules in the installed packages first."""
    from ray.job_config import JobConfig

    job = JobConfig()
    job._py_driver_sys_path = _SearchPath()
    return job


@contextmanager
def own_output() -> Iterator[None]:
    """Keep off standard output what Ray's processes say of their own ends, traces as well: it prints that there."""
    from ray._private import worker

    before, worker._worker_logs_enabled = worker._worker_logs_enabled, False
    try:
        yield
    finally:
        worker._worker_logs_enabled = before


def end_idle_processes(tune_controller: Any) -> None:
    """Tune keeps a process that has ended its trial for the next one, with what it holds: give that back."""
    tune_controller._tune_controller._cleanup_cached_actors(force_all=True)


@contextmanager
def lost_calls_are_lost_actors() -> Iterator[None]:
    """In the block, every end that Ray gives the call of a trial's process is one of the process, and not of Tune.

    Tune expects the process's death or an error of its code. Ray also says that memory was full, or that a machine or
    an object was lost, and Tune would end with "Caught unexpected exception", and the search with it.
    """
    from ray.air.execution._internal.actor_manager import RayActorManager
    from ray.exceptions import RayActorError, RayError, RayTaskError

    failed = RayActorManager._actor_task_failed

    def settled(self: Any, exception: Exception, **call: Any) -> None:
        if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
            exception = RayActorError(error_msg=f"{type(exception).__name__}: {exception}")
        failed(self, exception=exception, **call)

    RayActorManager._actor_task_failed = settled  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = failed  # type: ignore[method-assign]


def cores() -> int:
    """Of this machine as Ray counts them: a container may have fewer."""
    from ray._private.utils import get_num_cpus

    return int(get_num_cpus())
