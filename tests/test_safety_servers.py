"""Servers that raymc's files start, or tell the user to start: on loopback, and without reports to their makers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXTS = [
    ROOT / "Makefile",
    ROOT / "README.md",
    *sorted((ROOT / "clusters").glob("*.*")),
    *sorted((ROOT / "docs").glob("*.md")),
]
COMMAND = re.compile(r"(?:\S*/)?(?:ray\"? start --head|mlflow\"? (?:ui|server)\b)(?:.*\\\n)*.*")
"""With the lines that it goes on in."""


def commands(path: Path) -> list[str]:
    return [found.replace("\\\n", " ") for found in COMMAND.findall(path.read_text())]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_servers_bind_to_loopback(path: Path) -> None:
    for command in commands(path):
        hosts = re.findall(r"--(?:dashboard-)?host[= ](\S+)", command)
        assert set(hosts) <= {"127.0.0.1"}, command
        assert hosts or "mlflow ui" in command or "--" not in command, f"{command}: where does it bind?"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_servers_report_nothing(path: Path) -> None:
    text = path.read_text()
    for command in commands(path):
        if "--" in command:
            name = "MLFLOW_DISABLE_TELEMETRY=true" if "mlflow" in command else "RAY_USAGE_STATS_ENABLED=0"
            assert name in text or "--disable-usage-stats" in command, command


def test_they_are_found() -> None:
    found = {path.name for path in TEXTS if commands(path)}
    assert found >= {"Makefile", "aws.yaml", "gcp.yaml", "local.yaml", "head.sh", "cluster.md"}


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_ui_shows_no_password() -> None:
    environment = os.environ | {"MLFLOW_TRACKING_URI": "http://me:hunter2@host:5000/x"}
    words = ["make", "-s", "-o", ".venv/.ready", "ui"]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "MLflow's pages are at http://host:5000/x\n" and "hunter2" not in done.stderr
