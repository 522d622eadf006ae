"""A machine that is odd: where temporary files go, who the user is, what lies in the working folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from raymc.errors import StorageError
from raymc.execution import session_folder as place
from raymc.execution.driver import quiet_environment

ROOT = Path(__file__).parents[1]
SHADOWS = ("torch", "numpy", "optuna", "random", "json", "re", "signal", "argparse")
ON_RAY = """
import os
import raymc
from raymc.execution.cluster import ray_session
from raymc.execution.driver import quiet_environment

def places():
    import random, torch
    from raymc.nets.user_nets import find
    return torch.__file__, random.__file__, find("mynet:make")(3)

quiet_environment()
with ray_session(None, dashboard=False):
    import ray
    session = ray._private.worker.global_worker.node.get_session_dir_path()
    print(os.path.realpath(session), *ray.get(ray.remote(places).remote()), sep="\\n")
print(os.path.lexists(session))
"""


@pytest.fixture
def shadows(tmp_path: Path) -> Path:
    """A working folder whose files are named as packages are."""
    folder = tmp_path / "working"
    folder.mkdir()
    for name in SHADOWS:
        (folder / f"{name}.py").write_text("raise ImportError('a file of the user')\n")
    (folder / "mynet.py").write_text("def make(shape):\n    return 'mine'\n")
    return folder


@pytest.mark.slow
def test_ray_starts_under_a_long_tmpdir_and_beside_a_file_named_torch(tmp_path: Path, shadows: Path) -> None:
    long = tmp_path / ("of_a_batch_job_" * 6)
    long.mkdir()
    script = tmp_path / "raymc"  # as the console script, whose workers get the working folder from Ray
    script.write_text(ON_RAY)
    environment = os.environ | {"TMPDIR": str(long), "PYTHONPATH": f":{ROOT}"}
    environment.pop("RAY_TMPDIR", None)
    words = [sys.executable, str(script)]
    done = subprocess.run(words, cwd=shadows, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    session, torch, random, net, left = done.stdout.splitlines()[-5:]
    assert Path(session).is_relative_to(long)
    assert (net, left) == ("mine", "False")
    assert all(not Path(file).is_relative_to(shadows) for file in (torch, random))


@pytest.mark.parametrize("words", [["-m", "raymc.tune"], ["-m", "raymc.check"], ["-m", "raymc"]])
@pytest.mark.parametrize("path", [str(ROOT), f":{ROOT}"])
def test_a_command_takes_no_file_of_the_working_folder_for_a_package(
    words: list[str], path: str, shadows: Path
) -> None:
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, *words, "--help"], cwd=shadows, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_workers_search_no_empty_part_of_pythonpath(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "/own", str(tmp_path)]))
    quiet_environment()
    assert os.environ["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "/own"]


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_ray_is_where_its_variables_say(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing folder comes to be, a long one is reached by a short path, and one that takes no file is named."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        for given in (Path(short), tmp_path / ("n" * 90)):
            monkeypatch.setenv(name, str(given))
            with place.session_folder() as folder:
                assert len(folder + place.LONGEST_NAME) <= place.SOCKET_BYTES
                assert Path(folder).parent.resolve() == given and given.is_dir()
            assert not Path(folder).parent.is_symlink()
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv(name, str(file))
    with pytest.raises(StorageError, match=f"{name}: {file} takes no temporary files"), place.session_folder():
        pass
    monkeypatch.setenv(name, str(tmp_path / ("n" * 90)))
    monkeypatch.setattr(place, "SYSTEM", file)
    with pytest.raises(StorageError, match=f"{name}: .*n is too long for Ray's sockets"), place.session_folder():
        pass


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "lost"),
        (
            "Failure # 1\nTrace:\n  x\nOSError: a: gone\n\nAn unexpected internal error.",
            "OSError: a: gone",
        ),
        ("Failure # 1\nThe actor died unexpectedly.", "The actor died unexpectedly."),
        (
            "Failure # 1\n2 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 1)"
            " was 22.05GB used / 23.54GB limit (0.93)\nOOM kill reason: Memory\nRefer to the documentation on how to",
            "the memory of its machine is full (22.05GB used / 23.54GB), and Ray ended it",
        ),
    ],
)
def test_why_a_process_failed_is_said_in_one_line(text: str, told: str) -> None:
    from raymc.execution.failures import reason_of

    assert reason_of(text) == told


def test_without_shared_memory_ray_uses_its_session_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "SHARED_MEMORY", tmp_path)
    assert place.plasma_folder("s") is None
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert place.plasma_folder("s") == "s"
    monkeypatch.setattr(place, "SHARED_MEMORY", tmp_path / "none")  # macOS
    assert place.plasma_folder("s") is None
