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
from raymc.execution.room import check_cluster, check_workers, most_held
from raymc.execution.worker import Needs

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
    check_workers(99999, "head:6379")  # a cluster is asked itself


HEAD = {"Alive": True, "Resources": {"CPU": 0.0}, "Labels": {}}
GPU = {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}, "Labels": {}}
TYPED = {"Alive": True, "Resources": {"CPU": 8.0}, "Labels": {room.TYPED: "gpu"}}
GONE = {**GPU, "Alive": False}


@pytest.mark.parametrize(
    ("needs", "nodes", "limits", "most"),
    [
        (Needs(2, 1.0, 4.0), [HEAD, GPU, GPU], None, None),
        (Needs(3, 1.0, 4.0), [HEAD, GPU, GPU, GONE], None, "workers: 3 of 4 CPU and 1 GPU each are needed, .* holds 2"),
        (Needs(9, 1.0, 4.0, min_workers=2), [GPU, GPU], None, None),
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
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    if limits is not None:
        (tmp_path / room.BOOTSTRAP).write_text(yaml.safe_dump(limits))
    if most is None:
        check_cluster(needs)
    else:
        with pytest.raises(InputError, match=most):
            check_cluster(needs)


def test_types_whose_resources_are_unknown_limit_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(ray, "nodes", lambda: [HEAD])
    (tmp_path / room.BOOTSTRAP).write_text("available_node_types: {local: {resources: {}, max_workers: 3}}")
    check_cluster(Needs(64))
    assert most_held(AWS, {"CPU": 8.0, "GPU": 1.0}) == 10
