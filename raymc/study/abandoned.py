"""Folders that a killed process left under a hidden name: of studies half made or half deleted."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from raymc.storage.cleaning import HALF_WRITTEN_SECONDS
from raymc.storage.objects import home
from raymc.study.inventory import LISTS

HIDDEN = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")


def abandoned_folders(storage: str) -> list[tuple[Path, int]]:
    """Each with its bytes; of an object store those of this machine, where studies are put together."""
    found = []
    for place in LISTS:
        for path in sorted((home(storage) / place).glob(".*.tmp")):
            if HIDDEN.fullmatch(path.name) and path.is_dir() and _age(path) > HALF_WRITTEN_SECONDS:
                found.append((path, sum(one.stat().st_size for one in path.rglob("*") if one.is_file())))
    return found


def remove_folders(found: Iterable[tuple[Path, int]]) -> None:
    for path, _ in found:
        shutil.rmtree(path, ignore_errors=True)


def _age(path: Path) -> float:
    """Seconds since anything in it was written."""
    return time.time() - max(one.stat().st_mtime for one in (path, *path.rglob("*")))
