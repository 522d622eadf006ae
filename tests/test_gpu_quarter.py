"""The script for 15 minutes of a GPU, rehearsed: limits hold, what is done stays, a failure stops no other part."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from benchmarks import gpu_quarter, quarter_parts
from raymc.methods import METHODS

ROOT = Path(gpu_quarter.__file__).parents[1]


def asked(out: Path, *words: str) -> Any:
    return gpu_quarter.parser().parse_args(["--out", str(out), *words])


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Parts that are fabricated: `correctness` fails, `speed` never ends, the others write a number."""
    ran: list[str] = []
    own = subprocess.Popen

    def fabricated(words: list[str], **options: Any) -> Any:
        name, out = words[words.index("--run-part") + 1], Path(words[words.index("--storage") + 1])
        ran.append(name)
        ends = {"correctness": "raise ValueError('no such kernel')", "speed": "import time; time.sleep(60)"}
        found = f"from pathlib import Path; Path({str(out / f'{name}.json')!r}).write_text('{{\"ms\": 1}}')\n"
        return own([sys.executable, "-c", found + ends.get(name, "")], **options)

    monkeypatch.setattr(gpu_quarter.subprocess, "Popen", fabricated)
    monkeypatch.setattr(gpu_quarter, "facts", lambda *asked: {})  # asks other processes
    monkeypatch.setattr(gpu_quarter, "LIMITS", {**gpu_quarter.LIMITS, "speed": 5.0})
    return ran


def test_a_part_that_fails_or_is_cut_leaves_what_it_has_and_stops_no_other(tmp_path: Path, parts: list[str]) -> None:
    summary = gpu_quarter.run(asked(tmp_path / "out"))
    assert summary == json.loads((tmp_path / "out/summary.json").read_text())
    states = {name: row["state"] for name, row in summary["parts"].items()}
    assert states == {"correctness": "failed", "speed": "cut", "stage1": "done", "heads": "done", "gcml": "done"}
    assert summary["parts"]["correctness"]["reason"] == "ValueError: no such kernel"
    assert all(row["figures"] == {"ms": 1} for row in summary["parts"].values())
    assert 5 <= summary["parts"]["speed"]["seconds"] < 20
    parts.clear()
    gpu_quarter.run(asked(tmp_path / "out", "--parts", "correctness", "heads", "gcml"))
    assert parts == ["correctness"], "what is done is not run again"


def test_an_interrupted_command_ends_its_part_and_leaves_the_summary(
    tmp_path: Path, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    children: list[Any] = []
    fabricated = gpu_quarter.subprocess.Popen

    def remembered(words: list[str], **options: Any) -> Any:
        children.append(fabricated(words, **options))
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return children[-1]

    monkeypatch.setattr(gpu_quarter.subprocess, "Popen", remembered)
    before = signal.signal(signal.SIGTERM, gpu_quarter.interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            gpu_quarter.run(asked(tmp_path / "out", "--parts", "speed", "gcml"))
    finally:
        signal.signal(signal.SIGTERM, before)
    found = json.loads((tmp_path / "out/summary.json").read_text())["parts"]
    assert list(found) == ["speed"] and found["speed"]["state"] == "cut"
    assert found["speed"]["reason"] == "the command was interrupted" and found["speed"]["figures"] == {"ms": 1}
    assert [child.poll() for child in children] == [-signal.SIGKILL]


def test_what_has_no_time_left_is_skipped(tmp_path: Path, parts: list[str]) -> None:
    found = gpu_quarter.run(asked(tmp_path, "--minutes", "0", "--parts", "heads"))
    assert found["parts"]["heads"]["state"] == "skipped" and not parts


def test_the_captured_step_is_compared_with_the_plain_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU's graph does is its own affair: here stand-ins run the steps where they would be captured."""

    class Graph:
        def replay(self) -> None:
            pass

    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda *asked, **options: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    config, data = quarter_parts.loaded("nmce_digits", asked(tmp_path, "--rehearse"), **quarter_parts.TINY)
    config = quarter_parts.shortened(config, "pretrain", batch_size=64, epochs=2, warmup_epochs=0)
    model = quarter_parts.fresh(config, data, METHODS[config.method].stages(config)[0])
    row = quarter_parts.captured(quarter_parts.RaymcLoop(config, data, model, 1, torch.device("cpu")), 1)
    assert row["loss_relative_difference"] == row["gradient_relative_difference"] == 0 and row["loss"] < 0
    found: dict[str, Any] = {"ways": {}, "failed": {}}
    with quarter_parts.noted(found, "graphs", tmp_path / "speed.json"):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")
    reason = "RuntimeError: operation not permitted when stream is capturing"
    assert json.loads((tmp_path / "speed.json").read_text())["failed"] == {"graphs": reason}


BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"ray", "optuna", "mlflow"}:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Blocker())
import runpy
runpy.run_module("benchmarks.gpu_quarter", run_name="__main__")
"""


@pytest.mark.slow
def test_stage1_needs_neither_ray_optuna_mlflow_nor_git_and_leaves_few_files(tmp_path: Path) -> None:
    for name in ("benchmarks", "raymc", "search_spaces"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    words = ["--rehearse", "--out", "out", "--storage", "storage", "--run-part", "stage1"]
    (tmp_path / "storage").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", BLOCKED, *words], cwd=tmp_path, env=environment, check=True, timeout=120)
    found = json.loads((tmp_path / "storage/stage1.json").read_text())
    assert found["finished"] and set(found["probe"]) == {"knn_digits", "linear_digits"}
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) + 1 <= 8 and max(path.stat().st_size for path in files) < 16 * 2**20


@pytest.mark.slow
def test_the_whole_rehearsal_ends_in_time(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-m", "benchmarks.gpu_quarter", "--rehearse", "--out", str(out)]
    subprocess.run(words, check=True, timeout=300)
    parts = json.loads((out / "summary.json").read_text())["parts"]
    assert {row["state"] for row in parts.values()} == {"done"}
    assert sum(path.is_file() for path in out.rglob("*")) <= 8
