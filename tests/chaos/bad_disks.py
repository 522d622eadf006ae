"""Real searches on a disk that fills up, goes read-only or takes a permission away, at the start and in the middle.

    python -m tests.chaos.bad_disks --out reports/DATE-survival

All that the command writes is on that disk: the study, the stages, MLflow's database and the report. Each search must
end with exit code 2 and one line, and with --resume, once the disk is mended, like one that nobody disturbed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import facts
from raymc.provenance import versions
from tests.chaos.command import PATIENCE, Command, short_folder
from tests.chaos.disks import Disk, small_disk
from tests.chaos.driver_kills import Search, check_kept

CAUSES = {
    "full": ("No space left on device", "disk is full"),
    "read_only": ("Read-only file system", "readonly database", "disk I/O error", "unable to open database file"),
    "permission": ("Permission denied", "readonly database", "unable to open database file", "cannot be written"),
}
MEGABYTES, TRIALS, DELAY = 96, 3, 3.0
UNPRIVILEGED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
"""Before a command of root's: permissions bind it as they bind everybody else."""


def strike(kind: str, disk: Disk) -> None:
    if kind == "permission":
        subprocess.run(["chmod", "-R", "a-w", str(disk.place)], check=True)
    else:
        disk.fault(kind)


def mend(kind: str, disk: Disk) -> None:
    if kind == "permission":
        subprocess.run(["chmod", "-R", "u+w", str(disk.place)], check=True)
    else:
        disk.mend(kind)


def check_told(kind: str, command: Command, code: int, place: Path) -> str:
    """The one line that the command ends with."""
    said = command.said
    line = said.splitlines()[-1] if said else ""
    assert code == 2 and "Traceback" not in said, f"exit code {code}: {said}"
    assert line.startswith("raymc: ") and str(place) in line, said
    assert any(cause in line for cause in CAUSES[kind]), line
    return line


def at_the_start(kind: str, disk: Disk, search: Search, before: tuple[str, ...]) -> dict[str, Any]:
    strike(kind, disk)
    command = search.command(before, log=disk.place.parent)
    line = check_told(kind, command, command.wait(), disk.place)
    mend(kind, disk)
    assert not search.study.exists()
    return {"fault": kind, "moment": "start", "seconds_to_the_end": _seconds(command), "line": line}


def in_the_middle(kind: str, disk: Disk, search: Search, before: tuple[str, ...], delay: float) -> dict[str, Any]:
    command = search.command(before, log=disk.place.parent)
    while not search.finished():
        assert not command.ended and time.monotonic() - command.begun < PATIENCE, command.said
        time.sleep(0.1)
    time.sleep(delay)
    strike(kind, disk)
    struck = time.monotonic()
    code = command.wait()
    took = round(time.monotonic() - struck, 1)
    line = check_told(kind, command, code, disk.place)
    assert "--resume" in line, line
    mend(kind, disk)
    kept = search.finished()
    again = search.command(before, log=disk.place.parent)
    assert again.wait() == 0, again.said
    check_kept(kept, search.finished())
    assert again.result()["trials"] == {"finished": TRIALS, "pruned": 0, "failed": 0}
    assert search.optuna_trials() == [(number, "COMPLETE") for number in range(TRIALS)]
    row = {"fault": kind, "moment": "middle", "delay": round(delay, 2), "seconds_to_the_end": took}
    return row | {"finished_seeds": len(kept), "line": line}


def _seconds(command: Command) -> float:
    return round(time.monotonic() - command.begun, 1)


def run(place: Path, kinds: tuple[str, ...], seed: int) -> list[dict[str, Any]]:
    """What is to be reported; AssertionError where one is wrong, disks.Refused where disks cannot be mounted here."""
    dice, rows = random.Random(seed), []
    with short_folder() as temporary:
        whole = Search(place, "whole", TRIALS, temporary)
        undisturbed = whole.command()
        assert undisturbed.wait() == 0, undisturbed.said
        for kind in kinds:
            folder = place / kind
            folder.mkdir()
            with small_disk(folder, MEGABYTES) as disk:
                before = UNPRIVILEGED if kind == "permission" else ()
                search = Search(disk.place, "struck", TRIALS, temporary)
                os.sync()  # a user's space file is older than the disk's trouble
                rows.append(at_the_start(kind, disk, search, before))
                rows.append(in_the_middle(kind, disk, search, before, dice.uniform(0, DELAY)))
                assert search.table() == whole.table(), "the table differs from the undisturbed search's"
                if kind != "read_only":  # there, lines that were not on the disk yet are gone as at a power cut
                    assert search.points() == whole.points(), "MLflow's metrics differ"
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=CAUSES, default=list(CAUSES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    machine = facts("cpu", 1)
    with tempfile.TemporaryDirectory() as place:
        rows = run(Path(place), tuple(args.kinds), args.seed)
    for row in rows:
        row["line"] = re.sub(r"--data \S+", "--data …", row["line"].replace(place, "…"))
    args.out.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine, "versions": versions(), "trials": TRIALS, "seed": args.seed, "rows": rows}
    (args.out / "bad_disks.json").write_text(json.dumps(content, indent=1) + "\n")
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
