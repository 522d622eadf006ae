"""How a command on Ray ends when it is asked to: by SIGTERM while Ray starts, without Ray's lines on its output."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from raymc.cli import Terminated, on_sigterm
from raymc.execution import cluster
from raymc.execution.cluster import ray_session

pytestmark = pytest.mark.filterwarnings("default")  # Ray's own


def test_sigterm_while_ray_starts_is_the_commands_and_not_rays(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(dashboard: bool) -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # as `ray.init` does first of all
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    monkeypatch.setattr(cluster, "_start", start)
    with on_sigterm() as received, pytest.raises(Terminated), ray_session(None, dashboard=False):
        pass
    assert received == [signal.SIGTERM]


def test_what_rays_processes_say_of_their_end_is_not_among_the_results(capfd: pytest.CaptureFixture[str]) -> None:
    with ray_session(None, dashboard=False):
        from ray._private import utils, worker

        utils.push_error_to_driver(worker.global_worker, "ends", "The autoscaler failed with the following error:")
        time.sleep(1.0)
    assert capfd.readouterr().out == ""
