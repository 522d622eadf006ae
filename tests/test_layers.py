"""Dependencies point one way, and training needs neither ray nor optuna nor mlflow."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "raymc"
HEAVY = {"ray", "optuna", "mlflow"}

# What each room may use; what stands beside the rooms in the package is for all.
ROOMS = "search tracking reporting scale training methods ops nets datasets metrics".split()
GROUND = {"ops", "nets", "datasets", "metrics"}
USES = {
    "search": set(ROOMS),
    "tracking": {"tracking"},
    "reporting": {"reporting", "metrics"},
    "scale": {"scale", "training", "methods"} | GROUND,
    "training": {"training", "methods"} | GROUND,
    "methods": {"methods"} | GROUND,
    "nets": {"nets", "ops"},
    "ops": {"ops"},
    "datasets": {"datasets"},
    "metrics": {"metrics", "ops"},
}
# The rooms below training talk to other workers through this one file of it.
COLLECTIVES = "raymc.distributed"
LIGHT = {"training", "methods"} | GROUND
ENTRIES = ("tune", "train", "stability", "report", "check", "data", "checkpoint")


def imported(path: Path) -> Iterator[str]:
    """Dotted names that a file imports anywhere, also inside functions; relative ones made absolute."""
    package = ["raymc", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            head = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*head, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def room(name: str) -> str | None:
    """`search` of `raymc.study.folder`; None for what is no room of raymc's."""
    parts = name.split(".")
    return parts[1] if parts[0] == "raymc" and len(parts) > 1 and parts[1] in ROOMS else None


@pytest.mark.parametrize("name", ROOMS)
def test_rooms_use_only_what_lies_below(name: str) -> None:
    for path in sorted((PACKAGE / name).rglob("*.py")):
        for used in imported(path):
            where = f"{path.relative_to(PACKAGE.parent)} imports {used}"
            assert room(used) is None or room(used) in USES[name] or used.startswith(COLLECTIVES), where
            assert not (name in LIGHT and used.split(".")[0] in HEAVY), where
            assert used.split(".")[:2] not in [["raymc", entry] for entry in ENTRIES], where


def test_what_stands_beside_the_rooms_is_light() -> None:
    """config, errors, cli and the like are used by training too."""
    for path in sorted(PACKAGE.glob("*.py")):
        if path.stem not in ENTRIES:
            for used in imported(path):
                assert used.split(".")[0] not in HEAVY, f"{path.name} imports {used}"


BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"ray", "optuna", "mlflow"}:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Blocker())
sys.argv = ["raymc", "train", "nmce_digits", "--smoke", "--json"]
from raymc.cli import main
sys.exit(main())
"""


def test_training_runs_without_ray_optuna_and_mlflow(tmp_path: Path) -> None:
    path = os.pathsep.join([str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert '"method": "nmce"' in done.stdout.splitlines()[-1]
