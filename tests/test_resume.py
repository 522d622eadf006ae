"""A search on the handwritten digits survives kill -9 and Ctrl-C: no finished trial again, none missing."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

import optuna

from raymc.study.events import read_events

PATIENCE = 900.0  # seconds, on a machine that is busy with other things
ROOT = Path(__file__).parents[1]
SPACE = """
method: nmce
dataset: digits
fixed: {pretrain.epochs: 12, heads.epochs: 8, finetune.epochs: 0}
space:
  heads.weight_decay: {low: 1.0e-5, high: 1.0e-2, log: true}
budget: {trials: 5, seeds: 1, confirm: {top: 1, seeds: 2}}
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Search]]:
    """Starts searches in `tmp_path`, and ends what a failed test left running."""
    started: list[Search] = []

    def begin(*words: str, ignores_ctrl_c: bool = False) -> Search:
        started.append(Search(tmp_path, list(words), ignores_ctrl_c))
        return started[-1]

    yield begin
    for search in started:
        if search.process.poll() is None:
            search.kill()


class Search:
    """A `raymc.tune` in a process of its own, whose folder one can look into."""

    def __init__(self, work: Path, words: list[str], ignores_ctrl_c: bool) -> None:
        on_ctrl_c = signal.SIG_IGN if ignores_ctrl_c else signal.SIG_DFL
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        self.errors = work / "stderr.txt"
        self.study = work / "storage" / "studies" / "s"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *words],
                cwd=work,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
                # A test run in a shell's background inherits an ignored SIGINT; a user's terminal does not.
                preexec_fn=lambda: signal.signal(signal.SIGINT, on_ctrl_c),
            )

    def wait_for(self, moment: Callable[[Path], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not moment(self.study):
            assert self.process.poll() is None, f"it ended too early: {self.errors.read_text()}"
            assert time.monotonic() < deadline, self.errors.read_text()
            time.sleep(0.1)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def interrupt(self, number: int = signal.SIGINT) -> None:
        os.killpg(self.process.pid, number)  # as a terminal and Slurm do: to Ray's processes too

    def end(self) -> tuple[int, str]:
        out, _ = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out


def _finished(study: Path) -> dict[str, float]:
    """The results that must not be touched again, with the time at which they were written."""
    found = {}
    for path in study.glob("*/*/seed-*/result.json"):
        if json.loads(path.read_text())["state"] == "finished":
            found[str(path.relative_to(study))] = path.stat().st_mtime_ns
    return found


def _epochs(study: Path, stage: str) -> list[list[int]]:
    """The epochs of a stage that is trained before the trials, in each of its sessions."""
    sessions: list[list[int]] = []
    for event in (one for path in sorted(study.glob("stages/*/seed-*/events.jsonl")) for one in read_events(path)):
        if event["event"] == "begin":
            sessions.append([])
        elif event["event"] == "resumed" and event["stage"] == stage:
            sessions[-1] = []  # those before it were trained earlier
        elif event["event"] == "epoch" and event["stage"] == stage:
            sessions[-1].append(event["epoch"])
    return sessions


def _optuna(study: Path) -> list[Any]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{study / 'optuna.db'}")
    try:
        return optuna.load_study(study_name="s", storage=storage).get_trials()
    finally:
        storage.engine.dispose()


@pytest.mark.slow
@pytest.mark.timeout(4 * PATIENCE)
@pytest.mark.filterwarnings("default")  # Ray's and MLflow's own
def test_a_search_on_the_digits_is_killed_interrupted_and_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Any, command: Any
) -> None:
    (tmp_path / "small.yaml").write_text(SPACE)
    common = ["--storage", "storage", "--name", "s", "--concurrent", "1", "--json"]
    first = start("-m", "raymc.tune", "small.yaml", *common)
    first.wait_for(lambda study: max([0, *sum(_epochs(study, "pretrain"), [])]) >= 6)
    first.kill()

    second = start("-m", "raymc.tune", "small.yaml", "--resume", *common)
    second.wait_for(lambda study: len(_finished(study)) >= 3)  # the stage and two trials
    kept = _finished(second.study)
    second.interrupt()
    code, _ = second.end()
    told = second.errors.read_text()
    assert code == 130 and "Traceback" not in told, told
    before, again = _epochs(second.study, "pretrain")[:2]
    assert before[-1] >= 6 and again[0] > 1, "the interrupted stage goes on from its last checkpoint"

    line = next(line for line in told.splitlines() if line.startswith("interrupted; go on with: "))
    words = shlex.split(line.removeprefix("interrupted; go on with: "))
    assert words[:3] == ["cd", str(tmp_path), "&&"]
    words = words[words.index(sys.executable) :]
    assert words[:3] == [sys.executable, "-m", "raymc.tune"]
    ended = start(*words[1:], ignores_ctrl_c=True)
    ended.wait_for(lambda study: len(_finished(study)) > len(kept))
    kept = _finished(ended.study)
    begun = time.monotonic()
    ended.interrupt(signal.SIGTERM)
    code, out = ended.end()
    assert (code, out, time.monotonic() - begun < 30.0) == (143, "", True)
    assert line == ended.errors.read_text().splitlines()[-1] and "Traceback" not in ended.errors.read_text()

    third = start(*words[1:], "--json")
    code, out = third.end()
    assert code == 0, third.errors.read_text()

    result = json.loads(out.splitlines()[-1])
    assert result["trials"] == {"finished": 5, "pruned": 0, "failed": 0}
    assert [trial.state.name for trial in _optuna(third.study)] == ["COMPLETE"] * 5
    after = _finished(third.study)
    fresh = 2 if result["confirm"]["trial"] == 0 else 4  # the winner's, and the default's: it is trial 0
    assert len([name for name in after if not name.startswith("stages")]) == 5 + fresh
    assert kept.items() <= after.items(), "a finished seed was run again"
    pretrainings = [path for path in (tmp_path / "storage" / "stages").rglob("*") if path.is_file()]
    assert pretrainings and result["stages"]["computed"] >= 1 and result["stages"]["reused"] >= 4
    assert (tmp_path / "reports" / "s" / "index.html").exists() and Path(result["report"]).exists()
    sessions = json.loads((third.study / "study.json").read_text())["sittings"]
    assert len(sessions) == 4 and all(session["seconds"] > 0 for session in sessions)

    monkeypatch.chdir(tmp_path)
    whole = command("tune", "small.yaml", *common[:2], "--name", "whole", *common[4:-1])
    assert (whole["best"]["trial"], whole["best"]["params"]) == (result["best"]["trial"], result["best"]["params"])
    assert whole["best"]["metrics"]["acc"] == pytest.approx(result["best"]["metrics"]["acc"], abs=1e-6)
