"""Rooms import from rooms below, each engine has one room, no file is in a circle, and training needs no engine."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "raymc"

FLOORS = (
    tuple("atomic bare_keys config errors former_keys masking program provenance pulse rng validation values".split()),
    ("distributed",),
    ("ops",),
    ("clusterers",),
    ("datasets", "encoders", "metrics", "nets"),
    ("methods",),
    ("storage",),
    ("training",),
    ("space",),
    ("study",),
    ("tracking",),
    ("execution",),
    ("stability",),
    ("reporting",),
    ("cli",),
    ("estimators",),
    ("commands",),
    (*"__main__ cluster tune train predict report check data embed checkpoint studies".split(), "stability.__main__"),
)
"""The rooms, and the files beside them, from the ground up. None uses another on its floor, but on the ground."""

FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
GROUND = FLOORS[0]
ENGINES = {"ray": "execution", "optuna": "study", "mlflow": "tracking"}
COLLECTIVES = ("torch.distributed", "torch.nn.parallel", "torch.nn.SyncBatchNorm")
TYPES = {"torch.distributed.ProcessGroup"}  # what formulas are given, and hand on


def module_of(path: Path) -> str:
    """`raymc.study.folder` of `raymc/study/folder.py`; a package's own name of its `__init__.py`."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def place(module: str) -> str | None:
    """The room of a module, or its own name where it stands beside the rooms; None of the package itself."""
    name = module.removeprefix("raymc").removeprefix(".")
    return name if name in FLOOR else name.split(".")[0] or None


def imported(module: str, path: Path) -> Iterator[str]:
    """Modules and names that a file imports anywhere: in functions, for types, and by `importlib` too."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            head = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*head, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func).split(".")[-1]
            if called in ("import_module", "__import__"):
                yield loaded(node, path)


def loaded(call: ast.Call, path: Path) -> str:
    """What a call of `importlib` loads, as far as its text begins; one that could load anything is refused."""
    name = call.args[0]
    first = name.values[0] if isinstance(name, ast.JoinedStr) else name
    assert isinstance(first, ast.Constant) and isinstance(first.value, str), f"{path}: {ast.unparse(call)}"
    return first.value.rstrip(".")


def uses() -> Iterator[tuple[str, str]]:
    """Every import in the package: who, and what. Names of a module count as the module."""
    for module, path in MODULES.items():
        for name in imported(module, path):
            known = name if name in MODULES else name.rpartition(".")[0]
            yield module, known if known in MODULES else name


def test_rooms_use_only_what_lies_below() -> None:
    for module, used in uses():
        here, there = place(module), place(used)
        if not used.startswith("raymc") or here is None or there is None or here == there:
            continue
        assert {here, there} <= set(FLOOR), f"{module} or {used} is in no room"
        below = FLOOR[there] < FLOOR[here] or {here, there} <= set(GROUND)
        assert below, f"{module} imports {used}"


def test_each_engine_has_one_room() -> None:
    for module, used in uses():
        room = ENGINES.get(used.split(".")[0])
        assert room in (None, place(module)), f"{module} imports {used}, which only {room} may"


def test_one_file_has_the_collectives() -> None:
    for module, used in uses():
        banned = used.startswith(COLLECTIVES) and used not in TYPES
        assert not banned or module == "raymc.distributed", f"{module} imports {used}"


def test_no_circles() -> None:
    """No file imports another that, over whatever others, imports it."""
    arrows: dict[str, set[str]] = {module: set() for module in MODULES}
    for module, used in uses():
        if used in MODULES and used != module:
            arrows[module].add(used)
    while free := {m for m in arrows if not arrows[m]} | set(arrows).difference(*arrows.values()):
        arrows = {module: below - free for module, below in arrows.items() if module not in free}
    assert not arrows, f"files in circles, or between two: {arrows}"


UNKNOWN = {
    *("sitting", "unit", "body", "arm", "steadiness", "steady", "telling", "judge", "mirrored", "tracked", "behind"),
    *("look", "told", "surely", "kept", "made", "nothing", "slight", "company"),
}
"""Words that only their authors know; a plural counts as its word."""

FIELD = {
    "unit": ("clusterers", "directions: rows or points of length one"),
    "unit_points": ("clusterers", "points of length one"),
    "unit_rows": ("", "rows of length one"),
    "UnitLinear": ("nets", "a linear layer whose weights are unit vectors"),
    "arm": ("datasets", "an arm of a spiral"),
    "num_batches_tracked": ("nets", "torch's buffer of BatchNorm"),
}
"""Names that have such a word because the field calls the thing so, each with its room (empty: all) and the reason."""


def words(name: str) -> set[str]:
    """The parts of a name between underscores and before capitals, and without a plural's s, in lower case."""
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_")
    return {word for part in parts for word in (part, part.removesuffix("s"))}


def defined(path: Path) -> Iterator[str]:
    """What a file calls itself and what it gives a name: functions, classes, arguments, variables, imports."""
    yield from path.relative_to(PACKAGE).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname


def test_names_are_words_that_others_know() -> None:
    odd = {
        f"{module}: {name}"
        for module, path in MODULES.items()
        for name in defined(path)
        if words(name) & UNKNOWN and not (name in FIELD and FIELD[name][0] in ("", place(module)))
    }
    assert not odd, "\n".join(sorted(odd))


BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"ray", "optuna", "mlflow"}:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Blocker())
sys.argv = ["raymc", "train", "nmce_digits", "--smoke", "--json"]
from raymc.__main__ import main
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
