"""What the command line of `stability` asks for, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from raymc.config import Value
from raymc.study.records import Row

SEEDS = 10


@dataclass(frozen=True)
class StabilityRequest:
    """What the command line of `stability` asks for.

    `target` is a space or a study, with `vs` beside it, or a table, of which `only` picks cells. `seeds` None: ten, of
    a table as many as it says; `first_seed` None: 0, with a study one that it has not used. `resume`: begin none anew.
    `keep_rows`: every seed leaves `labels.csv`, its embedding and `model/`. `machines`: those of the cluster at
    `address`, by `check_address`; None without one.
    """

    target: str
    overrides: Mapping[str, Value]
    storage: str
    data: str
    seeds: int | None = None
    first_seed: int | None = None
    concurrent: int | None = None
    address: str | None = None
    tracking_uri: str | None = None
    smoke: bool = False
    vs: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    resume: bool = False
    keep_rows: bool = False
    machines: Sequence[Row] | None = None


def seeds_to_run(request: StabilityRequest, used: Iterable[int] = (), count: int = SEEDS) -> tuple[int, ...]:
    """As many as asked for (else `count`), from the first one asked for on, else from the first after all `used`."""
    first = request.first_seed if request.first_seed is not None else max(used, default=-1) + 1
    return tuple(range(first, first + (request.seeds or count)))
