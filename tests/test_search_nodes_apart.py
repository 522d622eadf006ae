"""Machines as far apart as one computer has them: `ray start` in network namespaces, with folders of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests import shared_ray
from tests.chaos.machines import PATIENCE
from tests.chaos.node_kills import SMALL

pytestmark = pytest.mark.slow

HEAD, OTHER = "10.77.61.1", "10.77.61.2"
SPACES = {HEAD: f"raymc-a-{os.getpid()}", OTHER: f"raymc-b-{os.getpid()}"}
SPACE = {
    "method": "nmce",
    "dataset": "digits",
    "fixed": SMALL | {"pretrain.epochs": 2},
    "budget": {"trials": 1, "seeds": 1, "confirm": None},
    "resources": {"workers": 2},
}


def shell(words: str) -> None:
    subprocess.run(words.split(), check=True, capture_output=True)


def within(address: str, words: list[str], work: Path, hidden: Path | None = None) -> list[str]:
    """The command in the namespace of `address`; `hidden` is an empty folder of its own there."""
    cover = f"mount -t tmpfs none {hidden} && " if hidden else ""
    return ["ip", "netns", "exec", SPACES[address], "sh", "-c", f'{cover}cd {work} && exec "$@"', "sh", *words]


@pytest.fixture(scope="module")
def network() -> Iterator[None]:
    """Two namespaces joined by one cable, whose ends are both called eth0."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("network namespaces need root and the command ip")
    a, b = SPACES.values()
    try:
        for name in (a, b):
            shell(f"ip netns add {name}")
        shell(f"ip link add eth0 netns {a} type veth peer name eth0 netns {b}")
        for address, name in SPACES.items():
            shell(f"ip -n {name} addr add {address}/24 dev eth0")
            shell(f"ip -n {name} link set eth0 up")
            shell(f"ip -n {name} link set lo up")
    except subprocess.CalledProcessError as error:
        for name in (a, b):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        pytest.skip(f"network namespaces are not permitted: {error.stderr.decode().strip()}")
    yield
    for name in (a, b):
        found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
        subprocess.run(["kill", "-9", *found], capture_output=True)
        shell(f"ip netns del {name}")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("apart")
    (work / "small.yaml").write_text(yaml.safe_dump(SPACE))
    (work / "shared").mkdir()
    (work / "hidden").mkdir()
    return work


@pytest.fixture(scope="module")
def cluster(network: None, work: Path) -> str:
    """Ray started by hand on both machines, with one core each."""
    shared_ray.end()  # its environment lets no Ray listen beyond this machine
    common = ["--num-cpus", "1", "--object-store-memory", str(10**8), "--disable-usage-stats", "--block"]
    ray = [str(Path(sys.executable).parent / "ray"), "start", *common, "--node-ip-address"]
    start(within(HEAD, [*ray, HEAD, "--head", "--port", "6379", "--dashboard-host", "127.0.0.1"], work), work)
    status = [str(Path(sys.executable).parent / "ray"), "health-check", "--address", f"{HEAD}:6379"]
    wait_for(within(HEAD, status, work))
    start(within(OTHER, [*ray, OTHER, "--address", f"{HEAD}:6379"], work, work / "hidden"), work)
    two = f"import ray, sys; ray.init('{HEAD}:6379', log_to_driver=False); sys.exit(len(ray.nodes()) != 2)"
    wait_for(within(HEAD, [sys.executable, "-c", two], work))
    return f"{HEAD}:6379"


def environment() -> dict[str, str]:
    names = {"RAY_AUTH_MODE": "disabled", "GLOO_SOCKET_IFNAME": "eth0", "RAY_CHDIR_TO_TRIAL_DIR": "0"}
    return os.environ | names | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}


def start(words: list[str], work: Path) -> None:
    with (work / "ray.log").open("a") as log:
        subprocess.Popen(words, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def wait_for(words: list[str]) -> None:
    end = time.monotonic() + PATIENCE
    while subprocess.run(words, env=environment(), capture_output=True).returncode:
        assert time.monotonic() < end, "Ray did not start"
        time.sleep(1)


def tune(work: Path, cluster: str, storage: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "raymc.tune", "small.yaml", "--storage", storage, "--address", cluster, "--json"]
    return subprocess.run(
        within(HEAD, words, work), env=environment(), capture_output=True, text=True, timeout=PATIENCE
    )


def test_a_training_over_two_machines_of_their_own_addresses(work: Path, cluster: str) -> None:
    done = tune(work, cluster, "shared")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["trials"]["finished"] == 1


def test_a_storage_that_a_machine_does_not_see_is_refused_with_its_address(work: Path, cluster: str) -> None:
    done = tune(work, cluster, "hidden")
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.endswith(f"is not shared: {OTHER} does not see what is written here") and str(work / "hidden") in last
