"""What is to be measured when a GPU is at hand for 15 minutes, in order, each part within a limit of its own.

    python -m benchmarks.gpu_quarter --rehearse --out DIR
    python -m benchmarks.gpu_quarter --parts correctness speed --minutes 5 --out "$OUT" --storage /tmp/scratch

A part runs in a process of its own, which is ended at its limit; what it had found until then stays in `DIR/PART.json`.
A part that is done is not run again: `--storage` remembers it over commands. `DIR/summary.json` has all of them with
their state (done, cut, skipped, failed). Neither ray nor mlflow nor optuna is imported. docs/gpu.md has the commands.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import facts
from raymc.atomic import write_json
from raymc.errors import InputError

LIMITS = {"correctness": 60.0, "speed": 150.0, "stage1": 330.0, "heads": 90.0, "gcml": 60.0}
"""Seconds of each part, in the order in which they run."""

SHORT = 60.0
"""Seconds of each part of a rehearsal."""


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--out", type=Path, required=True, help="what comes back from the machine")
    found.add_argument("--rehearse", action="store_true", help="tiny sizes, for a CPU")
    found.add_argument("--data", help="datasets (default: RAYMC_DATA)")
    found.add_argument("--storage", type=Path, help="where the next command goes on (default: OUT/storage)")
    found.add_argument("--parts", nargs="+", choices=LIMITS, default=list(LIMITS))
    found.add_argument("--minutes", type=float, default=10.0, help="of the whole command")
    found.add_argument("--run-part", choices=LIMITS, help=argparse.SUPPRESS)
    found.add_argument("--limit", type=float, default=SHORT, help=argparse.SUPPRESS)
    return found


def read(path: Path) -> dict[str, Any]:
    """What a part has written, `{}` before it wrote anything."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    assert isinstance(found, dict)
    return found


def run_part(name: str, args: argparse.Namespace, limit: float) -> dict[str, Any]:
    """Run a part in a process of its own; its state, seconds, limit and figures."""
    file, done = args.out / f"{name}.json", args.storage / f"{name}.done.json"
    if done.exists():
        return read(done)
    file.unlink(missing_ok=True)
    words = ["--out", str(args.out), "--storage", str(args.storage), "--run-part", name, "--limit", str(limit)]
    words += ["--rehearse"] if args.rehearse else []
    words += ["--data", args.data] if args.data else []
    begun = time.monotonic()
    state: dict[str, Any] = {"state": "done"}
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "benchmarks.gpu_quarter", *words], timeout=limit, stderr=subprocess.PIPE, text=True
        )
        if ended.returncode:
            lines = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
            (args.out / f"{name}.log").write_text(ended.stderr, encoding="utf-8")
            state = {"state": "failed", "reason": lines[-1]}
    except subprocess.TimeoutExpired:
        state = {"state": "cut", "reason": f"the limit of {limit:.0f} s was reached"}
    figures = read(file)
    if state["state"] == "done" and figures.get("finished") is False:
        state = {"state": "cut", "reason": "the same command goes on"}
    state |= {"seconds": time.monotonic() - begun, "limit": limit, "figures": figures}
    if state["state"] == "done":
        write_json(done, state)
    return state


def run(args: argparse.Namespace) -> dict[str, Any]:
    """All parts that are asked for; the content of `summary.json`, which is written after each."""
    args.out.mkdir(parents=True, exist_ok=True)
    args.storage = args.storage or args.out / "storage"
    args.storage.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * args.minutes
    device = "cuda" if torch.cuda.is_available() else "cpu"
    summary: dict[str, Any] = {"rehearsal": args.rehearse, "machine": facts(device, torch.get_num_threads())}
    summary["parts"] = parts = {}
    for name in args.parts:
        limit = min(SHORT if args.rehearse else LIMITS[name], until - time.monotonic())
        if limit < 5:
            parts[name] = {"state": "skipped", "reason": "no time was left", "seconds": 0.0, "limit": max(0.0, limit)}
        else:
            print(f"{name}: at most {limit:.0f} s", flush=True)
            parts[name] = run_part(name, args, limit)
        write_json(args.out / "summary.json", summary)
    return summary


def table(summary: dict[str, Any]) -> str:
    """A line for each part."""
    rows = summary["parts"].items()
    return "\n".join(
        f"{name:12} {row['state']:8} {row['seconds']:6.1f} of {row['limit']:5.0f} s  {row.get('reason', '')}"
        for name, row in rows
    )


def main() -> None:
    args = parser().parse_args()
    if args.run_part:
        from benchmarks import quarter_parts

        quarter_parts.PARTS[args.run_part](args, args.out / f"{args.run_part}.json")
        return
    if args.rehearse and shutil.which("nvidia-smi"):
        print("a rehearsal on a machine with a GPU: sizes are tiny")
    print(table(run(args)))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
