"""Names of libraries that are not their public interface: each in one file, and still there in the version at hand."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from raymc.errors import MachineError
from raymc.execution import cluster, ray_internals
from tests.server_process import free_port
from tests.test_layers import MODULES, imported

ROOT = Path(__file__).parent.parent
ONE_PLACE = {"raymc.execution.ray_internals", "raymc.study.optuna_internals"}
OPTUNAS = {"_trial_id", "_storage", "_study_id"}


def private_names(module: str, path: Path) -> Iterator[str]:
    for name in imported(module, path):
        if name.startswith(("ray.", "optuna.")) and re.search(r"\._|\bclass_cache\b", name):
            yield name
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in OPTUNAS and ast.unparse(node.value) != "self":
            yield ast.unparse(node)


def test_private_names_are_in_one_file_for_each_engine() -> None:
    found = {module: [*private_names(module, path)] for module, path in MODULES.items()}
    assert {module for module, names in found.items() if names} == ONE_PLACE


def test_rays_are_there_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import ray_constants
    from ray.tune.execution import class_cache

    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    monkeypatch.setenv(name, "1")
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)  # a Ray of other tests in this process
    with ray_internals.on_loopback():
        assert os.environ[name] == "0" and ray_constants.ENABLE_RAY_CLUSTER is False
    assert os.environ[name] == "1" and ray_constants.ENABLE_RAY_CLUSTER
    sent = class_cache.ENV_VARS_TO_PROPAGATE
    monkeypatch.setattr(class_cache, "ENV_VARS_TO_PROPAGATE", {*sent, "A_SECRET"})
    ray_internals.keep_here({"A_SECRET"})
    assert sent == class_cache.ENV_VARS_TO_PROPAGATE
    timed_out, no_answer = ray_internals.SLOW_STARTS
    assert timed_out in Path(ray._private.node.__file__).read_text()
    assert no_answer in Path(ray._private.state.__file__).read_text()


@pytest.mark.parametrize(
    ("said", "tries", "kind"), [*((one, 3, MachineError) for one in ray_internals.SLOW_STARTS), ("no", 1, OSError)]
)
def test_a_start_that_is_too_slow_is_tried_again(
    said: str, tries: int, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the end it is one line; another error is what it was at once."""
    asked = []

    def init(**options: Any) -> None:
        asked.append(options)
        raise OSError(f"Ray says: {said}")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(kind, match=said) as caught:
        cluster._start(False, "")
    assert len(asked) == tries and "\n" not in str(caught.value)


def test_a_call_that_ends_by_whatever_ray_says_is_a_process_that_died() -> None:
    from ray import exceptions
    from ray.air.execution._internal.actor_manager import RayActorManager

    told: list[Exception] = []
    actor = SimpleNamespace(actor_id=0, _on_error=lambda actor, error: told.append(error))
    call = SimpleNamespace(_tracked_actor=actor, _on_error=None)
    manager: Any = SimpleNamespace(_failed_actor_ids=set(), _cleanup_actor=lambda tracked_actor: None)
    before = RayActorManager._actor_task_failed
    full = exceptions.OutOfMemoryError("the node was running low on memory")
    with ray_internals.lost_calls_are_lost_actors():
        RayActorManager._actor_task_failed(manager, tracked_actor_task=call, exception=full)
        RayActorManager._actor_task_failed(manager, tracked_actor_task=call, exception=exceptions.ActorDiedError())
        with pytest.raises(RuntimeError, match="unexpected"):
            RayActorManager._actor_task_failed(manager, tracked_actor_task=call, exception=ValueError("not Ray's"))
    assert [type(error) for error in told] == [exceptions.RayActorError, exceptions.ActorDiedError]
    assert str(told[0]) == f"OutOfMemoryError: {full}" and RayActorManager._actor_task_failed is before


def test_the_bound_of_ray_is_behind_the_version_that_was_tested() -> None:
    bound = re.search(r'"ray\[[a-z,]+\]>=[\d.]+,<(\d+)\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    pinned = re.search(r"^ray==(\d+)\.(\d+)", (ROOT / "requirements.txt").read_text(), flags=re.MULTILINE)
    assert bound and pinned, "pyproject.toml bounds ray, requirements.txt pins it (make requirements)"
    major, minor = (int(part) for part in pinned.groups())
    assert bound.groups() == (str(major), str(minor + 1))
    seen = (ray_internals.__doc__ or "").replace("\n", " ")
    assert version("ray").rpartition(".")[0] in seen, "say there in which versions these names were seen"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's own
def test_the_environment_of_trials_reaches_a_cluster_that_was_started_without_it(tmp_path: Path) -> None:
    plain = {name: text for name, text in os.environ.items() if not name.startswith(("RAY_", "TUNE_", "DO_NOT"))}
    plain |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    port = free_port()
    words = "--head --block --num-cpus=1 --include-dashboard=false --node-ip-address=127.0.0.1"
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", *words.split(), f"--port={port}"]
    code = (
        "import json, os, ray\n"
        "from raymc.execution.cluster import ray_session\n"
        "from raymc.execution.driver import quiet_environment\n"
        "quiet_environment()\n"
        f"with ray_session('127.0.0.1:{port}', dashboard=False):\n"
        "    there = ray.remote(lambda: dict(os.environ)).remote()\n"
        "    print(json.dumps(ray.get(there, timeout=120)))"
    )
    with (tmp_path / "log").open("w") as log, TemporaryDirectory(prefix="r", dir="/tmp") as short:  # for sockets' paths
        cluster = subprocess.Popen(start, env=plain | {"RAY_TMPDIR": short}, stdout=log, stderr=log)
        try:
            for _ in range(30):  # until the cluster is up
                done = subprocess.run([sys.executable, "-c", code], env=plain, capture_output=True, text=True)
                if done.returncode == 0 or cluster.poll() is not None:
                    break
        finally:
            cluster.terminate()
            cluster.wait(60)
    assert done.returncode == 0, done.stderr + (tmp_path / "log").read_text()
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["TUNE_FUNCTION_THREAD_TIMEOUT_S"] == "600" and found["RAY_CHDIR_TO_TRIAL_DIR"] == "0"
