"""More workers than there will ever be room for are refused in one line, before anything is left."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from raymc.cli import execute
from raymc.errors import InputError
from raymc.execution import room
from raymc.execution.needs import Needs
from raymc.execution.room import WAITING_BYTES, at_a_time, check_room, most_held

AWS = yaml.safe_load((Path(__file__).parents[1] / "clusters" / "aws.yaml").read_text())


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("train", ["nmce_digits", "--workers", "99999", "--out", "out"]),
        ("tune", ["nmce_digits", "workers=99999"]),
        ("stability", ["nmce_digits", "workers=99999"]),
    ],
)
def test_more_workers_than_this_machine_has_cores_are_refused_at_once(
    word: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    door = importlib.import_module(f"raymc.commands.{word}")
    assert execute(door.parser(), door.run, [*words, "--storage", "storage"]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("raymc: workers: 99999 need a core each, and this machine has ")
    assert told.err.count("\n") == 1 and list(tmp_path.iterdir()) == [] and not ray.is_initialized()


HEAD = {"Alive": True, "Resources": {"CPU": 0.0}, "Labels": {}}
GPU = {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}, "Labels": {}}
TYPED = {"Alive": True, "Resources": {"CPU": 8.0}, "Labels": {room.TYPED: "gpu"}}
GONE = {**GPU, "Alive": False}
CORE = {"Alive": True, "Resources": {"CPU": 1.0}, "Labels": {}}


@pytest.mark.parametrize(
    ("needs", "nodes", "limits", "most"),
    [
        (Needs(2, 1.0, 4.0), [HEAD, GPU, GPU], None, None),
        (Needs(3, 1.0, 4.0), [HEAD, GPU, GPU, GONE], None, "workers: 3 of 4 CPU and 1 GPU each are needed, .* holds 2"),
        (Needs(9, 1.0, 4.0, min_workers=2), [GPU, GPU], None, None),
        (Needs(1), [HEAD, GONE], None, None),  # its machines have not joined yet, or all were lost
        (Needs(9, 1.0, 4.0), [TYPED], None, None),  # KubeRay's autoscaler says nothing: it is waited for
        (Needs(10, 1.0, 4.0), [HEAD], AWS, None),  # 8 on spot and 2 on demand may be started
        (Needs(11, 1.0, 4.0), [HEAD], AWS, "workers: 11 of 4 CPU and 1 GPU each are needed, .* can grow to 10"),
        (Needs(1, 1.0, 9.0), [HEAD], AWS, ".* can grow to 0"),
        (Needs(4, 0.0, 4.0), [HEAD], AWS | {"max_workers": 1}, ".* can grow to 2"),
    ],
)
def test_what_a_cluster_holds_or_can_grow_to(
    needs: Needs,
    nodes: list[dict[str, Any]],
    limits: dict[str, Any] | None,
    most: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    if limits is not None:
        (tmp_path / room.BOOTSTRAP).write_text(yaml.safe_dump(limits))
    if most is None:
        check_room(needs, nodes)
        check_room(Needs(stages=(("pretrain", needs),)), [*nodes, CORE])
    else:
        with pytest.raises(InputError, match=most):
            check_room(needs, nodes)
        with pytest.raises(InputError, match=f"resources.pretrain.{most}"):
            check_room(Needs(stages=(("pretrain", needs),)), [*nodes, CORE])


def test_types_whose_resources_are_unknown_limit_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / room.BOOTSTRAP).write_text("available_node_types: {local: {resources: {}, max_workers: 3}}")
    check_room(Needs(64), [HEAD])
    assert at_a_time(99, Needs(), [HEAD]) == 99
    assert most_held(AWS, {"CPU": 8.0, "GPU": 1.0}) == 10


PRETRAIN = """
method: nmce
dataset: digits
space: {heads.weight_decay: {low: 1.0e-5, high: 1.0e-2, log: true}}
resources: {pretrain: {workers: 99999}}
"""


@pytest.mark.parametrize("word", ["tune", "stability"])
@pytest.mark.parametrize("machines", [None, [HEAD, CORE]])
def test_too_many_workers_of_a_stage_are_refused_on_a_machine_and_a_cluster_and_leave_nothing(
    word: str,
    machines: list[dict[str, Any]] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "mine.yaml").write_text(PRETRAIN)
    monkeypatch.chdir(tmp_path)
    door = importlib.import_module(f"raymc.commands.{word}")
    monkeypatch.setattr(door, "check_address", lambda address: machines)
    words = ["mine.yaml", "--storage", "storage", *([] if machines is None else ["--address", "head:6379"])]
    assert execute(door.parser(), door.run, words) == 2
    told = capsys.readouterr()
    why = (
        "99999 need a core each, and this machine has " if machines is None else "99999 of 1 CPU each are needed, and "
    )
    assert told.out == "" and told.err.startswith(f"raymc: resources.pretrain.workers: {why}")
    assert told.err.count("\n") == 1 and [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_trainings_at_a_time_are_no_more_than_there_will_ever_be_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(room, "cores", lambda: 8)
    with_memory = {**HEAD, "Resources": {room.HEAD: 1.0, "memory": 6.5 * WAITING_BYTES}}
    for needs, machines, most, why in (
        (Needs(), None, 8, "as many as this machine has cores for"),
        (Needs(4, min_workers=3), None, 2, "as many as this machine has cores for"),
        (Needs(9), None, 1, "as many as this machine has cores for"),
        (Needs(), [with_memory, CORE], 99, ""),  # others may join, and what waits holds nothing
        (Needs(2), [with_memory, GPU], 6, "since each has a process on the head, with 1 GiB"),
        (Needs(2), [TYPED], 99, ""),
    ):
        assert at_a_time(99, needs, machines) == most
        assert at_a_time(1, needs, machines) == 1 and at_a_time(None, needs, machines) is None
        assert capsys.readouterr().err == (f"--concurrent 99: {most} at a time, {why}\n" if why else "")
    (tmp_path / room.BOOTSTRAP).write_text(yaml.safe_dump(AWS))
    assert at_a_time(99, Needs(1, 0.25, 2.0), [HEAD]) == 40
    assert capsys.readouterr().err == "--concurrent 99: 40 at a time, as many as the cluster can grow to\n"
