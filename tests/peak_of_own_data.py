"""`python peak_of_own_data.py SMALL LARGE [LABEL]`: MiB at the peak of reading LARGE, once SMALL is read."""

from __future__ import annotations

import sys
from pathlib import Path

from raymc.config import OwnData
from raymc.datasets.own import read_own


def memory(name: str) -> float:
    """`VmRSS` or its peak `VmHWM` of this process, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def main(small: str, large: str, label: str | None = None) -> None:
    read_own(OwnData(name="small", path=small, label=label))  # imports and threads
    before = memory("VmRSS")
    read_own(OwnData(name="large", path=large, label=label))
    print(memory("VmHWM") - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
