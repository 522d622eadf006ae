"""A real search while the clock jumps by hours, back and forth: it ends as one that nobody disturbed.

    python -m tests.chaos.clock_jumps --out reports/DATE-survival

`time.time` of the command and of all Python processes of its Ray shows another time; the clock that only measures is
left alone, as a jump does. (libfaketime, which would show it to `datetime` and to Ray's own programs too, breaks the
sleeps of Ray's start.)
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raymc.atomic import write_bytes
from tests.chaos.command import PATIENCE, ROOT, short_folder, tell
from tests.chaos.driver_kills import Search
from tests.mlflow_database import query

JUMPS = (6, -6, -11, 4, 0)  # hours from the true time, one after the other
TRIALS, LONGEST = 3, 4.0
CLOCK = """
import time
from pathlib import Path

real, file = time.time, Path(__file__).with_name("hours")

def shown():
    return real() + 3600 * float(file.read_text() or 0)

time.time, time.time_ns = shown, lambda: int(1e9 * shown())
"""


def jumping(search: Search, dice: random.Random) -> list[float]:
    """Run a search to its end under a clock that jumps while it trains; when it did, in seconds from its start."""
    said, clock = [], search.work / "clock"
    clock.mkdir()
    (clock / "sitecustomize.py").write_text(CLOCK)  # which every Python process imports first
    (clock / "hours").write_text("0")
    command = search.command(PYTHONPATH=f"{clock}{os.pathsep}{ROOT}")
    for hours in JUMPS:
        before = search.epochs()
        while search.epochs() == before and not command.ended:
            assert time.monotonic() - command.begun < PATIENCE, command.said
            time.sleep(0.1)
        time.sleep(dice.uniform(0, LONGEST))
        write_bytes(clock / "hours", str(hours).encode())
        said.append(round(time.monotonic() - command.begun, 1))
    assert command.wait() == 0, command.said
    assert command.result()["trials"] == {"finished": TRIALS, "pruned": 0, "failed": 0}
    return said


def durations(search: Search) -> Iterator[float]:
    """All seconds that the study has written down."""
    yield from (sitting["seconds"] for sitting in json.loads((search.study / "study.json").read_text())["sittings"])
    for path in search.study.glob("*/*/record.json"):
        record = json.loads(path.read_text())
        yield from (record["seconds"], *(row["seconds"] for row in record["per_seed"]))


def run(place: Path, seed: int) -> dict[str, Any]:
    """What is to be reported; AssertionError where something is wrong."""
    with short_folder() as temporary:
        search, whole = (Search(place, name, TRIALS, temporary) for name in ("jumping", "whole"))
        begun = time.monotonic()
        moments = jumping(search, random.Random(seed))
        took = time.monotonic() - begun
        undisturbed = whole.command()
        assert undisturbed.wait() == 0, undisturbed.said
    assert search.table() == whole.table(), "the table differs from the undisturbed search's"
    assert search.points() == whole.points(), "MLflow's metrics differ"
    assert all(0 <= seconds <= took for seconds in durations(search)), list(durations(search))
    ends = query(search.database, "select name, end_time - start_time from runs")
    assert ends and all(length is not None and length >= 0 for _, length in ends), ends
    hours = max(length for _, length in ends) / 3.6e6
    found = {"trials": TRIALS, "seed": seed, "jumps_h": JUMPS, "moments_s": moments}
    return found | {"seconds": round(took, 1), "longest_run_h": hours}


def main() -> None:
    tell("clock_jumps", __doc__, {"seed": 0}, run)


if __name__ == "__main__":
    main()
