"""`clusters/slurm.sh` without a Slurm: what it asks Slurm, Ray and raymc for, and what it does with signals.

`clusters/README.md` says what was run under a real one.
"""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "clusters/slurm.sh"
FAKES = {
    "python": "echo 2\n",  # a token, and how many nodes are there
    "scontrol": 'echo "scontrol $*" >>calls\n[ "$1" != show ] || printf "n1\\nn2\\n"\n',
    "srun": 'echo "srun $*" >>calls\n',
    "raymc": "trap 'exit 143' TERM\necho \"raymc $*\" >>calls\n[ ! -e over ] || exit 0\nwhile :; do sleep 0.1; done\n",
}
JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_ON_NODE": "64", "SLURM_JOB_NODELIST": "n[1-2]"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name, text in FAKES.items():
        fake = tmp_path / ".venv/bin" / name
        fake.write_text(f"#!/bin/sh\n{text}")
        fake.chmod(0o755)
    return tmp_path


def run(folder: Path, sent: signal.Signals | None, **environment: str) -> tuple[int, list[str]]:
    """The job's exit code and the calls; `sent` goes to its shell alone once the search runs."""
    command = ["bash", str(SCRIPT), "spaces/mine.yaml", "--trials", "9"]
    job = subprocess.Popen(command, cwd=folder, env={"PATH": "/usr/bin:/bin"} | JOB | environment)
    calls = folder / "calls"
    for _ in range(300):
        if calls.exists() and "raymc " in calls.read_text():
            break
        time.sleep(0.1)
    time.sleep(0.5)
    if sent is not None:
        job.send_signal(sent)
    return job.wait(30), calls.read_text().splitlines()


@pytest.mark.parametrize("sent", [signal.SIGUSR1, signal.SIGTERM, None])
def test_at_the_time_limit_it_goes_into_the_queue_again_and_else_it_ends(
    folder: Path, sent: signal.Signals | None
) -> None:
    if sent is None:
        (folder / "over").touch()
    code, calls = run(folder, sent)
    assert code == (143 if sent else 0), "the driver ended in order, and its code is the job's"
    assert ("scontrol requeue 7" in calls) == (sent == signal.SIGUSR1)
    assert "#SBATCH --signal=B:USR1@120\n" in SCRIPT.read_text() and "#SBATCH --requeue\n" in SCRIPT.read_text()
    assert not list((folder / ".slurm").iterdir()), "the token is gone"


def test_the_same_words_go_on_and_ray_has_all_cores_of_each_node(folder: Path) -> None:
    (folder / "over").touch()
    _, calls = run(folder, None, RAYMC_STORAGE="s3://bucket/raymc")
    words = next(line for line in calls if line.startswith("raymc "))
    assert words == "raymc tune spaces/mine.yaml --trials 9 --address n1:20007 --name mine-7 --resume=auto"
    head, others = sorted((line for line in calls if line.startswith("srun ")), key=lambda line: "--head" not in line)
    for line in (head, others):
        assert "--cpus-per-task 64 --cpu-bind none" in line and "until ray start" in line
    assert "--nodelist n1 " in head and "--head --port 20007 --dashboard-host 127.0.0.1" in head
    assert "--exclude n1 " in others and "--nodes 1 --ntasks 1" in others and "--address n1:20007" in others
    assert not (folder / "s3:").exists()
