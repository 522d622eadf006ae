"""What ships: search spaces and tables are package data, and their names resolve from an installed wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SPACES = sorted(path.name for path in (ROOT / "search_spaces").glob("*.yaml"))
TABLES = sorted(path.name for path in (ROOT / "tables").glob("*.yaml"))


@pytest.mark.slow
def test_wheel_holds_the_package_and_every_search_space_and_table(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for folder, files in (("search_spaces", SPACES), ("tables", TABLES)):
        assert sorted(Path(name).name for name in names if name.startswith(f"raymc/{folder}/")) == files != []
    assert "raymc/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"raymc"}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "raymc").rglob("*.py")}
    assert sources <= set(names)


@pytest.mark.slow
def test_names_resolve_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """In a working folder of the user's own, with the wheel in place of the repository."""
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import raymc, raymc.stability.paper_tables as tables, raymc.space.space as space\n"
        f"assert raymc.__file__.startswith({str(site)!r}), raymc.__file__\n"
        "for name in space.space_names(): print(space.load_space(name) and name)\n"
        "for name in tables.table_names(): print(tables.load_table(name) and name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [name.removesuffix(".yaml") for name in (*SPACES, *TABLES)]
