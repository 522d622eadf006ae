"""How a command on Ray ends when it is asked to: by SIGTERM while Ray starts, without Ray's lines on its output."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from raymc.cli import Terminated, execute, on_sigterm
from raymc.execution import address, cluster
from raymc.execution.cluster import ray_session
from tests import shared_ray

pytestmark = pytest.mark.filterwarnings("default")  # Ray's own


def test_sigterm_while_ray_starts_is_the_commands_and_not_rays(monkeypatch: pytest.MonkeyPatch) -> None:
    shared_ray.end()

    def start(dashboard: bool, folder: str) -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # as `ray.init` does first of all
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    monkeypatch.setattr(cluster, "_start", start)
    with on_sigterm() as received, pytest.raises(Terminated), ray_session(None, dashboard=False):
        pass
    assert received == [signal.SIGTERM]


@pytest.mark.slow
def test_what_rays_processes_say_of_their_end_is_not_among_the_results(capfd: pytest.CaptureFixture[str]) -> None:
    shared_ray.end()
    with ray_session(None, dashboard=False):
        from ray._private import utils, worker

        utils.push_error_to_driver(worker.global_worker, "ends", "The autoscaler failed with the following error:")
        time.sleep(1.0)
    assert capfd.readouterr().out == ""


COMMANDS = {
    "tune": ["nmce_digits", "--name", "s"],
    "train": ["nmce_digits", "--out", "out"],
    "stability": ["nmce_digits"],
    "cluster": ["digits", "--methods", "kmeans", "--out", "out"],
    "studies": ["compare", "a", "b"],
}


@pytest.mark.parametrize("word", COMMANDS)
def test_no_cluster_at_the_address_is_one_line_and_leaves_nothing(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(address, "ANSWER_SECONDS", 2.0)
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # other tests may share a cluster in this process
    door = importlib.import_module(f"raymc.commands.{word}")
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as closed:
        port, none = silent.getsockname()[1], closed.getsockname()[1]
        closed.close()
        told = {
            f"127.0.0.1:{none}": "no Ray cluster answers there (Connection refused)",
            f"127.0.0.1:{port}": "no Ray cluster answers there (nothing came of it in time)",
            "head": "write HOST:PORT, or auto for the cluster that this machine is in",
        }
        for place, words in told.items():
            assert execute(door.parser(), door.run, [*COMMANDS[word], "--storage", "storage", "--address", place]) == 2
            assert capfd.readouterr() == ("", f"raymc: --address {place}: {words}\n")
    assert list(tmp_path.iterdir()) == []
