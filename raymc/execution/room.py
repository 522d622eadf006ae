"""Whether the workers of a training fit: on this machine, or on what a cluster has and can grow to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from raymc.errors import InputError
from raymc.execution.ray_internals import cores

if TYPE_CHECKING:  # it needs torch, a refusal does not
    from raymc.execution.worker import Needs

Row = Mapping[str, Any]

BOOTSTRAP = "ray_bootstrap_config.yaml"
"""In the home of a head that `ray up` has made: the types of machines, and how many of each may be started."""

TYPED = "ray.io/node-group"
"""A label of machines that an autoscaler knows by their type."""


def check_workers(workers: int, address: str | None) -> None:
    """Raises InputError for more workers than this machine has cores, before Ray starts them all; not for a cluster."""
    if workers == 1 or address is not None:
        return
    if workers > (there := cores()):
        raise InputError(f"workers: {workers} need a core each, and this machine has {there}")


def check_cluster(needs: Needs) -> None:
    """Raises InputError where the cluster that this process is in will never hold one training.

    What it can grow to counts, as far as the head's autoscaler says so in a file (`BOOTSTRAP`). Machines of another
    autoscaler, such as KubeRay's, say nothing of it; there the training waits.
    """
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    limits = _limits()
    if limits is None and (_bootstrap().exists() or any(TYPED in node.get("Labels", {}) for node in nodes)):
        return
    there = sum(held(node["Resources"], needs.each) for node in nodes)
    most = there if limits is None else max(there, most_held(limits, needs.each))
    if most < needs.least:
        each = " and ".join(f"{amount:g} {name}" for name, amount in needs.each.items())
        how = "holds" if limits is None else "can grow to"
        raise InputError(f"workers: {needs.least} of {each} each are needed, and the cluster {how} {most}")


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
