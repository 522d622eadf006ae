"""Machines of a cluster that cannot train, or vanish: no fault of a configuration, and no trial is lost by them."""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import raymc
from raymc.errors import DivergedError, LostError, MachineError
from raymc.execution.driver import WAITING, Slots, run_work
from raymc.execution.failures import SETTLE_SECONDS, Failures
from raymc.execution.live import Board
from raymc.execution.needs import Needs
from raymc.execution.relay import run_and_report
from raymc.execution.requirements import Requirements, required
from raymc.execution.train_seed import TrainSeed
from raymc.execution.trial import Plan, Trainable, run_task
from raymc.execution.worker import run_workers
from raymc.space.space import Space, make_space
from raymc.storage.stage_store import Store
from raymc.study import files
from raymc.study.manifest import load_data
from raymc.study.objective import Objective
from raymc.study.records import FAILED, FINISHED, SeedRun, Task
from raymc.study.seed_queue import SeedQueue
from raymc.training.run import run as train
from tests.chaos import node_kills
from tests.chaos.machines import PATIENCE, Machines, machines, wait_until
from tests.search_fakes import FakeTrainable

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # Ray's own

LOST = 2

HANGS = 15
"""Seconds after which a worker counts as one that hangs."""

SLOTS = Slots(3, {"CPU": 1.0}, 0.0, 1.0, fixed=False)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Machines]:
    from ray import cloudpickle

    import tests.test_search_faults as here

    quick = {"RAY_health_check_period_ms": "1500", "RAY_health_check_initial_delay_ms": "0"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in quick.items():
            patch.setenv(name, value)
        cloudpickle.register_pickle_by_value(here)
        with machines() as cluster:
            yield cluster
        cloudpickle.unregister_pickle_by_value(here)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of samples, and one of other samples."""
    folder = tmp_path_factory.mktemp("rows")
    for seed, name in enumerate(("rows", "others")):
        x = np.random.default_rng(seed).normal(size=(60, 4)).astype(np.float32)
        np.savez(folder / f"{name}.npz", x=x + 5 * (np.arange(60) % 3)[:, None])
    return folder


def space_of(path: Path) -> Space:
    content = {"method": "plain", "dataset": {"path": str(path)}, "preset": "kmeans", "fixed": {"n_clusters": 3}}
    return make_space(path.parent / "space.yaml", content)


class OfTheMachine(Requirements):
    """Reads what this machine has in place of the driver's file: `FILE` in its environment says which."""

    def check(self, gpu: bool) -> None:
        path = Path(os.environ.get("FILE", str(self.config.own and self.config.own.path)))
        Requirements.check(Requirements(**vars(self) | {"config": space_of(path).config()}), gpu)


def run(
    queue: SeedQueue,
    trainable: Trainable,
    patience: float = PATIENCE,
    slots: Slots = SLOTS,
    shown: io.StringIO | None = None,
) -> str:
    shown, plan = shown or io.StringIO(), Plan(queue.folder, queue.objective)
    with pytest.MonkeyPatch.context() as patch, Board("test", "silhouette", queue.left, stream=shown) as board:
        patch.setattr("raymc.execution.driver.WAIT_SECONDS", patience)
        run_work(queue, {"": (plan, trainable)}, slots, board)
    return shown.getvalue()


def ended(queue: SeedQueue, seed: int) -> SeedRun:
    found = files.read_seed(queue.folder, Task("stability", 0, {}, (seed,), (seed,)), seed)
    assert found is not None
    return found


def test_machines_that_cannot_train_are_kept_out_and_named_and_no_seed_fails(
    cluster: Machines, rows: Path, tmp_path: Path
) -> None:
    """One has other samples, one another raymc: all seeds are trained by the third. One without data: the next test."""
    another = tmp_path / "another"
    another.mkdir()
    (another / "sitecustomize.py").write_text(  # a package without any other module: none may be needed
        "import sys, types\nsys.modules['raymc'] = types.ModuleType('raymc')\n"
        "sys.modules['raymc'].__version__ = '0.0.1'\n"
    )
    sick = {
        cluster.add(FILE=str(rows / "others.npz")): "the samples of .* are not those of the driver",
        cluster.add(PYTHONPATH=f"{another}{os.pathsep}{os.environ['PYTHONPATH']}"): "it has raymc 0.0.1",
    }
    space = space_of(rows / "rows.npz")
    dataset = load_data(space, "", str(tmp_path / "store"), smoke=False)
    requirements = OfTheMachine(space.config(), str(tmp_path / "store"), "", dataset.fingerprint)
    trainable = TrainSeed(space, str(tmp_path / "store"), "", 0, "", requirements=requirements)
    queue = SeedQueue(tmp_path, "stability", Objective("silhouette"), {0: {}}, range(4))
    with pytest.raises(MachineError, match="no machine is left that can train: .*; .*") as told:
        run(queue, trainable, patience=2.0)
    assert "\n" not in str(told.value) and told.value.exit_code == 3
    assert all(re.search(why, str(told.value)) for why in sick.values())
    assert not list(tmp_path.glob("runs/*/seed-*/result.json")), "each seed is still to be trained"

    cluster.add()
    queue = SeedQueue(tmp_path, "stability", Objective("silhouette"), {0: {}}, range(4))
    shown = run(queue, trainable)
    assert [ended(queue, seed).state for seed in range(4)] == [FINISHED] * 4, shown
    lines = [line for line in shown.splitlines() if "gets no more trials" in line]
    assert len(lines) == len(sick), shown
    for node, why in sick.items():
        (line,) = [line for line in lines if node[:8] in line]
        assert line.startswith("machine ") and re.search(why, line), line
        cluster.kill(node)


def test_workers_are_on_no_machine_that_cannot_train(cluster: Machines, rows: Path, tmp_path: Path) -> None:
    """Of two machines for two workers one has no data: the training waits for a third, and is on that one then."""
    cluster.fill(1)
    sick = cluster.add(FILE=str(rows / "absent.npz"))
    content = {"method": "nmce", "dataset": "digits", "fixed": node_kills.SMALL}
    space, store = make_space(tmp_path / "small.yaml", content), str(tmp_path / "store")
    requirements = OfTheMachine(space_of(rows / "rows.npz").config(), store, None, None)
    trainable = TrainSeed(space, store, "", 0, "", workers=2, requirements=requirements)
    queue = SeedQueue(tmp_path, "stability", Objective("acc"), {0: {}}, (0,))
    slots, shown = Slots(1, WAITING, 0.0, 1.0, fixed=False, least=2), io.StringIO()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, queue, trainable, slots=slots, shown=shown)
        wait_until(lambda: f"(node {sick[:8]}) gets no more trials: no data there: " in shown.getvalue(), running)
        cluster.add()
        running.result(PATIENCE)
    assert ended(queue, 0).state == FINISHED, shown.getvalue()
    cluster.kill(sick)


class OnMachines(FakeTrainable):
    """Notes where it is, then waits for its end, or for that of its machine."""

    def __call__(self, params: Mapping[str, Any], seed: int, out: Path, report: Any) -> dict[str, Any]:
        import ray

        out.mkdir(parents=True, exist_ok=True)
        with (out / "nodes").open("a") as file:
            file.write(f"{ray.get_runtime_context().get_node_id()}\n")
        if seed == 1:
            os._exit(1)
        while seed == 0 and len((out / "nodes").read_text().split()) <= LOST:
            time.sleep(0.1)
        return super().__call__(params, seed, out, report)


def test_lost_machines_cost_a_training_nothing_and_lost_processes_a_few_tries(
    cluster: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Seed 0 loses two machines and finishes; the process of seed 1 dies each time on a machine that lives on."""
    monkeypatch.setattr("raymc.execution.failures.LIMIT", 1)
    cluster.fill(1)
    queue = SeedQueue(tmp_path, "stability", Objective("acc"), {0: {}}, (0, 1))
    places = files.seed_folder(tmp_path, "stability", 0, 0) / "nodes"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, queue, OnMachines())
        for kills in range(LOST):
            wait_until(lambda: places.exists() and len(places.read_text().split()) > kills, running)  # noqa: B023
            cluster.add()
            cluster.kill(places.read_text().split()[-1])
        shown = running.result(PATIENCE)
    assert "did not complete" not in capfd.readouterr().err
    assert ended(queue, 0).state == FINISHED, shown
    assert len(places.read_text().split()) == LOST + 1
    seed = ended(queue, 1)
    assert seed.state == FAILED and str(seed.error).startswith("its process failed again and again: "), shown
    tries = (files.seed_folder(tmp_path, "stability", 0, 1) / "nodes").read_text().split()
    assert 2 <= len(tries) <= 2 + LOST, "twice on machines that live on"


def test_only_failures_on_machines_that_live_on_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("raymc.execution.failures.time", SimpleNamespace(monotonic=lambda: now[0]))
    lost, crashed, unclear, early = Failures(), Failures(), Failures(), Failures()
    for number in range(20):
        lost.add({f"gone {number}"}, vague=True)
        lost.add({"a", f"gone {number}"}, vague=False)
        assert not lost.too_many({"a"})
    for number in range(4):
        for failures in (crashed, unclear, early):
            failures.add(() if failures is early else {"a"}, vague=failures is unclear)
        assert [one.too_many({"a"}) for one in (crashed, early)] == [number == 3] * 2
    assert not unclear.too_many({"a"}), "Ray may not yet know that the machine is gone"
    now[0] = SETTLE_SECONDS + 1
    assert unclear.too_many({"a"}) and not unclear.too_many({"b"})


def test_what_a_machine_lacks_is_said_before_a_training_and_after_one_that_went_wrong(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.npz"
    path.write_bytes((rows / "rows.npz").read_bytes())
    config = space_of(path).config()
    sound = Requirements(config, str(tmp_path / "store"), None, None)
    sound.check(gpu=False)
    for changed, gpu, why in (
        (replace(sound, version="9"), False, f"it has raymc {raymc.__version__}, and the driver has 9"),
        (replace(sound, fingerprint="0/500"), False, "the samples of rows there are not those of the driver"),
        (sound, True, "CUDA does not start there: torch sees no GPU"),
    ):
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        with pytest.raises(MachineError) as told:
            changed.check(gpu)
        assert str(told.value) == why
    with pytest.raises(ZeroDivisionError), required(sound, gpu=False):
        raise ZeroDivisionError  # of the training: the machine has all
    with pytest.raises(MachineError, match="no data there: .*rows.npz is missing"), required(sound, gpu=False):
        path.unlink()
        raise FileNotFoundError(path)
    with pytest.raises(DivergedError), required(replace(sound, config=space_of(rows / "rows.npz").config()), gpu=False):
        monkeypatch.setattr("raymc.execution.requirements.FREE_BYTES", 2**60)
        raise DivergedError("says enough")
    with pytest.raises(MachineError, match=r"\d+ MiB are free in .*, and \d+ are needed"):
        sound.check(gpu=False)


def test_workers_that_ray_ends_for_want_of_memory_are_no_fault_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Train's controller is ended with them, and its error is none that the training raised."""
    from ray.exceptions import OutOfMemoryError

    def fit(trainer: Any) -> Any:
        text = "5 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 1, ID: a) was"
        raise OutOfMemoryError(f"{text} 21.76GB used / 23.54GB limit (0.92)\nOOM kill reason: …")

    def lost(params: Any, seed: int, epoch: int) -> None:
        raise LostError("gone")

    trainer = type("Trainer", (), {"__init__": lambda self, *args, **settings: None, "fit": fit})
    monkeypatch.setattr("ray.train.torch.TorchTrainer", trainer)
    with pytest.raises(LostError, match=r"^Ray lost processes of the training: the memory of its machine is full"):
        run_workers(node_kills.job(tmp_path), Needs(2))
    plan, task = Plan(tmp_path, Objective("acc")), Task("search", 0, {}, (0,), (0,))
    with pytest.raises(LostError):
        run_task(plan, task, FakeTrainable(lost), lambda row: None)
    assert files.read_seed(tmp_path, task, 0) is None, "the seed is still to be trained"


class Troubled(Requirements):
    """Patches its process: a held stage is waited for 1 s, a worker hangs once after its stage, then the first one once
    in its evaluation, which takes long.
    """

    def check(self, gpu: bool) -> None:
        import torch.distributed as dist

        from raymc import pulse
        from raymc.training import evaluate, obtain, run

        trained, evaluated = run.obtain, evaluate.final_metrics

        def once(name: str) -> bool:
            flag = Path(self.storage) / name
            there = flag.exists()
            flag.touch()
            return not there

        def hangs_once(*args: Any, **settings: Any) -> Any:
            found = trained(*args, **settings)
            if dist.get_rank() == 1 and once("hung"):
                time.sleep(3600)
            return found

        def slow(*args: Any, **settings: Any) -> Any:
            if once("hung alone"):
                time.sleep(3600)
            end = time.monotonic() + 1.5 * HANGS
            while time.monotonic() < end:  # at work
                pass
            return evaluated(*args, **settings)

        obtain.HELD_SECONDS, run.obtain, evaluate.final_metrics = 1.0, hangs_once, slow
        pulse.BEAT, pulse.SILENT = timedelta(seconds=1), timedelta(seconds=HANGS)


def test_workers_that_hang_are_replaced_and_those_that_wait_are_not(
    cluster: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage of two workers is in another process's hands; one hangs; the first hangs alone; it evaluates for long."""
    monkeypatch.setattr("raymc.execution.worker.COLLECTIVE_TIMEOUT", timedelta(seconds=HANGS))
    monkeypatch.setenv("RAY_TRAIN_COLLECTIVE_TIMEOUT_S", str(HANGS))
    cluster.fill(2)
    alone = node_kills.job(tmp_path / "alone")
    settings = {"storage": alone.storage, "out": alone.out, "stage_seeds": alone.stage_seeds, "device": "cpu"}
    expected = train(alone.config, **settings)
    job = node_kills.job(tmp_path / "several")
    requirements = Troubled(job.config, job.storage, None, None)
    lease = Store(job.storage).lease(expected["stages"][0]["key"])
    assert lease.try_acquire()
    told: list[dict[str, Any]] = []
    with lease, ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_and_report, replace(job, requirements=requirements), Needs(2), told.append)
        wait_until(lambda: sum(row["event"] == "stage_begin" for row in told) == 1, running)
        time.sleep(5)
        assert not running.done()
        lease.__exit__()
        result = running.result(PATIENCE)
    held = [row for row in told if row["event"] == "held"]
    assert held and held[0]["idle"] > 0 and (Path(job.storage) / "hung alone").exists()
    assert result["metrics"]["acc"] == pytest.approx(expected["metrics"]["acc"])
    assert node_kills.apart(node_kills.curve(job.out), node_kills.curve(alone.out)) < 1e-9
