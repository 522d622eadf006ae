"""Whether the workers of a training fit: on this machine, or on what a cluster has and can grow to."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from raymc.errors import InputError
from raymc.execution.needs import Needs
from raymc.execution.ray_internals import HEAD, cores

Row = Mapping[str, Any]

BOOTSTRAP = "ray_bootstrap_config.yaml"
"""In the home of a head that `ray up` has made: the types of machines, and how many of each may be started."""

WAITING_BYTES = 2**30
"""For the process of a training that waits on the head for its workers."""

TYPED = "ray.io/node-group"
"""A label of machines that an autoscaler knows by their type."""


def check_room(needs: Needs, machines: Sequence[Row] | None = None) -> None:
    """Raises InputError where a training, or a stage that is trained by itself, will never have room.

    `machines`: those of a cluster, as `ray.nodes` gives them; None: this machine alone, where a worker needs a core,
    before Ray starts them all. What a cluster can grow to counts, as far as the head's autoscaler says so in a file
    (`BOOTSTRAP`). Machines of another autoscaler, such as KubeRay's, say nothing of it; there the training waits, as it
    does where none but a head without cores is there yet.
    """
    for key, one in needs.named.items():
        if machines is None:
            check_workers(one.least, key)
        else:
            _check_cluster(one, machines, key)


def check_workers(workers: int, key: str = "workers") -> None:
    """Raises InputError for more workers than this machine has cores."""
    if workers > 1 and workers > (there := cores()):
        raise InputError(f"{key}: {workers} need a core each, and this machine has {there}")


def _check_cluster(needs: Needs, machines: Sequence[Row], key: str) -> None:
    nodes, limits = [node for node in machines if node["Alive"]], _limits()
    if limits is None and (_bootstrap().exists() or any(TYPED in node.get("Labels", {}) for node in nodes)):
        return
    if limits is None and not any(node["Resources"].get("CPU") for node in nodes):
        return
    there = sum(held(node["Resources"], needs.each) for node in nodes)
    most = there if limits is None else max(there, most_held(limits, needs.each))
    if most < needs.least:
        each = " and ".join(f"{amount:g} {name}" for name, amount in needs.each.items())
        how = "holds" if limits is None else "can grow to"
        raise InputError(f"{key}: {needs.least} of {each} each are needed, and the cluster {how} {most}")


def at_a_time(concurrent: int | None, needs: Needs, machines: Sequence[Row] | None = None) -> int | None:
    """`concurrent`, or less where so many would never have room, or bring a machine down; a line says so then.

    On this machine alone every training has processes of its own, and a core for each. On a cluster trainings that wait
    for a place hold nothing, but where they have several workers each has a small process on the head meanwhile.
    """
    if concurrent is None:
        return None
    most, why = concurrent, ""
    if machines is None:
        most, why = max(1, cores() // needs.least), "as many as this machine has cores for"
    else:
        nodes, limits = [node["Resources"] for node in machines if node["Alive"]], _limits()
        if limits is not None:
            room = max(sum(held(node, needs.each) for node in nodes), most_held(limits, needs.each))
            most, why = max(1, room // needs.least), "as many as the cluster can grow to"
        memory = sum(node.get("memory", 0.0) for node in nodes if HEAD in node)
        if needs.workers > 1 and memory and memory / WAITING_BYTES < most:
            most, why = max(1, int(memory / WAITING_BYTES)), "since each has a process on the head, with 1 GiB"
    if most < concurrent:
        print(f"--concurrent {concurrent}: {most} at a time, {why}", file=sys.stderr)
    return min(most, concurrent)


def held(machine: Row, each: Mapping[str, float]) -> int:
    """How many workers that take `each` fit on a machine."""
    return int(min(machine.get(name, 0.0) / amount for name, amount in each.items()) + 1e-9)


def most_held(limits: Row, each: Mapping[str, float]) -> int:
    """The same of all machines that a cluster's configuration allows at a time, head included."""
    types, cap = limits["available_node_types"], int(limits.get("max_workers", 2))
    found: list[int] = []
    for kind in types.values():
        found += [held(kind["resources"], each)] * min(cap, int(kind.get("max_workers", cap)))
    head = types.get(limits.get("head_node_type"), {}).get("resources", {})
    return held(head, each) + _largest(found, cap)


def _largest(numbers: Sequence[int], most: int) -> int:
    return sum(sorted(numbers, reverse=True)[:most])


def _bootstrap() -> Path:
    return Path.home() / BOOTSTRAP


def _limits() -> Row | None:
    """The configuration of this head's cluster; None where there is none, or none that says what its machines have."""
    try:
        found = yaml.safe_load(_bootstrap().read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    types = found.get("available_node_types") if isinstance(found, dict) else None
    known = isinstance(types, dict) and all(kind.get("resources") for kind in types.values())
    return found if known else None
