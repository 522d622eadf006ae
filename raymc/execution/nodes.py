"""The machines of a Ray cluster: whether they see a folder of this one, and how those that cannot train are avoided."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from raymc.errors import InputError
from raymc.storage.shared_folder import probe, turns_up

ANSWER_SECONDS = 60.0

NODE = "ray.io/node-id"
"""The label that Ray gives each machine, with its id."""


def check_shared(folder: Path) -> None:
    """Let every other machine of the Ray cluster look for a file that is written here, and say so in one line.

    A machine that does not answer in time, because it is just leaving, is passed over; those that join later look
    for their folder themselves. Raises InputError that names the machines without the folder.
    """
    others = _other_nodes()
    if not others:
        return
    print(f"{folder} must be a folder that all machines share: {len(others) + 1} of them now", file=sys.stderr)
    with probe(folder) as file:
        blind = _without(others, file)
    if blind:
        raise InputError(f"{folder} is not shared: {', '.join(sorted(blind))} does not see what is written here")


def machines() -> list[dict[str, Any]]:
    """Those of the cluster that this process is in, as Ray describes them."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return nodes


def others_than(nodes: Collection[str]) -> str:
    """What the label `NODE` must be of a machine that is none of these; empty where there are none to avoid."""
    return f"!in({','.join(sorted(nodes))})" if nodes else ""


def _other_nodes() -> dict[str, str]:
    """Addresses of the machines but this one, by Ray's id of each."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    return {
        node["NodeID"]: node["NodeManagerAddress"] for node in machines() if node["Alive"] and node["NodeID"] != here
    }


def _without(nodes: dict[str, str], file: Path) -> set[str]:
    """Addresses of the nodes on which `file` does not turn up."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(turns_up)
    asked: dict[Any, str] = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(str(file)): address
        for node, address in nodes.items()
    }
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS)
    return {asked[one] for one in answered if _answer(one) is False}


def _answer(one: Any) -> bool | None:
    import ray

    try:
        return bool(ray.get(one))
    except ray.exceptions.RayError:  # the machine has left meanwhile
        return None
