"""What is to be measured when a GPU is at hand for 15 minutes, in order, each part within a limit of its own.

    python -m benchmarks.gpu_quarter --rehearse --out DIR
    python -m benchmarks.gpu_quarter --parts correctness speed --minutes 5 --out "$OUT" --storage /tmp/scratch

A part runs in a process of its own, which is ended at its limit and when the command is interrupted.
`DIR/summary.json` has the figures of all parts as they become known, with their state (running, done, cut, skipped,
failed). A part that is done is not run again: `--storage` remembers it over commands. DIR has at most eight files.
Neither ray nor mlflow nor optuna is imported. docs/gpu.md has the commands.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import facts
from raymc.atomic import write_json
from raymc.cli import Parser
from raymc.errors import InputError

LIMITS = {"correctness": 60.0, "speed": 150.0, "stage1": 330.0, "heads": 90.0, "gcml": 60.0}
"""Seconds of each part, in the order in which they run."""

SHORT = 60.0
"""Seconds of each part of a rehearsal."""

LINES = 40
"""How many lines of a failed part's errors the summary has."""

Row = dict[str, Any]


def parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    found = Parser(prog="python -m benchmarks.gpu_quarter", description=__doc__, formatter_class=form)
    found.add_argument("--out", type=Path, required=True, help="what comes back from the machine")
    found.add_argument("--rehearse", action="store_true", help="tiny sizes, for a CPU")
    found.add_argument("--data", help="datasets (default: RAYMC_DATA)")
    found.add_argument("--storage", type=Path, help="where the next command goes on (default: OUT-storage)")
    found.add_argument("--parts", nargs="+", choices=LIMITS, default=list(LIMITS))
    found.add_argument("--minutes", type=float, default=10.0, help="of the whole command")
    found.add_argument("--run-part", choices=LIMITS, help=argparse.SUPPRESS)
    found.add_argument("--limit", type=float, default=SHORT, help=argparse.SUPPRESS)
    return found


def read(path: Path) -> Row:
    """What a part has written, `{}` before it wrote anything."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    assert isinstance(found, dict)
    return found


def run_part(name: str, args: argparse.Namespace, limit: float, tell: Callable[[Row], None]) -> Row:
    """Run a part in a process of its own; its state, seconds, limit and figures.

    `tell` is called with them every other second too. However it ends, so does the process.
    """
    file, done = args.storage / f"{name}.json", args.storage / f"{name}.done.json"
    if done.exists():
        return read(done)
    file.unlink(missing_ok=True)
    words = ["--out", str(args.out), "--storage", str(args.storage), "--run-part", name, "--limit", str(limit)]
    words += ["--rehearse"] if args.rehearse else []
    words += ["--data", args.data] if args.data else []
    begun = time.monotonic()

    def row(**state: Any) -> Row:
        return state | {"seconds": time.monotonic() - begun, "limit": limit, "figures": read(file)}

    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        part = subprocess.Popen([sys.executable, "-m", "benchmarks.gpu_quarter", *words], stderr=log)
        try:
            while part.poll() is None and time.monotonic() < begun + limit:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    part.wait(min(2.0, max(0.01, begun + limit - time.monotonic())))
                tell(row(state="running"))
        except BaseException:
            tell(row(state="cut", reason="the command was interrupted"))
            raise
        finally:
            code = part.poll()
            part.kill()
            part.wait()
        log.seek(0)
        lines = log.read().strip().splitlines()[-LINES:]
    if code is None:
        return row(state="cut", reason=f"the limit of {limit:.0f} s was reached")
    if code:
        return row(state="failed", reason=lines[-1] if lines else f"exit code {code}", log=lines)
    if read(file).get("finished") is False:
        return row(state="cut", reason="the same command goes on")
    found = row(state="done")
    write_json(done, found)
    return found


def run(args: argparse.Namespace) -> Row:
    """All parts that are asked for; the content of `summary.json`, which is written as they go."""
    args.storage = args.storage or args.out.with_name(f"{args.out.name}-storage")
    for folder in (args.out, args.storage):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be written: {error.strerror}") from error
    until = time.monotonic() + 60 * args.minutes
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parts: dict[str, Row] = {}
    summary: Row = {"rehearsal": args.rehearse, "machine": facts(device, torch.get_num_threads()), "parts": parts}

    def tell(name: str, row: Row) -> None:
        parts[name] = row
        write_json(args.out / "summary.json", summary)

    for name in args.parts:
        limit = min(SHORT if args.rehearse else LIMITS[name], until - time.monotonic())
        if limit < 5:
            tell(name, {"state": "skipped", "reason": "no time was left", "seconds": 0.0, "limit": max(0.0, limit)})
            continue
        print(f"{name}: at most {limit:.0f} s", flush=True)
        tell(name, run_part(name, args, limit, functools.partial(tell, name)))
    return summary


def interrupt(*_: object) -> None:
    """What SIGTERM does: the same as Ctrl-C."""
    raise KeyboardInterrupt


def table(summary: Row) -> str:
    """A line for each part."""
    rows = summary["parts"].items()
    return "\n".join(
        f"{name:12} {row['state']:8} {row['seconds']:6.1f} of {row['limit']:5.0f} s  {row.get('reason', '')}"
        for name, row in rows
    )


def main() -> None:
    args = parser().parse_args()
    if not args.minutes > 0:
        raise InputError(f"--minutes {args.minutes:g}: more than 0 is needed")
    if args.run_part:
        from benchmarks import quarter_parts

        quarter_parts.PARTS[args.run_part](args, args.storage / f"{args.run_part}.json")
        return
    signal.signal(signal.SIGTERM, interrupt)
    if args.rehearse and shutil.which("nvidia-smi"):
        print("a rehearsal on a machine with a GPU: sizes are tiny")
    if not args.rehearse and not torch.cuda.is_available():
        print("no GPU is here, and the sizes are those for one: --rehearse has tiny ones")
    print(table(run(args)))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
