"""The script for 15 minutes of a GPU, rehearsed: limits hold, what is done stays, a failure stops no other part."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_quarter


def asked(out: Path, *words: str) -> Any:
    return gpu_quarter.parser().parse_args(["--out", str(out), *words])


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Parts that are fabricated: `correctness` fails, `speed` never ends, the others write a number."""
    ran: list[str] = []
    own = subprocess.run

    def fabricated(words: list[str], **options: Any) -> Any:
        if "--run-part" not in words:
            return own(words, **options)  # of the machine's facts
        name, out = words[words.index("--run-part") + 1], Path(words[words.index("--out") + 1])
        ran.append(name)
        ends = {"correctness": "raise ValueError('no such kernel')", "speed": "import time; time.sleep(60)"}
        found = f"from pathlib import Path; Path({str(out / f'{name}.json')!r}).write_text('{{\"ms\": 1}}')\n"
        return own([sys.executable, "-c", found + ends.get(name, "")], **options)

    monkeypatch.setattr(gpu_quarter.subprocess, "run", fabricated)
    monkeypatch.setattr(gpu_quarter, "LIMITS", {**gpu_quarter.LIMITS, "speed": 5.0})
    return ran


def test_a_part_that_fails_or_is_cut_leaves_what_it_has_and_stops_no_other(tmp_path: Path, parts: list[str]) -> None:
    summary = gpu_quarter.run(asked(tmp_path))
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    states = {name: row["state"] for name, row in summary["parts"].items()}
    assert states == {"correctness": "failed", "speed": "cut", "stage1": "done", "heads": "done", "gcml": "done"}
    assert summary["parts"]["correctness"]["reason"] == "ValueError: no such kernel"
    assert all(row["figures"] == {"ms": 1} for row in summary["parts"].values())
    assert 5 <= summary["parts"]["speed"]["seconds"] < 20
    parts.clear()
    gpu_quarter.run(asked(tmp_path, "--parts", "correctness", "heads", "gcml"))
    assert parts == ["correctness"], "what is done is not run again"


def test_what_has_no_time_left_is_skipped(tmp_path: Path, parts: list[str]) -> None:
    found = gpu_quarter.run(asked(tmp_path, "--minutes", "0", "--parts", "heads"))
    assert found["parts"]["heads"]["state"] == "skipped" and not parts


@pytest.mark.slow
def test_the_whole_rehearsal_ends_in_time(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "benchmarks.gpu_quarter", "--rehearse", "--out", str(tmp_path)]
    subprocess.run(words, check=True, timeout=300)
    parts = json.loads((tmp_path / "summary.json").read_text())["parts"]
    assert {row["state"] for row in parts.values()} == {"done"}
