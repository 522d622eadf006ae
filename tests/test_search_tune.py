"""Tasks under a real Ray Tune: one process after another trial, stopped trials, processes that die."""

from __future__ import annotations

import io
import os
import re
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest

from raymc.errors import MachineError
from raymc.execution.cluster import ray_session
from raymc.execution.driver import Slots, plan_slots, quiet_environment, run_work
from raymc.execution.live import Board
from raymc.execution.trial import Plan
from raymc.execution.worker import Needs
from raymc.study import files
from raymc.study.distributions import enqueue
from raymc.study.objective import Objective
from raymc.study.queue import TrialQueue
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
def test_a_process_that_dies_is_replaced_and_finished_seeds_stay(tmp_path: Path, slots: Slots) -> None:
    study = new_study()
    enqueue(study, [FIRST], SPACE)
    queue = make_queue(tmp_path, study, trials=2, top=1, fresh=(1000,))
    shown = _run(queue, Mortal(), slots)
    assert "trial 0 goes on in another process: " in shown
    assert queue.counts() == {"finished": 2, "pruned": 0, "failed": 0}
    seeds = tmp_path / "trials" / "0000"
    assert len((seeds / "seed-0" / "pids").read_text().split()) == 1, "the finished seed is not run again"
    assert (seeds / "seed-0" / "pids").read_text() != (seeds / "seed-1" / "pids").read_text()


def test_the_only_machine_without_the_folder_ends_the_search_and_no_trial_is_lost(tmp_path: Path, slots: Slots) -> None:
    study = new_study()
    queue = make_queue(tmp_path / "here", study, trials=2, top=1, fresh=(1000,))
    elsewhere = Plan(tmp_path / "elsewhere", Objective("acc"), "none")
    with Board("test", "acc", queue.left, stream=io.StringIO()) as board, pytest.raises(MachineError) as told:
        run_work(queue, {"": (elsewhere, Watched())}, slots, board)
    assert re.fullmatch(
        rf"no machine is left .*: [\d.]+: {tmp_path}/elsewhere is not there: the storage must .*", str(told.value)
    )
    assert not (tmp_path / "elsewhere").exists()
    assert queue.counts() == {"finished": 0, "pruned": 0, "failed": 0}, "they go on with --resume"
