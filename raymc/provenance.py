"""Where figures come from: versions, revision, hardware, command line."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import raymc

PACKAGES = ("torch", "torchvision", "ray", "optuna", "mlflow", "numpy", "scipy", "scikit-learn")


def versions() -> dict[str, str | None]:
    """Versions of Python, raymc and the packages that numbers depend on."""
    return {"python": platform.python_version(), "raymc": raymc.__version__} | dict(_installed())


@functools.cache
def _installed() -> tuple[tuple[str, str | None], ...]:
    """Read once: reading takes as long as a small training."""

    def version(name: str) -> str | None:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    return tuple((name, version(name)) for name in PACKAGES)


def record() -> dict[str, Any]:
    """When and with what a result is being made: date in UTC, hardware, versions, revision."""
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"date": date, "hardware": hardware(), "versions": versions(), "git": _loaded_revision()}


def revision() -> str | None:
    """The git revision of the source, with `-dirty` where files differ from it; None outside a repository."""
    root = Path(raymc.__file__).parent
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("-dirty" if _git(root, "status", "--porcelain", "--untracked-files=no", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def hardware() -> dict[str, Any]:
    """This machine: CPU, cores that this process may use, memory, GPUs."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(_memory() / 2**30, 1),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def machine(device: torch.device) -> str:
    """The type of the machine by what computes on it: the name of its GPU, else that of its CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu()


@functools.cache
def _loaded_revision() -> str | None:
    """The revision when this process first asked, which is that of the code it runs; git takes its time."""
    return revision()


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0
