"""A folder that all machines of a cluster must see: looked at before a search, and again where a trial runs."""

from __future__ import annotations

import contextlib
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from raymc.errors import InputError

LOOK_SECONDS = 5.0
"""A network file system may show a new file late."""

ANSWER_SECONDS = 60.0


def check_shared(folder: Path) -> None:
    """Let every other machine of the Ray cluster look for a file that is written here, and say so in one line.

    A machine that does not answer in time, because it is just leaving, is passed over; those that join later look
    for their folder themselves. Raises InputError that names the machines without the folder.
    """
    others = _other_nodes()
    if not others:
        return
    print(f"{folder} must be a folder that all machines share: {len(others) + 1} of them now", file=sys.stderr)
    probe = folder / f".probe-{uuid.uuid4().hex}"
    probe.write_bytes(b"")
    try:
        blind = _without(others, probe)
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    if blind:
        raise InputError(f"{folder} is not shared: {', '.join(sorted(blind))} does not see what is written here")


def require_folder(folder: Path) -> None:
    """Raises InputError, naming this machine, where the folder that the driver made is not there."""
    if not folder.is_dir():
        import ray.util

        machine = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        raise InputError(f"{folder} is not on {machine}: the storage must be a folder that all machines share")


def _other_nodes() -> dict[str, str]:
    """Addresses of the machines but this one, by Ray's id of each."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"]: node["NodeManagerAddress"] for node in nodes if node["Alive"] and node["NodeID"] != here}


def _without(nodes: dict[str, str], probe: Path) -> set[str]:
    """Addresses of the nodes on which `probe` does not turn up."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, max_retries=0)(_turns_up)
    asked: dict[Any, str] = {
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(str(probe)): address
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


def _turns_up(path: str) -> bool:
    end = time.monotonic() + LOOK_SECONDS
    while not Path(path).exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True
