"""Which stages several configurations of a search have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass

from raymc.methods import METHODS
from raymc.methods.base import Stage
from raymc.space.seeds import OF_CLUSTERS
from raymc.space.space import Space


@dataclass(frozen=True)
class SharedStage:
    """A stage that is trained before the trainings that need it.

    Attributes:
        keys: the searched keys on which its result hangs.
    """

    name: str
    keys: frozenset[str]

    @property
    def common(self) -> bool:
        """Whether every configuration has the same."""
        return not self.keys


def shared_stages(space: Space, trials: int) -> list[SharedStage]:
    """The stages, in their order, of which there are fewer different ones than `trials`, and those with resources of
    their own. The last stage is none of them: its result is the training's.
    """
    found = []
    for stage in METHODS[space.method].stages(space.config())[:-1]:
        keys = {key for key in space.params if _decides(key, stage, list(space.stage_settings))}
        different = math.prod(space.params[key].count or math.inf for key in keys)
        if different < trials or stage.name in space.resources.stages:
            found.append(SharedStage(stage.name, frozenset(keys)))
    return found


def _decides(key: str, stage: Stage, order: list[str]) -> bool:
    """Whether the result of a stage, or of one before it, hangs on a key; in doubt it does."""
    part, dot, _ = key.partition(".")
    if not dot and key in OF_CLUSTERS:
        return stage.clusters
    return part not in order or order.index(part) <= order.index(stage.name)
