"""Section `resources` of a space file: what one training takes, and what stages that are trained on their own take."""

from __future__ import annotations

from typing import Self

from pydantic import ConfigDict, Field, model_validator

from raymc.config import Config, nearest
from raymc.errors import InputError
from raymc.methods.base import Method
from raymc.space.section import Section
from raymc.validation import Number, wrong


class StageResources(Section):
    """What one stage takes that is trained once, before the trials that need it; what is left out: as a trial."""

    workers: int = Field(default=1, description="data-parallel workers of the stage", ge=1)
    min_workers: int | None = Field(
        default=None, description="workers with which it goes on while machines are missing; left out: all", ge=1
    )
    gpus_per_worker: Number | None = Field(default=None, description="GPUs of a worker; left out: a trial's", ge=0)
    cpus_per_worker: Number | None = Field(default=None, description="CPU cores of a worker; left out: a trial's", gt=0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check(self)
        return self


class Resources(Section):
    """What one training takes; under a stage's name what that stage takes, which is trained before the trials then."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, StageResources] = Field(init=False)

    workers: int = Field(default=1, description="data-parallel workers of a training", ge=1)
    min_workers: int | None = Field(
        default=None, description="workers with which it goes on while machines are missing; left out: all", ge=1
    )
    gpus_per_worker: Number = Field(default=0.0, description="may be a fraction: several trials share a GPU", ge=0)
    cpus_per_worker: Number = Field(default=1.0, description="CPU cores of a worker", gt=0)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, content: object) -> object:
        """An unknown key is a stage's where it holds a mapping; which stages there are, the method says."""
        if isinstance(content, dict):
            for key, value in content.items():
                if key not in cls.model_fields and not isinstance(value, dict | StageResources):
                    near = nearest(str(key), cls.model_fields) or "; what a stage takes is a mapping"
                    raise wrong(f"unknown key {key}{near}")
        return content

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check(self)
        return self

    @property
    def stages(self) -> dict[str, StageResources]:
        """What stages take that are trained on their own."""
        return dict(self.__pydantic_extra__ or {})


def _check(taken: StageResources | Resources) -> None:
    if taken.min_workers is not None and taken.min_workers > taken.workers:
        raise wrong(f"min_workers {taken.min_workers} is above workers {taken.workers}")
    gpus = taken.gpus_per_worker
    if gpus and gpus > 1 and gpus != int(gpus):
        raise wrong(f"gpus_per_worker {gpus:g}: a part of a GPU is below 1, and more than one are whole ones")


def check_stages(resources: Resources, method: Method, config: Config) -> None:
    """Raises InputError for a stage that no training could have in common, and one that trials would not find."""
    before = [stage.name for stage in method.stages(config)[:-1]]
    for name, own in resources.stages.items():
        if name not in before:
            known = f"known: {', '.join(before)}" if before else f"{method.name} has a single stage"
            why = "it is the last one, which every trial trains" if name in method.stage_settings else "unknown"
            raise InputError(f"resources.{name}: {why}{nearest(name, before)} ({known})")
        gpus = resources.gpus_per_worker if own.gpus_per_worker is None else own.gpus_per_worker
        if bool(gpus) != bool(resources.gpus_per_worker) and config.precision == "auto" and method.autocasts:
            raise InputError(
                f"resources.{name}.gpus_per_worker {gpus:g}, and trials have {resources.gpus_per_worker:g}: under "
                "precision: auto a GPU and a CPU give different results; fix precision"
            )
