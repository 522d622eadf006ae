"""A whole search with a secret in every place where one can be: where it goes, where it listens, what it writes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.guarded import descendants, guard, is_loopback, listening
from tests.mlflow_server import Server, wait_for

for package in ("ray", "optuna", "mlflow"):
    pytest.importorskip(package, reason=f"{package} is not installed: no search to watch")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="no /proc: nothing tells who listens where"),
]

SECRET = "hunter2"
IN_ENVIRONMENT = (
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN",
    "DATABRICKS_TOKEN", "RAY_AUTH_TOKEN", "HF_TOKEN", "PGPASSWORD", "WANDB_API_KEY",
)  # fmt: skip

CLOUDS = ("169.254.169.254", "metadata.google.internal")
"""Ray's dashboard asks whether it is in a cloud, though told to report nothing; no setting keeps it from that."""


@dataclass
class Watched:
    """What a search of two trials left behind."""

    result: dict[str, Any]
    output: str
    folders: tuple[Path, ...]
    listened: set[tuple[str, str]]
    attempts: Path


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    rays = Path(tempfile.mkdtemp(prefix="raymc-", dir="/tmp"))  # short, since sockets' paths are
    hook, attempts = guard(folder / "hook")
    secrets = {name: f"{SECRET}-{name.lower()}" for name in IN_ENVIRONMENT}
    server = Server(folder, hook | secrets)
    server.start()
    try:
        wait_for(server.answers, 300, "the server's start")
        uri = server.uri.replace("://", f"://me:{SECRET}%40%2Fpass@")
        words = ["nmce_digits", "heads.epochs=2", "--smoke", "--trials", "2", "--concurrent", "1", "--name", "s"]
        words += ["--storage", "storage", "--json", "--tracking-uri", uri]
        done, listened = _run(words, folder, hook | secrets | {"RAY_TMPDIR": str(rays)})
        listened |= listening(descendants(server.pid))
    finally:
        server.kill()
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    yield Watched(result, done.stdout + done.stderr, (folder, rays), listened, attempts)
    shutil.rmtree(rays, ignore_errors=True)


def _run(
    words: list[str], folder: Path, environment: dict[str, str]
) -> tuple[subprocess.CompletedProcess[str], set[tuple[str, str]]]:
    """`raymc tune` in `folder`; how it ended, and where it and its Ray were seen to listen."""
    command = [sys.executable, "-m", "raymc.tune", *words]
    listened: set[tuple[str, str]] = set()
    # What a user has: the tests' own settings would hide what raymc forgets to set.
    quiet = ("DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED")
    environment = {name: value for name, value in os.environ.items() if name not in quiet} | environment
    # Its output goes to pipes, since it is searched for the secret by itself.
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None:
            listened |= listening(descendants(process.pid))
            time.sleep(0.5)
        out, err = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, out, err), listened


def test_it_listens_on_loopback_only(watched: Watched) -> None:
    names = {name for name, _ in watched.listened}
    assert names >= {"gcs_server", "raylet"}, f"only {names} were seen to listen"
    assert [one for one in sorted(watched.listened) if not is_loopback(one[1])] == []


def test_it_works_without_a_network_and_tries_to_reach_nothing(watched: Watched) -> None:
    assert watched.result["trials"] == {"finished": 2, "pruned": 0, "failed": 0}
    assert "has not answered" not in watched.output
    lines = watched.attempts.read_text().splitlines() if watched.attempts.exists() else []
    assert [line for line in lines if not ("dashboard.py" in line and any(host in line for host in CLOUDS))] == []


def test_no_secret_is_in_any_file_or_line(watched: Watched) -> None:
    assert SECRET not in watched.output
    files = [path for folder in watched.folders for path in folder.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert names >= {"study.json", "server.db", "server.log", "index.html", "raylet.out", "events.jsonl"}
    assert [str(path) for path in files if SECRET.encode() in path.read_bytes()] == []
    assert watched.result["tracking_uri"].startswith("http://me:***@127.0.0.1:")
    command = json.loads(next(path for path in files if path.name == "study.json").read_text())["command"]
    assert "http://me:***@127.0.0.1:" in command
