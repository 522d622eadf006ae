"""The seeds of several configurations as one queue, so that no slot idles while any of them has a seed to run."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from raymc.metrics.names import LABEL_FREE_METRICS, LABEL_METRICS
from raymc.scale.local import ray_session
from raymc.scale.worker import Needs
from raymc.search import records
from raymc.search.body import TrainSeed
from raymc.search.driver import Place, Slots, Trainings, quiet_environment, run_on_ray
from raymc.search.judge import Judge, judge_of
from raymc.search.ledger import SeedQueue, Work
from raymc.search.mirrored import Mirrored, driving
from raymc.search.records import Row, Unit
from raymc.search.sitting import needs_of
from raymc.search.study import Busy, locked
from raymc.search.unit import Plan
from raymc.stability.configurations import Configuration
from raymc.stability.reader import ended_seeds, seed_statistics, seeds_folder
from raymc.stability.request import StabilityRequest
from raymc.tracking.study import CLOSE_SECONDS, StudyTracker
from raymc.training.mirror import mirror_of
from raymc.training.objects import is_uri

RETRIED = ("failed", "out_of_memory")
"""States of a seed that say nothing of the configuration: it is run again."""


class Skipped(Exception):
    """Why a group is not run now."""


@dataclass(frozen=True)
class SeedGroup:
    """A configuration on `seeds`, its results in a folder of its own.

    Args:
        name: of it among the others; empty where there are none.
        title: what MLflow calls it.
        begin: called when the folder is locked, before the first seed is handed out; returns all seeds of the folder's
            record. May raise Skipped.
    """

    name: str
    title: str
    configuration: Configuration
    folder: Path
    seeds: tuple[int, ...]
    labelled: bool
    begin: Callable[[], tuple[int, ...]]

    @property
    def missing(self) -> list[int]:
        """The seeds that have no result, or one that says nothing of the configuration."""
        ended = {row["seed"] for row in ended_seeds(self.folder) if row["state"] not in RETRIED}
        return [seed for seed in self.seeds if seed not in ended]

    @cached_property
    def objective(self) -> Judge:
        """What every seed must have; scores of a group are of no use here."""
        known = (*LABEL_FREE_METRICS, *(LABEL_METRICS if self.labelled else ()))
        goal = self.configuration.space.objective
        metric = goal.metric if goal.metric in known else LABEL_FREE_METRICS[0]
        return Judge(metric, gates=judge_of(goal.model_dump(), self.configuration.smoke).gates)

    @property
    def needs(self) -> Needs:
        return needs_of(self.configuration.space)

    def tracker(self, tracking_uri: str) -> StudyTracker:
        """Its run in MLflow, begun or gone on with."""
        own = self.configuration
        tags = {"raymc.kind": "stability", "raymc.smoke": own.smoke}
        return StudyTracker(
            self.folder,
            study=self.title,
            space=own.space.name,
            tracking_uri=tracking_uri,
            params=own.settings,
            tags=tags,
        )

    def log_statistics(self, tracker: StudyTracker) -> None:
        """What its seeds say, named after MLflow's way: `acc_mean`, `pairwise_ari_min`, `collapsed_share`."""
        rows = ended_seeds(self.folder)
        found = seed_statistics(seeds_folder(self.folder), rows)
        named = {name: of for name, of in found.items() if isinstance(of, dict)}
        tracker.log_statistics(named | {"collapsed": {"share": found.get("collapsed_share", 0.0)}}, step=len(rows))

    def training(self, request: StabilityRequest, slots: Slots) -> tuple[Plan, TrainSeed]:
        """What the process of one of its seeds has to know."""
        mirror = mirror_of(request.storage, self.folder)
        own, needs = self.configuration, self.needs
        return Plan(self.folder, self.objective, uri=mirror.uri if mirror else None), TrainSeed(
            space=own.space,
            storage=request.storage,
            data=request.data,
            base_seed=own.base_seed,
            seeds_from=own.seeds_from,
            smoke=own.smoke,
            workers=needs.workers,
            min_workers=needs.min_workers,
            gpus=slots.gpus_per_worker,
            cpus=slots.cpus_per_worker,
        )


def seeds_missing(request: StabilityRequest, group: SeedGroup) -> list[int]:
    """The seeds that are to be run: at most these, since of an object store this is known when the group begins."""
    return list(group.seeds) if is_uri(request.storage) else group.missing


@dataclass
class _Begun:
    """A group at work: what is left of it, and the seeds that are in flight."""

    queue: SeedQueue
    work: Work
    running: set[int] = field(default_factory=set)
    stack: ExitStack = field(default_factory=ExitStack)


class GroupQueue:
    """A `Work` of the seeds of all groups. A group is locked and tracked from its first seed to its last.

    Args:
        in_turn: groups get a seed each in turn, so that an interrupted comparison has about as many of each; else one
            group comes after the other, so that there are whole ones early.
        on_end: called with a group when its last seed has ended.

    Leave it as a context manager: that gives back the groups that an exception interrupts.
    """

    def __init__(
        self,
        request: StabilityRequest,
        tracking_uri: str,
        groups: Sequence[SeedGroup],
        in_turn: bool = True,
        on_end: Callable[[SeedGroup], object] = lambda group: None,
    ) -> None:
        self.request, self.tracking_uri, self.in_turn, self.on_end = request, tracking_uri, in_turn, on_end
        self.skipped: dict[str, str] = {}
        self._groups = {group.name: group for group in groups}
        self._unbegun = {group.name: len(seeds_missing(request, group)) for group in groups}
        self._begun: dict[str, _Begun] = {}
        self._handed_out: Counter[str] = Counter()
        self._answers = True

    def next(self) -> Unit | None:
        while names := [name for name in self._groups if self._left(name)]:
            name = min(names, key=lambda one: self._handed_out[one]) if self.in_turn else names[0]
            begun = self._begun.get(name) or self._begin(name)
            if begun is None:
                continue
            if self.in_turn:  # another's seed may be computing what the same seed needs here
                begun.queue.put_off({seed for other in self._begun.values() for seed in other.running})
            unit = begun.work.next()
            if unit is not None:
                begun.running.add(unit.seeds[0])
                self._handed_out[name] += 1
                return replace(unit, configuration=name)
        return None

    def heard(self, unit: Unit, row: Any) -> None:
        self._begun[unit.configuration].work.heard(unit, row)

    def ended(self, unit: Unit, error: str | None = None) -> Row:
        begun = self._begun[unit.configuration]
        record = begun.work.ended(unit, error)
        begun.running.discard(unit.seeds[0])
        self._end_if_over(unit.configuration)
        return record

    @property
    def left(self) -> int:
        return sum(map(self._left, self._groups))

    def _left(self, name: str) -> int:
        return self._begun[name].work.left if name in self._begun else self._unbegun[name]

    def _begin(self, name: str) -> _Begun | None:
        stack = ExitStack()
        try:
            queue, work = stack.enter_context(self._at_work(self._groups[name]))
        except (Skipped, Busy) as error:
            self.skipped[name] = "another process is running it" if isinstance(error, Busy) else str(error)
            print(f"{name} skipped: {self.skipped[name]}".lstrip(), file=sys.stderr, flush=True)
            del self._groups[name]
            return None
        self._begun[name] = begun = _Begun(queue, work, stack=stack)
        self._end_if_over(name)  # another process may have run what was missing
        return begun if name in self._begun else None

    def _end_if_over(self, name: str) -> None:
        begun = self._begun[name]
        if not begun.running and not begun.work.left:
            begun.stack.close()
            del self._begun[name]
            self.on_end(self._groups.pop(name))

    @contextmanager
    def _at_work(self, group: SeedGroup) -> Iterator[tuple[SeedQueue, Work]]:
        with locked(group.folder), driving(self.request.storage, group.folder) as mirror:
            seeds = group.begin()
            for row in ended_seeds(group.folder):
                if row["seed"] in group.seeds and row["state"] in RETRIED:
                    records.seed_folder(group.folder, "stability", 0, row["seed"]).joinpath("result.json").unlink()
            params = {0: group.configuration.params}
            queue = SeedQueue(group.folder, "stability", group.objective, params, seeds)
            tracker = group.tracker(self.tracking_uri)
            tracker.start()
            try:
                yield queue, Mirrored(queue, mirror) if mirror else queue
                group.log_statistics(tracker)
            except BaseException as error:
                tracker.__exit__(type(error), error, None)
                raise
            # The driver waits once for an MLflow that does not answer, not once for each group.
            self._answers = tracker.close(timeout=CLOSE_SECONDS if self._answers else 0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for begun in self._begun.values():
            begun.stack.__exit__(kind, error, trace)


def run_groups(
    request: StabilityRequest,
    tracking_uri: str,
    groups: Sequence[SeedGroup],
    title: str,
    *,
    in_turn: bool = True,
    on_end: Callable[[SeedGroup], object] = lambda group: None,
) -> dict[str, str]:
    """Run the missing seeds of all groups; the names of groups that were skipped, each with its reason.

    One queue takes all groups that need the same of a machine.
    """
    by_needs: dict[Needs, list[SeedGroup]] = {}
    for group in groups:
        if seeds_missing(request, group):
            by_needs.setdefault(group.needs, []).append(group)
    skipped: dict[str, str] = {}
    if not by_needs:
        return skipped
    quiet_environment()
    with ray_session(request.address, dashboard=any(needs.workers > 1 for needs in by_needs)):
        for needs, some in by_needs.items():

            def trainings(slots: Slots, some: Sequence[SeedGroup] = some) -> Trainings:
                return {group.name: group.training(request, slots) for group in some}

            with GroupQueue(request, tracking_uri, some, in_turn, on_end) as queue:
                place = Place(needs, request.concurrent, request.address)
                run_on_ray(queue, trainings, place, title)
            skipped |= queue.skipped
    return skipped
