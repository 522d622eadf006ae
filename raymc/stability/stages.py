"""Stages that the seeds of a configuration share, trained once, before the seeds that need them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from raymc.execution.driver import Slots
from raymc.methods import METHODS
from raymc.space.shared import SharedStage
from raymc.stability.request import StabilityRequest
from raymc.stability.seed_group import SeedGroup, seeds_missing
from raymc.storage.objects import is_uri
from raymc.storage.stage_store import Store
from raymc.study.manifest import load_data
from raymc.study.records import Task
from raymc.study.seed_queue import Work
from raymc.study.stage_keys import Needed, StageKeys
from raymc.study.stage_queue import StageQueue


class GroupStages:
    """The stages that tasks of groups need, see `StageQueue`. Samples are read when a task first asks."""

    def __init__(self, request: StabilityRequest, groups: Sequence[SeedGroup]) -> None:
        self.request = request
        self._keys: dict[str, StageKeys] = {}
        for group in groups:
            if shared := shared_by_seeds(group, len(seeds_missing(request, group))):
                own = group.configuration
                seeding = {"seed": own.base_seed, "seeds_from": own.seeds_from, "smoke": own.smoke}
                load = partial(load_data, own.space, request.data, request.storage, own.smoke)
                self._keys[group.name] = StageKeys(own.space, seeding, shared, load)

    def __bool__(self) -> bool:
        """Whether any group shares a stage. In an object store each group has a folder of its own: there none does."""
        return bool(self._keys) and not is_uri(self.request.storage)

    def __call__(self, task: Task) -> list[list[Needed]]:
        keys = self._keys.get(task.configuration)
        rows = keys(task) if keys else []
        # Where such a stage fails, each seed says so: it is what is asked of a configuration, and others go on.
        return [[replace(needed, common=False) for needed in row] for row in rows]

    def queue(self, work: Work, groups: Mapping[str, SeedGroup]) -> StageQueue:
        """The tasks of `work`, and before them the stages that they need."""
        store = Store(self.request.storage, wait=True)
        some = next(iter(groups.values()))
        named = {name for group in groups.values() for name in group.configuration.space.resources.stages}
        return StageQueue(
            work,
            lambda task: groups[task.configuration].folder,
            some.objective,
            self,
            lambda key: store.load(key, mapped=True) is not None,
            frozenset(named),
        )

    def on(self, slots: Slots) -> None:
        """Say what trainings are on."""
        for keys in self._keys.values():
            keys.on_gpu = slots.gpus_per_worker > 0


def shared_by_seeds(group: SeedGroup, seeds: int) -> list[SharedStage]:
    """The stages that several seeds of a group have in common, and those with resources of their own."""
    own = group.configuration
    order = list(own.space.stage_settings)
    found = [
        stage.name
        for stage in METHODS[own.space.method].stages(own.config)[:-1]
        if (seeds > 1 and order.index(stage.name) < order.index(own.seeds_from))
        or stage.name in own.space.resources.stages
    ]
    return [SharedStage(name, frozenset(own.params)) for name in found] if seeds else []
