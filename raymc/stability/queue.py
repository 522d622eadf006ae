"""The seeds of several configurations as one queue, so that no slot idles while any of them has a seed to run."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Self

from raymc.execution.cluster import ray_session
from raymc.execution.driver import Place, Slots, Trainings, quiet_environment, run_on_ray
from raymc.execution.needs import Needs, needs_of
from raymc.execution.remote import driving, shared
from raymc.stability.reader import ended_seeds
from raymc.stability.request import StabilityRequest
from raymc.stability.seed_group import RETRIED, SeedGroup, Skipped, seeds_missing
from raymc.stability.stages import GroupStages
from raymc.study.folder import Busy, attended, locked
from raymc.study.records import Record, Task
from raymc.study.seed_queue import SeedQueue, Work
from raymc.study.stage_queue import StageQueue
from raymc.tracking.study import CLOSE_SECONDS


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
        self._in_flight: list[Task] = []
        self._answers = True

    def next(self) -> Task | None:
        while names := [name for name in self._groups if self._left[name]]:
            name = min(names, key=lambda one: self._handed_out[one]) if self.in_turn else names[0]
            if name not in self._begun:
                self._begin(name)
            elif (task := self._work(name).next()) is not None:
                self._in_flight.append(replace(task, configuration=name))
                self._handed_out[name] += 1
                self._left[name] = self._work(name).left
                return self._in_flight[-1]
        return None

    def on_report(self, task: Task, row: Mapping[str, Any]) -> None:
        self._work(task.configuration).on_report(task, row)

    def ended(self, task: Task, error: str | None = None) -> Record:
        record = self._work(task.configuration).ended(task, error)
        self._in_flight.remove(task)
        self._end_if_over(task.configuration)
        return record

    @property
    def left(self) -> int:
        return sum(self._left[name] for name in self._groups)

    def _work(self, name: str) -> Work:
        return self._begun[name][1]

    def _busy(self) -> set[int]:
        """What one configuration computes for a seed may be what another needs for it."""
        return {task.seeds[0] for task in self._in_flight} if self.in_turn else set()

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
        if not self._left[name] and not any(task.configuration == name for task in self._in_flight):
            self._begun[name][0].close()
            del self._begun[name]
            self.on_end(self._groups.pop(name))

    @contextmanager
    def _at_work(self, group: SeedGroup) -> Iterator[Work]:
        storage, folder = self.request.storage, group.folder
        with locked(folder), driving(storage, folder) as mirror, attended(folder):
            seeds = group.begin()
            for run in ended_seeds(group.folder):
                if run.seed in group.seeds and run.state in RETRIED:
                    path = run.folder / "result.json"
                    mirror.remove(path.relative_to(group.folder).as_posix()) if mirror else path.unlink()
            params = {0: group.configuration.params}
            queue = SeedQueue(group.folder, "stability", group.objective, params, seeds, self._busy)
            tracker = group.tracker(self.tracking_uri)
            tracker.start()
            try:
                with shared(queue, mirror) as work:
                    yield work
                group.log_statistics(tracker)
            except BaseException as error:
                tracker.__exit__(type(error), error, None)
                raise
            # The driver waits once for an MLflow that does not answer, not once for each group.
            self._answers = tracker.close(timeout=CLOSE_SECONDS if self._answers else 0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        with_all = ExitStack()  # one that cannot be given back keeps none of the others
        for stack, _ in self._begun.values():
            with_all.push(stack.__exit__)
        with_all.__exit__(*error)


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
            stack.enter_context(ray_session(request.address, dashboard=any(needs.several for needs in by_needs)))
        for needs, some in by_needs.items():
            with GroupQueue(request, tracking_uri, some, in_turn, on_end) as queue:
                place = Place(needs, request.concurrent, request.address)
                needed = GroupStages(request, some)
                work = needed.queue(queue, {group.name: group for group in some}) if needed else None
                run_on_ray(work or queue, partial(_trainings, request, some, needed, work), place, title)
            skipped |= queue.skipped
    return skipped


def _trainings(
    request: StabilityRequest,
    groups: Sequence[SeedGroup],
    needed: GroupStages,
    work: StageQueue | None,
    slots: Slots,
) -> Trainings:
    needed.on(slots)
    if work is not None:
        work.ahead = slots.count + len(groups)
    return {group.name: group.training(request, slots) for group in groups}
