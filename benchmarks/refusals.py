"""How long a refusal takes: wrong commands, each the median of several runs, in wall and CPU seconds.

    python -m benchmarks.refusals --out DIR              # refusals.json and refusals.md, five rounds

Wall seconds count on a quiet machine only; its load stands in the files. Each command is started anew in a folder of
its own, round by round, after one round that is not counted and fills the caches of files.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.machine import facts

AIM = 2.0  # wall seconds
FILES = {
    "bad_cell.csv": "a,b\n" + "".join(f"{i},{'?' if i == 5 else i % 7}\n" for i in range(60)),
    "sample.csv": "5.1,3.5,x\n" + "".join(f"{i},{i % 7},{'xy'[i % 2]}\n" for i in range(60)),
    "broken.yaml": "method: [\n",
    "bound.yaml": "method: mlc\ndataset: digits\nspace:\n  heads.eta: {low: 2, high: 1}\n",
    "key.yaml": "method: mlc\ndataset: digits\nfixed: {heads.etta: 1}\n",
    "cell.yaml": "method: gcml\ndataset: {path: bad_cell.csv}\n",
}
COMMANDS = (
    "tune broken.yaml",
    "tune bound.yaml",
    "tune nope",
    "tune nmce_digits --trials 0",
    "tune nmce_digits --resume",
    "train key.yaml",
    "train cell.yaml",
    "train bad_cell.csv",
    "train nmce_digits heads.epochs=-1",
    "train nmce_digits --tracking-uri sqlite:////nonexistent/dir/x.db",
    "stability mlc_digits --vs hdbscn",
    "stability mlc_digits --seeds 0",
    "cluster missing.csv",
    "cluster bad_cell.csv",
    "cluster sample.csv --label species",
    "cluster bad_cell.csv --methods kmean",
    "check nope.yaml",
    "check bound.yaml",
    "report nope",
    "studies show nope",
    "predict nope bad_cell.csv",
    "embed bad_cell.csv --encoder nope",
    "data get nope",
    "checkpoint nope",
)


class Run(NamedTuple):
    """Seconds of one start of a command, and what it said on standard error."""

    wall: float
    cpu: float
    code: int
    message: str


def run(command: str, folder: Path) -> Run:
    """Start `python -m raymc.COMMAND` in the folder, and wait for it."""
    name, *words = shlex.split(command)
    begun = time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", f"raymc.{name}", *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=said
        )
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        return Run(wall, used.ru_utime + used.ru_stime, process.returncode, said.read().decode().strip())


def measured(rounds: int) -> list[dict[str, object]]:
    """A row for each command."""
    runs: dict[str, list[Run]] = {command: [] for command in COMMANDS}
    with tempfile.TemporaryDirectory(prefix="raymc-") as place:
        for name, text in FILES.items():
            Path(place, name).write_text(text)
        for _ in range(rounds + 1):
            for command, found in runs.items():
                found.append(run(command, Path(place)))
    return [_row(command, found) for command, found in runs.items()]


def _row(command: str, runs: list[Run]) -> dict[str, object]:
    counted = runs[1:]
    return {
        "command": command,
        "wall": round(statistics.median(one.wall for one in counted), 2),
        "cpu": round(statistics.median(one.cpu for one in counted), 2),
        "one_line": all(one.code == 2 and one.message.count("\n") == 0 for one in runs),
        "message": runs[-1].message,
    }


def table(rows: list[dict[str, object]]) -> str:
    """The rows in Markdown, the slowest first."""
    lines = ["| command | wall s | CPU s | exit 2, one line |", "|---|---:|---:|---|"]
    for row in sorted(rows, key=lambda row: -float(str(row["wall"]))):
        lines.append(f"| `{row['command']}` | {row['wall']} | {row['cpu']} | {'yes' if row['one_line'] else 'NO'} |")
    return "\n".join(lines)


def main() -> int:
    """Measure, write and print; 1 where a command was not refused in one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/refusals"))
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    machine = facts("cpu", int(os.environ.get("OMP_NUM_THREADS", "0")))
    rows = measured(args.rounds)
    args.out.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine, "aim_wall": AIM, "rounds": args.rounds, "rows": rows}
    (args.out / "refusals.json").write_text(json.dumps(content, indent=1))
    (args.out / "refusals.md").write_text(f"{machine}\n\n{table(rows)}\n")
    print(table(rows))
    return 0 if all(row["one_line"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
