"""What all tests share: the environment, the datasets' folder, one line on what the run ran with."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Before torch is imported: few cores are the usual case, and one thread gives the same sums everywhere.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# A developer's own store is no place for a test's results.
for name in ("RAYMC_STORAGE", "RAYMC_CHECKPOINTS", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "RAY_ADDRESS"):
    os.environ.pop(name, None)

OPTIONAL = ("ray", "optuna", "mlflow")
ABSENT = [name for name in OPTIONAL if importlib.util.find_spec(name) is None]
# Training needs none of them, the search needs all: without one, its tests are not even imported. Such an environment
# shows that training and reports do without, on other versions; what computes neither of them is left out there too:
# benchmarks (those of a GPU among them), cluster files, browsers, the wheel, and which room imports which.
NEITHER = [
    "test_benchmark_*.py", "test_cluster_*.py", "test_gpu_*.py", "test_layers.py", "test_packaging.py",
    "test_report*_browser.py", "test_scaling_model.py",
]  # fmt: skip
SEARCH = ["test_search_*.py", "*/test_search_*.py", "test_stability*.py", "test_tracking_projection.py"]
collect_ignore_glob = [*SEARCH, *NEITHER] if ABSENT else []


def pytest_configure(config: pytest.Config) -> None:
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`-m slow` imports the files with slow tests alone: each process would take twice as long for all of them."""
    if config.option.markexpr != "slow" or collection_path.suffix != ".py":
        return None
    return None if "slow" in collection_path.read_text() else True


def pytest_collection_finish() -> None:
    """What is imported by now is never garbage; the `gc.collect()` at a training's end need not look through it."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # else torch's compiler calls leaks what it finds at the interpreter's end
    if not ABSENT:
        from tests import shared_ray

        shared_ray.end()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line that says what the figures above were obtained with."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    terminalreporter.write_line(
        f"Python {platform.python_version()}, torch {torch.__version__} on {device}, "
        f"data: {os.environ.get('RAYMC_DATA', 'RAYMC_DATA is not set')}"
        + (f", without {', '.join(ABSENT)}" if ABSENT else "")
    )


@pytest.fixture(autouse=True)
def few_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """k-means beside every study and run has 2 starts here: few tests are on what it finds."""
    monkeypatch.setattr("raymc.training.baseline.STARTS", 2)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The datasets' folder, RAYMC_DATA; a test that wants it is skipped where there is none."""
    folder = os.environ.get("RAYMC_DATA")
    if not folder:
        pytest.skip("RAYMC_DATA is not set: no datasets")
    if not Path(folder).is_dir():
        pytest.skip(f"{folder} is missing (RAYMC_DATA)")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def need_data(data_root: Path) -> Callable[[str], Path]:
    """`need_data("coil-20-proc")` is that path; where it is missing the test is skipped, naming it."""

    def need(relative: str) -> Path:
        place = data_root / relative
        if not place.exists():
            pytest.skip(f"{place} is missing")
        return place

    return need


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    uv, out = pytest.importorskip("uv").find_uv_bin(), tmp_path_factory.mktemp("dist")
    root = Path(__file__).parents[1]
    subprocess.run([uv, "build", "--quiet", "--wheel", "--out-dir", str(out), str(root)], check=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment into which the wheel is installed, beside the packages of this one."""
    uv, place = pytest.importorskip("uv").find_uv_bin(), tmp_path_factory.mktemp("user") / "env"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(place)], check=True)
    python = place / "bin" / "python"
    subprocess.run([uv, "pip", "install", "-q", "--offline", "--no-deps", "--python", python, wheel], check=True)
    site = next(place.glob("lib/python*/site-packages"))
    (site / "beside.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")  # searched after the wheel
    return python.parent


@pytest.fixture
def ray_here() -> None:
    """A Ray on this machine that this process has joined and shares among its tests: see `tests.shared_ray`."""
    pytest.importorskip("ray")
    from tests import shared_ray

    shared_ray.start()


Command = Callable[..., dict[str, Any]]


@pytest.fixture
def command(ray_here: None, capsys: pytest.CaptureFixture[str]) -> Command:
    """`command("tune", *words)` runs that command here, on the shared Ray: the JSON that it ends with.

    Beside its keys are `told`, what went to standard error, and `shown`, to standard output. It trains one after the
    other, since each process more has to import torch.
    """

    def run(name: str, *words: str) -> dict[str, Any]:
        from raymc.cli import execute

        if name in ("tune", "stability", "cluster") and "--concurrent" not in words:
            words = (*words, "--concurrent", "1")

        door = importlib.import_module(f"raymc.commands.{name}")
        capsys.readouterr()
        code = execute(door.parser(), door.run, [*words, "--json"])
        out, err = capsys.readouterr()
        assert code == 0, err
        return json.loads(out.splitlines()[-1]) | {"shown": out, "told": err}

    return run


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """A folder with a fabricated MNIST in torchvision's layout."""
    from tests.fabricated_data import write_mnist

    return write_mnist(tmp_path)


@pytest.fixture
def coil(tmp_path: Path) -> Path:
    """A folder with fabricated COIL images."""
    from tests.fabricated_data import write_coil

    return write_coil(tmp_path)


@pytest.fixture
def compact(tmp_path: Path) -> Path:
    """A folder with a fabricated CIFAR in the compact layout."""
    from tests.fabricated_data import write_compact

    return write_compact(tmp_path)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder with a fabricated Tiny-ImageNet."""
    from tests.fabricated_data import write_tiny

    return write_tiny(tmp_path)
