"""Tasks under a real Ray Tune: one process after another trial, stopped trials, processes that die."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from raymc.errors import InputError, MachineError, RaymcError, StorageLostError, TrainingError
from raymc.execution.cluster import ray_session
from raymc.execution.driver import Slots, plan_slots, quiet_environment, run_work
from raymc.execution.live import Board
from raymc.execution.needs import Needs
from raymc.execution.trial import Plan
from raymc.study import files
from raymc.study.distributions import enqueue
from raymc.study.folder import attended, locked, write_manifest
from raymc.study.objective import Objective
from raymc.study.queue import TrialQueue
from raymc.study.records import Task
from raymc.study.stage_keys import Needed
from raymc.study.stage_queue import StageQueue
from tests import search_fakes
from tests.search_fakes import FIRST, SPACE, FakeTrainable, make_queue, new_study

pytestmark = pytest.mark.filterwarnings("default")  # Ray's own


@pytest.fixture(scope="module")
def slots() -> Iterator[Slots]:
    """A private Ray on this machine, and two slots in it."""
    before = dict(os.environ)
    quiet_environment()
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(search_fakes)
    handler = signal.getsignal(signal.SIGTERM)
    with ray_session(None, dashboard=False):
        assert signal.getsignal(signal.SIGTERM) is handler, "Ray's own ends the process at once"
        yield plan_slots(Needs(), [{"CPU": 2.0}], None, fixed=True)
    cloudpickle.unregister_pickle_by_value(search_fakes)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def slot(slots: Slots) -> Slots:
    """One of them: each task more is a process that imports torch."""
    return replace(slots, count=1)


class Watched(FakeTrainable):
    """Leaves the process's number beside its results, and refuses to share the process with a training that goes on."""

    def __call__(self, params: Mapping[str, Any], seed: int, out: Path, report: Any) -> dict[str, Any]:
        import builtins

        busy: set[Path] = builtins.__dict__.setdefault("_raymc_test_busy", set())
        if busy:
            raise RuntimeError(f"{out} began while {busy} was still at work in this process")
        busy.add(out)
        try:
            out.mkdir(parents=True, exist_ok=True)
            with (out / "pids").open("a") as file:
                file.write(f"{os.getpid()}\n")
            return super().__call__(params, seed, out, report)
        finally:
            busy.remove(out)


class Mortal(Watched):
    """Its process dies once, in the second seed of the trial that is tried first."""

    def __call__(self, params: Mapping[str, Any], seed: int, out: Path, report: Any) -> dict[str, Any]:
        grave = out.parent.parent / "died"
        if dict(params) == FIRST and seed == 1 and not grave.exists():
            grave.write_text("once")
            os._exit(1)
        return super().__call__(params, seed, out, report)


class Removing(FakeTrainable):
    """Removes the study's folder while it trains, or the storage."""

    def __init__(self, above: int) -> None:
        super().__init__()
        self.above = above

    def __call__(self, params: Mapping[str, Any], seed: int, out: Path, report: Any) -> dict[str, Any]:
        shutil.rmtree(out.parents[2 + self.above], ignore_errors=True)
        return super().__call__(params, seed, out, report)


def _run(queue: TrialQueue, trainable: FakeTrainable, slots: Slots, fidelity: str = "none") -> str:
    shown = io.StringIO()
    with Board("test", "acc", queue.left, stream=shown) as board:
        run_work(queue, {"": (Plan(queue.folder, Objective("acc"), fidelity), trainable)}, slots, board)
    return shown.getvalue()


def _pids(folder: Path) -> list[str]:
    return [pid for path in sorted(folder.glob("*/*/seed-*/pids")) for pid in path.read_text().split()]


def test_stopped_trials_unwind_and_their_process_goes_on_with_the_next(tmp_path: Path, slots: Slots) -> None:
    study = new_study()
    enqueue(study, [FIRST | {"heads.epochs": 6}], SPACE)
    halving = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    queue = make_queue(tmp_path, study, trials=12, fresh=(1000,), pruner=halving)
    shown = _run(queue, Watched(), slots, "epochs")
    counts = queue.counts()
    assert sum(counts.values()) == 12 and counts["failed"] == 0 and counts["pruned"] >= 1
    for number in range(12):
        record = files.read_record(tmp_path, "search", number)
        assert record is not None and record.error is None
        assert (record.state == "pruned") == files.stop_mark(tmp_path, number).exists()
    pruned = next(t for t in study.get_trials() if t.state.name == "PRUNED")
    assert pruned.intermediate_values and pruned.user_attrs["state"] == "pruned"
    assert len(set(_pids(tmp_path))) <= 2, "two slots are two processes, for the search and the confirmation"
    assert len(list((tmp_path / "confirm").glob("*/seed-1000/result.json"))) == min(2, counts["finished"]) >= 1
    assert "pruned" in shown and "confirm" in shown


@pytest.mark.slow
def test_a_process_that_dies_is_replaced_and_finished_seeds_stay(tmp_path: Path, slot: Slots) -> None:
    study = new_study()
    enqueue(study, [FIRST], SPACE)
    queue = make_queue(tmp_path, study, trials=2, top=1, fresh=(1000,))
    shown = _run(queue, Mortal(), slot)
    assert "trial 0 goes on in another process: " in shown
    assert queue.counts() == {"finished": 2, "pruned": 0, "failed": 0}
    seeds = tmp_path / "trials" / "0000"
    assert len((seeds / "seed-0" / "pids").read_text().split()) == 1, "the finished seed is not run again"
    assert (seeds / "seed-0" / "pids").read_text() != (seeds / "seed-1" / "pids").read_text()


def test_the_only_machine_without_the_folder_ends_the_search_and_no_trial_is_lost(tmp_path: Path, slot: Slots) -> None:
    study = new_study()
    queue = make_queue(tmp_path / "here", study, trials=2, top=1, fresh=(1000,))
    elsewhere = Plan(tmp_path / "elsewhere", Objective("acc"), "none")
    with Board("test", "acc", queue.left, stream=io.StringIO()) as board, pytest.raises(MachineError) as told:
        run_work(queue, {"": (elsewhere, Watched())}, slot, board)
    assert re.fullmatch(
        rf"no machine is left .*: [\d.]+: {tmp_path}/elsewhere is not there: the storage must .*", str(told.value)
    )
    assert not (tmp_path / "elsewhere").exists()
    assert queue.counts() == {"finished": 0, "pruned": 0, "failed": 0}, "they go on with --resume"


class Wide(Watched):
    """Its stage takes every core there is, as workers of Ray Train would; the first time its process dies.

    Trial 0 ends while the stage waits for its place.
    """

    def __call__(self, params: Mapping[str, Any], seed: int, out: Path, report: Any) -> dict[str, Any]:
        while out.parent.name == "0000" and not (out.parents[2] / "waits").exists():
            time.sleep(0.1)
        return super().__call__(params, seed, out, report)

    def stage(self, name: str, params: Mapping[str, Any], seed: int, out: Path, report: Any) -> dict[str, Any]:
        import ray
        from ray.util.placement_group import placement_group, remove_placement_group

        cores = placement_group([{"CPU": 1.0}] * int(ray.cluster_resources()["CPU"]))  # type: ignore[no-untyped-call]
        (out.parents[2] / "waits").touch()
        ray.get(cores.ready(), timeout=60)
        remove_placement_group(cores)  # type: ignore[no-untyped-call]
        report({"event": "plan"})
        grave = out.parent.parent / "died"
        if not grave.exists():
            grave.parent.mkdir(parents=True, exist_ok=True)
            grave.write_text("once")
            os._exit(1)
        if params.get("bad"):
            raise ValueError("no such thing")
        return {"stages": [{"name": name, "epochs": 1, "cached": False, "seconds": 0.0, "key": "k"}]}


@pytest.mark.slow
@pytest.mark.parametrize("bad", [False, True])
def test_a_stage_of_several_workers_gets_what_idle_processes_hold(tmp_path: Path, slots: Slots, bad: bool) -> None:
    """One process ends its trial and would be kept for the next, which waits for a stage that waits for all cores."""
    needs = Needs(stages=(("pretrain", Needs(2)),))
    both = plan_slots(needs, [{"CPU": 2.0}], 2, fixed=True)
    queue = make_queue(tmp_path, new_study(), trials=2, seeds=(0,), top=0, fresh=())

    def needed(task: Task) -> list[list[Needed]]:
        return [[Needed("pretrain", "k", {"bad": bad}, 0, True)]] if task.trial else []

    work = StageQueue(
        queue, lambda task: tmp_path, Objective("acc"), needed, lambda key: False, frozenset(["pretrain"])
    )
    work.ahead = 2
    shown = io.StringIO()
    with Board("test", "acc", work.left, stream=shown) as board, nullcontext() if not bad else pytest.raises(
        TrainingError, match="^stage pretrain, which all trials need, failed: ValueError: no such thing$"
    ):  # fmt: skip
        run_work(work, {"": (Plan(tmp_path, Objective("acc")), Wide())}, both, board)
    assert "stage pretrain 0 goes on in another process: " in shown.getvalue()
    assert queue.counts() == {"finished": 1 if bad else 2, "pruned": 0, "failed": 0}


@pytest.mark.parametrize("above", [0, 2], ids=["folder", "storage"])
def test_a_folder_that_is_removed_ends_the_search_in_one_line_and_is_not_made_anew(
    above: int, tmp_path: Path, slot: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raymc.study.folder.AWAY_SECONDS", 0.1)
    storage = tmp_path / "storage"
    folder = storage / "studies" / "s"
    with pytest.raises(StorageLostError, match=f"{folder} is no longer there: ") as error:
        with locked(folder), attended(folder):
            _run(make_queue(folder, new_study(), trials=2, top=1, fresh=(1000,)), Removing(above), slot)
    assert error.value.exit_code == 1 and "\n" not in str(error.value)
    shutil.rmtree(storage, ignore_errors=True)
    with pytest.raises(StorageLostError):
        write_manifest(folder, {})
    assert not storage.exists()


def test_an_error_in_a_folder_that_is_there_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="other"), locked(tmp_path), attended(tmp_path):
        raise ValueError("other")
    with pytest.raises(StorageLostError, match="^its bucket$"), attended(tmp_path):  # Tune wraps what a trial says
        try:
            raise StorageLostError("its bucket")
        except StorageLostError:
            raise RuntimeError("TuneError") from None


LACKING = r"no machine is left that can train: [\d.]+: a package is missing or broken: libcudnn.*"


def _absent() -> None:
    raise ImportError("libcudnn.so.9: cannot open shared object file")


def _load(driver: int, absent: bool) -> FakeTrainable:
    if os.getpid() != driver:
        _absent() if absent else int("x")
    return Unloadable(absent)


class Unloadable(FakeTrainable):
    """A worker cannot load it: its process fails before the task begins."""

    def __init__(self, absent: bool) -> None:
        super().__init__()
        self.absent = absent

    def __reduce__(self) -> Any:
        return _load, (os.getpid(), self.absent)


class Torn(FakeTrainable):
    """Needs in its training what its machine lacks."""

    def __call__(self, params: Mapping[str, Any], seed: int, out: Path, report: Any) -> dict[str, Any]:
        _absent()
        return {}


@pytest.mark.parametrize(
    ("trainable", "error", "told"),
    [
        (Unloadable(absent=True), MachineError, LACKING),
        (Unloadable(absent=False), InputError, "the trials' processes do not start: ValueError: .*'x'"),
        (Torn(), MachineError, LACKING),
    ],
)
def test_what_a_machine_lacks_is_not_charged_to_the_trial(
    trainable: FakeTrainable,
    error: type[RaymcError],
    told: str,
    tmp_path: Path,
    slot: Slots,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("raymc.execution.failures.LIMIT", 1)
    queue = make_queue(tmp_path, new_study(), trials=2, top=1, fresh=(1000,))
    with pytest.raises(error) as found:
        _run(queue, trainable, slot)
    assert re.fullmatch(told, str(found.value))
    assert queue.counts() == {"finished": 0, "pruned": 0, "failed": 0}, "they go on with --resume"


FULL = (
    "2 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.7, ID: {node}) was "
    "22.05GB used / 23.54GB limit (0.93)\nOOM kill reason: Memory usage exceeded\nRefer to the documentation"
)


@pytest.fixture
def calls_that_end(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """With what the next calls of trials' processes end, as Ray tells Tune; the processes are dead then."""
    from ray.air.execution._internal.event_manager import RayEventManager

    ends: list[Exception] = []
    track = RayEventManager.track_future

    def tracked(self: Any, future: Any, on_result: Any = None, on_error: Any = None) -> Any:
        def resolved(result: Any) -> None:
            if ends and isinstance(result, dict):  # what a training reports, not that its process is ready
                os.kill(result["pid"], signal.SIGKILL)
                on_error(ends.pop(0))
            else:
                on_result(result)

        return track(self, future, resolved if on_result else None, on_error)

    monkeypatch.setattr(RayEventManager, "track_future", tracked)
    monkeypatch.setattr("raymc.execution.searcher.FULL_SECONDS", 0.2)
    return ends


@pytest.mark.slow
def test_whatever_ray_says_of_a_lost_process_another_one_takes_the_trial_up(
    tmp_path: Path, slots: Slots, calls_that_end: list[Exception]
) -> None:
    """Memory that was full, a machine, an object that is gone: Tune itself knows dead processes only."""
    from ray import exceptions

    calls_that_end += [
        exceptions.OutOfMemoryError(FULL.format(node="a1")),
        exceptions.NodeDiedError("the machine has left"),
        exceptions.ObjectLostError("00" * 28, None, "here"),
    ]
    queue = make_queue(tmp_path, new_study(), trials=4, top=0, fresh=())
    shown = _run(queue, Watched(), slots)
    assert not calls_that_end and queue.counts() == {"finished": 4, "pruned": 0, "failed": 0}, shown
    assert shown.count("goes on in another process: ") == 3, shown
    assert "the memory of its machine is full (22.05GB used / 23.54GB), and Ray ended it" in shown


@pytest.mark.slow
def test_a_machine_whose_memory_stays_full_is_kept_out_and_the_search_can_go_on_elsewhere(
    tmp_path: Path, slots: Slots, calls_that_end: list[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the only one here; no trial is charged."""
    import ray
    from ray import exceptions

    monkeypatch.setattr("raymc.execution.failures.LIMIT", 0)
    node = ray.get_runtime_context().get_node_id()
    calls_that_end += [exceptions.OutOfMemoryError(FULL.format(node=node))] * 40
    queue = make_queue(tmp_path, new_study(), trials=2, top=0, fresh=())
    told = "no machine is left that can train: 10.0.0.7: the memory of its machine is full (22.05GB used / 23.54GB)"
    with pytest.raises(MachineError, match=re.escape(told)):
        _run(queue, Watched(), slots)
    assert queue.counts() == {"finished": 0, "pruned": 0, "failed": 0}, "they go on with --resume"
