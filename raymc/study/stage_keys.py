"""Which stages a task needs before it, by their keys, worked out where no stage is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from raymc.config import Value
from raymc.datasets import Dataset
from raymc.methods import METHODS
from raymc.space.shared import SharedStage
from raymc.space.space import Space
from raymc.study.earlier import stage_keys
from raymc.study.records import Row, Task

OF_SAMPLES = ("n_samples", "scaling")
"""Bare keys that decide which samples there are."""


@dataclass(frozen=True)
class Needed:
    """A stage of one seed of a task, and what to train it by: of `params` those on which it hangs."""

    stage: str
    key: str
    params: Mapping[str, Value]
    seed: int
    common: bool


class StageKeys:
    """The shared stages of a task: a row for each seed, in the order in which they are trained.

    Args:
        load: the samples at a point of the space; called once for all points that have the same.

    Attributes:
        on_gpu: whether trainings are on a GPU, whose results are other ones under `precision: auto`.
    """

    def __init__(
        self,
        space: Space,
        manifest: Row,
        shared: Sequence[SharedStage],
        load: Callable[[Mapping[str, Value]], Dataset],
    ) -> None:
        self.space, self.manifest, self.shared, self.on_gpu = space, manifest, tuple(shared), False
        self._load, self._samples = load, dict[tuple[Value, ...], Dataset]()
        self._found: dict[tuple[object, ...], list[Needed]] = {}

    def __call__(self, task: Task) -> list[list[Needed]]:
        return [self._of(task.params, seed) for seed in task.seeds]

    def _of(self, params: Mapping[str, Value], seed: int) -> list[Needed]:
        deciding = frozenset().union(*(one.keys for one in self.shared))
        point = tuple(sorted((key, value) for key, value in params.items() if key in deciding))
        if (seed, point) not in self._found:
            self._found[seed, point] = self._work_out(dict(point), seed)
        return self._found[seed, point]

    def _work_out(self, params: dict[str, Value], seed: int) -> list[Needed]:
        precision = "bfloat16" if self.on_gpu and METHODS[self.space.method].autocasts else ""
        data = self._data(params)
        keys = stage_keys(self.space, self.manifest, params, seed, data, precision)
        stages = self.space.config(params=params).stages
        return [
            Needed(one.name, keys[one.name], {k: v for k, v in params.items() if k in one.keys}, seed, one.common)
            for one in self.shared
            if stages[one.name].epochs
        ]

    def _data(self, params: Mapping[str, Value]) -> Dataset:
        samples = tuple(params.get(key) for key in OF_SAMPLES)
        if samples not in self._samples:
            self._samples[samples] = self._facts(self._load(params))
        return self._samples[samples]

    def _facts(self, data: Dataset) -> Dataset:
        """The samples without all but one of them: what names a stage is their fingerprint and shape."""
        if self.manifest["smoke"]:  # few, and they are cut once more
            return data
        return replace(data, train=replace(data.train, x=data.train.x[:1].clone(), y=None), test=None)
