"""Trainings and searches over several machines of a cluster: the same losses, no deadlock, and machines that vanish."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from raymc.execution.train_seed import TrainSeed
from raymc.space.space import load_space
from raymc.study import files
from raymc.study.reader import read_study
from raymc.study.records import Resources
from tests.chaos import node_kills, stage_kills
from tests.chaos.machines import PATIENCE, Machines, machines

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # Ray's own

SPACE = {
    "method": "nmce",
    "dataset": "digits",
    "fixed": node_kills.SMALL | {"pretrain.epochs": 2},
    "space": {"heads.weight_decay": {"low": 1e-4, "high": 0.1, "log": True}},
    "budget": {"trials": 2, "seeds": 1, "confirm": None},
    "resources": {"workers": 2},
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Machines]:
    with machines() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return node_kills.unbroken(tmp_path_factory.mktemp("unbroken"))


def tune(work: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "raymc.tune", "small.yaml", "--storage", "storage", "--json", *words]
    environment = os.environ | {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=PATIENCE)


def test_two_trials_of_two_workers_at_once_end_on_two_machines_of_one_core(cluster: Machines, tmp_path: Path) -> None:
    """Each trial needs both machines, so none may sit on one of them; every loss is that of one process."""
    cluster.fill(2)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SPACE))
    done = tune(tmp_path, "--name", "s", "--address", cluster.address, "--concurrent", "2")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["trials"] == {"finished": 2, "pruned": 0, "failed": 0}
    assert "must be a folder that all machines share: 3 of them now" in done.stderr
    study = tmp_path / "storage" / "studies" / "s"
    assert not list(study.glob(".probe-*")) and not list(study.glob("trials/*/seed-0/ray"))
    alone = TrainSeed(load_space(tmp_path / "small.yaml"), str(tmp_path / "alone"), "", 0, "heads")
    as_alone(study, alone, (0, 1))


def test_a_shared_stage_of_two_workers_is_trained_on_two_machines_and_its_trials_load_it(
    cluster: Machines, tmp_path: Path
) -> None:
    """Once, by Ray Train, before trials of one worker; their losses are those of one process that trains all."""
    cluster.fill(2)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SPACE | {"resources": {"pretrain": {"workers": 2}}}))
    done = tune(tmp_path, "--name", "s", "--address", cluster.address)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["trials"] == {"finished": 2, "pruned": 0, "failed": 0}
    study = tmp_path / "storage" / "studies" / "s"
    (stage,) = read_study(study).stages
    (run,) = stage.seeds
    assert stage.state == "finished" and run.resources == Resources(2, 1.0, 0.0)
    assert [(one.name, one.cached) for one in run.stages] == [("pretrain", False)]
    for trial in read_study(study).trials:
        first, *others = trial.seeds[0].stages
        assert (first.name, first.cached, first.key) == ("pretrain", True, run.stages[0].key)
        assert trial.seeds[0].resources == Resources(1, 1.0, 0.0) and not any(one.cached for one in others)
    as_alone(study, TrainSeed(load_space(tmp_path / "small.yaml"), str(tmp_path / "alone"), "", 0, "heads"), (0, 1))


def as_alone(study: Path, alone: TrainSeed, numbers: Sequence[int]) -> None:
    """The losses of these trials are those of a training in this process."""
    for number in numbers:
        record = files.read_record(study, "search", number)
        assert record is not None
        out = study.parent / f"out-{number}"
        alone(record.params, 0, out, lambda row: None)
        found = node_kills.curve(files.seed_folder(study, "search", number, 0))
        assert node_kills.apart(found, node_kills.curve(out)) < 1e-9


def test_a_training_goes_on_when_one_of_its_two_machines_is_replaced(
    cluster: Machines, tmp_path: Path, unbroken: list[dict[str, Any]]
) -> None:
    row = node_kills.on_two_machines(cluster, tmp_path, replaced=True)
    assert set(row["workers"]) == {2}
    assert row["epochs_stored"] >= 1 and row["stored_twice"] == 0
    assert node_kills.apart(row["curve"], unbroken) < 1e-9


def test_an_elastic_training_ends_on_the_machine_that_is_left(
    cluster: Machines, tmp_path: Path, unbroken: list[dict[str, Any]]
) -> None:
    row = node_kills.on_two_machines(cluster, tmp_path, replaced=False)
    assert len(cluster.alive) == 1
    assert (row["workers"][0], row["workers"][-1]) == (2, 1)
    assert row["epochs_stored"] >= 1 and row["stored_twice"] == 0
    assert node_kills.apart(row["curve"], unbroken) < 1e-9


def test_a_trial_of_a_search_goes_on_when_its_machine_is_killed(
    cluster: Machines, tmp_path: Path, unbroken: list[dict[str, Any]]
) -> None:
    row = node_kills.of_a_search(cluster, tmp_path)
    assert row["epochs_stored"] >= 1 and row["stored_twice"] == 0
    assert node_kills.apart(row["curve"], unbroken) < 1e-9


def test_a_shared_stage_whose_machine_is_killed_is_done_again_and_holds_one_core(
    cluster: Machines, tmp_path: Path
) -> None:
    found = stage_kills.of_a_shared_stage(cluster, tmp_path / "s")
    assert found["free"] == 1.0, "three trials wait on two cores, and one core is free"
    assert len(set(found["machines"])) == 2
    assert "stage pretrain 0 goes on in another process: " in found["shown"]
    record = files.read_record(tmp_path / "s", "stability", 0)
    assert record is not None and (record.state, len(record.seeds)) == ("finished", 3)
    stage = files.read_record(tmp_path / "s", "stage", 0)
    assert stage is not None and (stage.state, len(list((tmp_path / "s" / "stages").iterdir()))) == ("finished", 1)
