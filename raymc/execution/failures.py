"""How often a training may fail: as often as its machine is lost, and a few times on machines that live on; and why."""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from typing import NamedTuple

from raymc.execution.nodes import machines

LIMIT = 3
"""Failures on living machines after which another one is the last."""

SETTLE_SECONDS = 30.0
"""Ray notices within that time that a machine is gone; its processes are gone at once."""

ERROR = re.compile(r"[\w.]+(Error|Exception): ")
"""A line of a trace that names an error; Ray ends it with words of its own."""
FULL = re.compile(r"due to the node running low on memory.* was (\S+ used / \S+) limit")
FULL_THERE = re.compile(r"due to the node running low on memory.*\(IP: (\S+), ID: (\w+)\)")


class Failure(NamedTuple):
    """One that happened `at` a time of the monotonic clock, to processes on `nodes`.

    `vague` says that the error is also what is seen when a machine vanishes.
    """

    nodes: Collection[str]
    at: float
    vague: bool


class Failures:
    """Those of one training."""

    def __init__(self) -> None:
        self._found: list[Failure] = []

    def add(self, nodes: Collection[str], vague: bool) -> None:
        """Its processes on the machines with these ids of Ray failed."""
        self._found.append(Failure(nodes, time.monotonic(), vague))

    @property
    def count(self) -> int:
        return len(self._found)

    def too_many(self, alive: Collection[str]) -> bool:
        """Whether it has failed too often, where these machines are alive now. Lost ones cost nothing."""
        settled = time.monotonic() - SETTLE_SECONDS
        on_living = (one for one in self._found if not one.vague or one.at < settled)
        return sum(all(node in alive for node in one.nodes) for one in on_living) > LIMIT


def dead_nodes() -> set[str]:
    """Ray's ids of the machines that were in its cluster and are gone."""
    return {node["NodeID"] for node in machines() if not node["Alive"]}


def alive_nodes() -> dict[str, dict[str, float]]:
    """The resources (`CPU`, `GPU`, …) of each machine that Ray believes alive, by Ray's id of it."""
    return {node["NodeID"]: dict(node["Resources"]) for node in machines() if node["Alive"]}


def reason_of(text: str) -> str:
    """Why a process failed, in one line, of what Ray wrote on it: its last error, or that memory was full."""
    if full := FULL.search(text):
        return f"the memory of its machine is full ({full[1]}), and Ray ended it"
    lines = text.splitlines() or ["lost"]
    return next((line for line in reversed(lines) if ERROR.match(line)), lines[-1].strip())


def full_machine(text: str) -> dict[str, str] | None:
    """Of a process that was ended for want of memory, the `machine` and the `node`, its address and Ray's id."""
    full = FULL_THERE.search(text)
    return None if full is None else {"machine": full[1], "node": full[2]}
