"""Whether a Ray cluster answers at an address: asked before anything is left that a search would need."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from typing import Any

from raymc.errors import InputError
from raymc.execution.nodes import machines
from raymc.masking import masked

CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 15.0

ADDRESS = re.compile(r"(ray://)?(?P<host>\[[\da-fA-F:.]+\]|[\w.-]+):(?P<port>\d{1,5})")

JOIN = """import json, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=40)
print(json.dumps([node for node in ray.nodes() if node["Alive"]], default=str))"""


def check_address(address: str | None) -> list[dict[str, Any]] | None:
    """The machines of the Ray cluster at `address`, as `ray.nodes` gives them; of None, which asks for none, None.

    Raises InputError, in less than half a minute, where no cluster answers.

    Ray would try for minutes, with lines of its own that only its process's end keeps back: so another one tries.
    """
    if address is None:
        return None
    import ray

    if ray.is_initialized():
        return machines()
    if address != "auto":
        _connect(address)
    environment = {"RAY_USAGE_STATS_ENABLED": "0", **os.environ}
    try:
        joining = subprocess.run(
            [sys.executable, "-c", JOIN, address],
            env=environment,
            capture_output=True,
            timeout=ANSWER_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise _nobody(address, _reason(error.stderr or b"nothing came of it in time")) from error
    if joining.returncode:
        raise _nobody(address, _reason(joining.stderr))
    found: list[dict[str, Any]] = json.loads(joining.stdout.splitlines()[-1])
    return found


def _connect(address: str) -> None:
    """Raises InputError where nothing at all listens, which is known at once."""
    found = ADDRESS.fullmatch(address)
    if found is None:
        raise InputError(f"--address {address}: write HOST:PORT, or auto for the cluster that this machine is in")
    import ray.util

    host, own = found["host"].strip("[]"), ("127.0.0.1", "localhost")
    hosts = [host, ray.util.get_node_ip_address()] if host in own else [host]  # type: ignore[no-untyped-call]
    for last, name in enumerate(hosts, 1 - len(hosts)):
        try:
            socket.create_connection((name, int(found["port"])), CONNECT_SECONDS).close()
            return
        except (OSError, OverflowError) as error:
            if last == 0:
                raise _nobody(address, getattr(error, "strerror", None) or str(error)) from error


def _nobody(address: str, reason: str) -> InputError:
    return InputError(f"--address {address}: no Ray cluster answers there ({reason})")


def _reason(text: bytes) -> str:
    """The last line of a trace or a log, without what stands before its words, in a length that fits a line."""
    lines = text.decode(errors="replace").strip().splitlines() or ["Ray ended without a word"]
    words = masked(re.sub(r"^(\[.*?\] \S+: |[\w.]+(Error|Exception): )", "", lines[-1]))
    return words if len(words) <= 200 else f"{words[:199]}…"
