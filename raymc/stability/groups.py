"""The seeds of several configurations as one queue, so that no slot idles while any of them has a seed to run."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

from raymc.errors import InputError
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

    def tracker(self, tracking_uri: str) -> StudyTracker:
        """Its run in MLflow, begun or gone on with."""
        own = self.configuration
        tags = {"raymc.kind": "stability", "raymc.smoke": own.smoke}
        names = {"study": self.title, "space": own.space.name, "tracking_uri": tracking_uri}
        return StudyTracker(self.folder, **names, params=own.settings, tags=tags)

    def log_statistics(self, tracker: StudyTracker) -> None:
        """What its seeds say, named after MLflow's way: `acc_mean`, `pairwise_ari_min`, `collapsed_share`."""
        rows = ended_seeds(self.folder)
        found = seed_statistics(seeds_folder(self.folder), rows)
        named = {name: of for name, of in found.items() if isinstance(of, dict)}
        tracker.log_statistics(named | {"collapsed": {"share": found.get("collapsed_share", 0.0)}}, step=len(rows))

    def training(self, request: StabilityRequest, slots: Slots) -> tuple[Plan, TrainSeed]:
        """What the process of one of its seeds has to know."""
        mirror = mirror_of(request.storage, self.folder)
        own, needs = self.configuration, needs_of(self.configuration.space)
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


def make_folder(folder: Path, new: bool = False) -> Path:
    """The folder itself. Raises InputError where it cannot be made, or, `new`, is there already."""
    try:
        folder.mkdir(parents=True, exist_ok=not new)
    except FileExistsError as error:
        raise InputError(f"{folder} exists: another run began in the same second; start again") from error
    except OSError as error:
        raise InputError(f"--storage: {folder} cannot be written: {error.strerror}") from error
    return folder


def seeds_missing(request: StabilityRequest, group: SeedGroup) -> list[int]:
    """The seeds that are to be run: at most these, since of an object store this is known when the group begins."""
    return list(group.seeds) if is_uri(request.storage) else group.missing


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
        in_turn: bool,
        on_end: Callable[[SeedGroup], object],
    ) -> None:
        self.request, self.tracking_uri, self.in_turn, self.on_end = request, tracking_uri, in_turn, on_end
        self.skipped: dict[str, str] = {}
        self._groups = {group.name: group for group in groups}
        self._left = {group.name: len(seeds_missing(request, group)) for group in groups}
        self._begun: dict[str, tuple[ExitStack, Work]] = {}
        self._handed_out: Counter[str] = Counter()
        self._in_flight: list[Unit] = []
        self._answers = True

    def next(self) -> Unit | None:
        while names := [name for name in self._groups if self._left[name]]:
            name = min(names, key=lambda one: self._handed_out[one]) if self.in_turn else names[0]
            if name not in self._begun:
                self._begin(name)
            elif (unit := self._work(name).next()) is not None:
                self._in_flight.append(replace(unit, configuration=name))
                self._handed_out[name] += 1
                self._left[name] = self._work(name).left
                return self._in_flight[-1]
        return None

    def heard(self, unit: Unit, row: Mapping[str, Any]) -> None:
        self._work(unit.configuration).heard(unit, row)

    def ended(self, unit: Unit, error: str | None = None) -> Row:
        record = self._work(unit.configuration).ended(unit, error)
        self._in_flight.remove(unit)
        self._end_if_over(unit.configuration)
        return record

    @property
    def left(self) -> int:
        return sum(self._left[name] for name in self._groups)

    def _work(self, name: str) -> Work:
        return self._begun[name][1]

    def _busy(self) -> set[int]:
        """What one configuration computes for a seed may be what another needs for it."""
        return {unit.seeds[0] for unit in self._in_flight} if self.in_turn else set()

    def _begin(self, name: str) -> None:
        stack = ExitStack()
        try:
            work = stack.enter_context(self._at_work(self._groups[name]))
        except (Skipped, Busy) as error:
            self.skipped[name] = "another process is running it" if isinstance(error, Busy) else str(error)
            print(f"{name} skipped: {self.skipped[name]}".lstrip(), file=sys.stderr, flush=True)
            del self._groups[name]
            return
        self._begun[name], self._left[name] = (stack, work), work.left
        self._end_if_over(name)  # another process may have run what was missing

    def _end_if_over(self, name: str) -> None:
        if not self._left[name] and not any(unit.configuration == name for unit in self._in_flight):
            self._begun[name][0].close()
            del self._begun[name]
            self.on_end(self._groups.pop(name))

    @contextmanager
    def _at_work(self, group: SeedGroup) -> Iterator[Work]:
        with locked(group.folder), driving(self.request.storage, group.folder) as mirror:
            seeds = group.begin()
            for row in ended_seeds(group.folder):
                if row["seed"] in group.seeds and row["state"] in RETRIED:
                    records.seed_folder(group.folder, "stability", 0, row["seed"]).joinpath("result.json").unlink()
            params = {0: group.configuration.params}
            queue = SeedQueue(group.folder, "stability", group.objective, params, seeds, self._busy)
            tracker = group.tracker(self.tracking_uri)
            tracker.start()
            try:
                yield Mirrored(queue, mirror) if mirror else queue
                group.log_statistics(tracker)
            except BaseException as error:
                tracker.__exit__(type(error), error, None)
                raise
            # The driver waits once for an MLflow that does not answer, not once for each group.
            self._answers = tracker.close(timeout=CLOSE_SECONDS if self._answers else 0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        for stack, _ in self._begun.values():
            stack.__exit__(*error)


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
            by_needs.setdefault(needs_of(group.configuration.space), []).append(group)
    skipped: dict[str, str] = {}
    with ExitStack() as stack:
        if by_needs:
            quiet_environment()
            stack.enter_context(ray_session(request.address, dashboard=any(needs.workers > 1 for needs in by_needs)))
        for needs, some in by_needs.items():
            with GroupQueue(request, tracking_uri, some, in_turn, on_end) as queue:
                place = Place(needs, request.concurrent, request.address)
                run_on_ray(queue, partial(_trainings, request, some), place, title)
            skipped |= queue.skipped
    return skipped


def _trainings(request: StabilityRequest, groups: Sequence[SeedGroup], slots: Slots) -> Trainings:
    return {group.name: group.training(request, slots) for group in groups}
