"""All at once: sick machines, machines that die, a driver that dies, no MLflow. What comes out is what comes out alone.

    python -m tests.chaos.everything --trials 200 --kills 5 --out reports/DATE-…

Three machines of one core each, in network namespaces: one has no data, one has other data, the third is killed every
20 seconds and joins again. The driver is killed at random moments and resumed by the same words; MLflow answers only
when all is done. The study is compared with that of a search on this machine that nobody disturbed. Needs root.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from raymc.study.events import EVENTS, read_events
from tests.chaos.command import PATIENCE, ROOT, Command, short_folder, tell
from tests.chaos.mlflow_away import compared
from tests.mlflow_server import Server, wait_for

SPACE = """
method: nmce
dataset: {{path: {path}}}
fixed: {{n_clusters: 3, pretrain.epochs: 2, heads.epochs: 2, finetune.epochs: 1}}
space:
  heads.weight_decay: {{low: 1.0e-6, high: 0.1, log: true}}
  heads.learning_rate: {{low: 1.0e-4, high: 0.02, log: true}}
sampler: random
budget: {{trials: 5, seeds: 1, confirm: {{top: 1, seeds: 2}}}}
"""
EVERY = 20.0  # seconds from one death of the third machine to the next
HEAD, NO_DATA, OTHER_DATA, MORTAL = (f"10.77.62.{last}" for last in (1, 2, 3, 4))
NAMES = {address: f"raymc-c{address[-1]}-{os.getpid()}" for address in (HEAD, NO_DATA, OTHER_DATA, MORTAL)}
RAY = str(Path(sys.executable).parent / "ray")


def shell(words: str) -> None:
    subprocess.run(words.split(), check=True, capture_output=True)


@contextmanager
def network() -> Iterator[None]:
    """A namespace for each machine, on one bridge that the head's has."""
    try:
        for name in NAMES.values():
            shell(f"ip netns add {name}")
            shell(f"ip -n {name} link set lo up")
        head = NAMES[HEAD]
        shell(f"ip -n {head} link add eth0 type bridge")
        shell(f"ip -n {head} addr add {HEAD}/24 dev eth0")
        shell(f"ip -n {head} link set eth0 up")
        for address, name in NAMES.items():
            if address != HEAD:
                port = f"port{address[-1]}"
                shell(f"ip link add eth0 netns {name} type veth peer name {port} netns {head}")
                shell(f"ip -n {head} link set {port} master eth0 up")
                shell(f"ip -n {name} addr add {address}/24 dev eth0")
                shell(f"ip -n {name} link set eth0 up")
        yield
    finally:
        for name in NAMES.values():
            end_within(name)
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def end_within(name: str) -> None:
    """SIGKILL to all that runs in a namespace."""
    found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
    subprocess.run(["kill", "-9", *found], capture_output=True)


def within(address: str) -> list[str]:
    return ["ip", "netns", "exec", NAMES[address]]


class Machines:
    """Ray, started by hand on each machine; `data` is a folder that two of them see otherwise."""

    def __init__(self, work: Path, data: Path, other: Path, temporary: Path) -> None:
        self.work, self.temporary = work, temporary
        empty = work / "empty"
        empty.mkdir()
        self._cover = {NO_DATA: f"mount --bind {empty} {data}", OTHER_DATA: f"mount --bind {other} {data}"}
        self.deaths = 0
        self._end = threading.Event()
        self._killer = threading.Thread(target=self._kill_and_start)

    @property
    def address(self) -> str:
        return f"{HEAD}:6379"

    def start(self, address: str) -> None:
        words = [RAY, "start", "--object-store-memory", str(10**8), "--disable-usage-stats", "--block"]
        words += ["--node-ip-address", address, "--temp-dir", str(self.temporary / address[-1])]
        if address == HEAD:
            words += ["--head", "--port", "6379", "--dashboard-host", "127.0.0.1", "--num-cpus", "0"]
        else:
            words = [word for word in words if word not in ("--temp-dir", str(self.temporary / address[-1]))]
            words += ["--address", self.address, "--num-cpus", "1"]
        cover = self._cover.get(address, "true")
        with (self.work / "ray.log").open("a") as log:
            subprocess.Popen(
                # Of two that start at a time one may take the other's socket, and end.
                [*within(address), "sh", "-c", f'{cover} && until "$@"; do sleep 2; done', "sh", *words],
                env=settings(), cwd=self.work, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def begin(self) -> None:
        self.start(HEAD)
        check = [*within(HEAD), RAY, "health-check", "--address", self.address]
        wait_for(
            lambda: not subprocess.run(check, env=settings(), capture_output=True).returncode, PATIENCE, "Ray's head"
        )
        for address in (NO_DATA, OTHER_DATA, MORTAL):
            self.start(address)
        self._killer.start()

    def end(self) -> None:
        self._end.set()
        self._killer.join()
        for name in NAMES.values():
            end_within(name)

    def _kill_and_start(self) -> None:
        while not self._end.wait(EVERY):
            end_within(NAMES[MORTAL])
            self.deaths += 1
            self.start(MORTAL)


def settings() -> dict[str, str]:
    names = {"RAY_AUTH_MODE": "disabled", "RAY_CHDIR_TO_TRIAL_DIR": "0", "GLOO_SOCKET_IFNAME": "eth0"}
    return os.environ | names | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def search(work: Path, name: str, trials: int, temporary: Path, uri: str, address: str | None) -> Command:
    """The same words each time: it begins the study or goes on with it."""
    words = ["small.yaml", "--name", name, "--storage", str(work / name), "--trials", str(trials), "--json"]
    words += ["--resume=auto", "--tracking-uri", uri]
    words += ["--address", address, "--concurrent", "2"] if address else ["--concurrent", "1"]
    there = {"TMPDIR": str(temporary), "RAY_TMPDIR": str(temporary), "RAY_AUTH_MODE": "disabled"}
    return Command(work, words, there, within(HEAD))


def table(study: Path) -> list[Any]:
    """Every trial's parameters, state, scores and seeds."""
    rows = []
    for path in sorted(study.glob("*/*/record.json")):
        record = json.loads(path.read_text())
        if record["kind"] == "stage":  # it has a number of its own each time that it is begun
            continue
        row = {key: record[key] for key in ("trial", "kind", "state", "params", "scores", "metrics")}
        rows.append(row | {"seeds": [{k: s[k] for k in ("seed", "state", "metrics")} for s in record["per_seed"]]})
    return rows


def samples(folder: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    folder.mkdir()
    y = np.arange(300) % 3
    np.savez(folder / "rows.npz", x=rng.normal(size=(300, 8)) + 3 * y[:, None], y=y)


def run(work: Path, trials: int, kills: int, seed: int) -> dict[str, Any]:
    """The disturbed search and the unbroken one, compared. AssertionError where one is wrong."""
    dice = random.Random(seed)
    for name, number in (("data", 0), ("other", 1)):
        samples(work / name, number)
    (work / "small.yaml").write_text(SPACE.format(path=work / "data" / "rows.npz"))
    with short_folder() as temporary, network():
        server = Server(work)
        words, said = [], ""
        whole = search(work, "whole", trials, temporary, f"sqlite:///{work}/whole.db", None)
        assert whole.wait() == 0, whole.said
        cluster = Machines(work, work / "data", work / "other", temporary)
        begun = time.monotonic()
        cluster.begin()
        try:
            for _ in range(kills):
                command = search(work, "hurt", trials, temporary, server.uri, cluster.address)
                end = time.monotonic() + dice.uniform(15, 40)
                while time.monotonic() < end:
                    assert not command.ended, f"a driver ended by itself: {command.said[-3000:]}"
                    time.sleep(0.2)
                words.append(command.said)
                command.end_all()
            last = search(work, "hurt", trials, temporary, server.uri, cluster.address)
            code = last.wait(3600)
            said = last.said
            seconds, deaths = time.monotonic() - begun, cluster.deaths
        finally:
            cluster.end()
        assert code == 0, said[-3000:]
        hurt, calm = work / "hurt" / "studies" / "hurt", work / "whole" / "studies" / "whole"
        assert table(hurt) == table(calm), "the study differs from the unbroken one"
        states = [row["state"] for row in table(hurt)]
        assert "failed" not in states, "a fault of the surroundings was charged to a configuration"
        began = [
            sum(one["event"] == "begin" for one in read_events(path)) for path in hurt.glob(f"*/*/seed-*/{EVENTS}")
        ]
        kept_out = sorted({line for text in (*words, said) for line in text.splitlines() if "no more trials" in line})
        for address in (NO_DATA, OTHER_DATA):
            assert any(address in line for line in kept_out), f"{address} took no trial, or was not kept out"
        with in_head(server, work) as there:
            shipped = search(work, "hurt", trials, temporary, there.uri, None)
            assert shipped.wait() == 0, shipped.said[-3000:]
            mlflow = compared(hurt, there, shipped.result()["trials"])
        assert not any(mlflow[name] for name in ("missing", "twice", "foreign")), mlflow
    return {
        "trials": trials, "driver_kills": len(words), "machine_deaths": deaths, "seconds": round(seconds, 1),
        "records": len(states), "trainings_begun": sum(began), "kept_out": kept_out, "mlflow": mlflow,
    }  # fmt: skip


@contextmanager
def in_head(server: Server, work: Path) -> Iterator[Server]:
    """MLflow, where the driver sees it."""
    words = [*within(HEAD), sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(server.port)]
    words += ["--workers", "1", "--backend-store-uri", server.backend]
    with (work / "server.log").open("a") as log:
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        subprocess.Popen(words, cwd=work, env=os.environ | quiet, stdout=log, stderr=log, start_new_session=True)
    ask = f"import socket,sys; sys.exit(socket.socket().connect_ex(('127.0.0.1', {server.port})))"
    asking = [*within(HEAD), sys.executable, "-c", ask]
    wait_for(lambda: not subprocess.run(asking).returncode, PATIENCE, "MLflow")
    try:
        yield server
    finally:
        end_within(NAMES[HEAD])


def main() -> None:
    tell("everything", __doc__, {"trials": 200, "kills": 5, "seed": 0}, run)


if __name__ == "__main__":
    main()
