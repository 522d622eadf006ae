"""What a training takes of machines; nothing here imports torch or Ray, so that a refusal need not wait for them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raymc.space.space import Space


@dataclass(frozen=True)
class Needs:
    """What one training takes.

    `min_workers` below `workers` lets it start, and go on, with as few as that where machines are missing. Ray adds the
    others within a minute or two of their return, from the last checkpoint. `stages` are what stages take that are
    trained by themselves, before the trainings that share them, where that is something else.
    """

    workers: int = 1
    gpus_per_worker: float = 0.0
    cpus_per_worker: float = 1.0
    min_workers: int | None = None
    stages: tuple[tuple[str, Needs], ...] = ()

    @property
    def named(self) -> dict[str, Needs]:
        """Those of a training and those of each such stage, by the key of a space that says the workers."""
        return {"workers": self} | {f"resources.{name}.workers": own for name, own in self.stages}

    @property
    def several(self) -> bool:
        """Whether anything is trained by Ray Train."""
        return self.workers > 1 or any(needs.several for _, needs in self.stages)

    @property
    def each(self) -> dict[str, float]:
        """What Ray reserves for a worker."""
        return {"CPU": self.cpus_per_worker} | ({"GPU": self.gpus_per_worker} if self.gpus_per_worker else {})

    @property
    def least(self) -> int:
        """The workers that it takes to begin."""
        return self.workers if self.min_workers is None else min(self.min_workers, self.workers)

    @property
    def backend(self) -> str:
        """NCCL on whole GPUs; gloo on CPUs and where workers share a GPU, which NCCL refuses."""
        return "nccl" if self.gpus_per_worker >= 1 else "gloo"


def needs_of(space: Space) -> Needs:
    """What one training of the space takes."""
    one = space.resources
    needs = Needs(space.config().workers, one.gpus_per_worker, one.cpus_per_worker, one.min_workers)
    own = {name: given.model_dump(exclude_none=True) for name, given in one.stages.items()}
    stages = {name: replace(needs, **{"workers": 1, "min_workers": None, **given}) for name, given in own.items()}
    return replace(needs, stages=tuple(stages.items()))
