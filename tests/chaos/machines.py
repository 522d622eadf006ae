"""A Ray cluster of several machines on this one: a head without cores, and machines that can vanish."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from ray.cluster_utils import Cluster

from raymc.execution.cluster import OBJECT_STORE, ray_session
from raymc.execution.driver import quiet_environment
from tests import shared_ray
from tests.server_process import free_port

PATIENCE = 600.0  # seconds, on a computer that is busy with other things


class Machines:
    """Each machine is a raylet with one core. They share an address and the folders of this computer."""

    def __init__(self) -> None:
        head = {"num_cpus": 0, "include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": free_port()}
        self._cluster = Cluster(True, head_node_args=head | {"object_store_memory": OBJECT_STORE})
        self._nodes: dict[str, Any] = {}

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    @property
    def alive(self) -> list[str]:
        """Ray's ids of the machines but the head."""
        return list(self._nodes)

    def add(self, **environment: str) -> str:
        """A new machine joins, in whose environment is this too; Ray's id of it. Only in the main thread."""
        node = self._cluster.add_node(num_cpus=1, env_vars=environment)
        self._nodes[node.node_id] = node
        return str(node.node_id)

    def fill(self, count: int) -> None:
        """Bring the machines to `count`."""
        while len(self._nodes) < count:
            self.add()

    def kill(self, node: str) -> float:
        """SIGKILL to a machine's Ray, whose processes die with it; when that was."""
        now = time.time()
        self._cluster.remove_node(self._nodes.pop(node), allow_graceful=False)
        return now

    def end(self) -> None:
        self._cluster.shutdown()


@contextmanager
def machines() -> Iterator[Machines]:
    """A cluster that this process has joined."""
    shared_ray.end()
    before = dict(os.environ)
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1"}  # an epoch takes a second
    quiet_environment()
    cluster = Machines()
    try:
        with ray_session(cluster.address, dashboard=True):
            yield cluster
    finally:
        cluster.end()
        os.environ.clear()
        os.environ.update(before)


def wait_until(happened: Callable[[], bool], running: Future[Any]) -> None:
    """Wait for something that `running` brings about; its error, if it ends before."""
    end = time.monotonic() + PATIENCE
    while not happened():
        if running.done():
            raise RuntimeError("it ended before") from running.exception()
        if time.monotonic() > end:
            raise TimeoutError("it did not happen")
        time.sleep(0.1)
