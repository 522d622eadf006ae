"""A configuration on seeds, with its folder, its run in MLflow, and what one of its trainings is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from raymc.errors import InputError, unwritable_storage
from raymc.execution.driver import Slots
from raymc.execution.needs import needs_of
from raymc.execution.requirements import Requirements
from raymc.execution.train_seed import TrainSeed
from raymc.execution.trial import Plan
from raymc.metrics.names import LABEL_FREE_METRICS, LABEL_METRICS
from raymc.stability.configurations import Configuration
from raymc.stability.reader import ended_seeds, seed_statistics
from raymc.stability.request import StabilityRequest
from raymc.storage.mirror import mirror_of
from raymc.storage.objects import is_uri
from raymc.study.objective import Objective
from raymc.study.records import FINISHED
from raymc.tracking.study import StudyTracker

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
        requirements: what every machine must have.
        begin: called when the folder is locked, before the first seed is handed out; returns all seeds of the folder's
            record. May raise Skipped.
    """

    name: str
    title: str
    configuration: Configuration
    folder: Path
    seeds: tuple[int, ...]
    labelled: bool
    requirements: Requirements
    begin: Callable[[], tuple[int, ...]]

    @property
    def missing(self) -> list[int]:
        """The seeds that have no result, or one that says nothing of the configuration."""
        ended = {run.seed for run in ended_seeds(self.folder) if run.state not in RETRIED}
        return [seed for seed in self.seeds if seed not in ended]

    @cached_property
    def objective(self) -> Objective:
        """What every seed must have; scores of a group are of no use here."""
        known = (*LABEL_FREE_METRICS, *(LABEL_METRICS if self.labelled else ()))
        goal = self.configuration.space.objective
        metric = goal.metric if goal.metric in known else LABEL_FREE_METRICS[0]
        return Objective(metric, gates=Objective.of(goal.model_dump(), self.configuration.smoke).gates)

    def tracker(self, tracking_uri: str) -> StudyTracker:
        """Its run in MLflow, begun or gone on with."""
        own = self.configuration
        tags = {"raymc.kind": "stability", "raymc.smoke": own.smoke}
        names = {"study": self.title, "space": own.space.name, "tracking_uri": tracking_uri}
        return StudyTracker(self.folder, **names, params=own.settings, tags=tags)

    def log_statistics(self, tracker: StudyTracker) -> None:
        """What its seeds say, named after MLflow's way: `acc_mean`, `pairwise_ari_min`, `collapsed_share`."""
        seeds = ended_seeds(self.folder)
        found = seed_statistics(seeds)
        named = {name: of for name, of in found.items() if isinstance(of, dict)}
        named |= {"collapsed": {"share": found.get("collapsed_share", 0.0)}}
        # One that is tried again changes what had ended before, and MLflow takes no step twice.
        tracker.log_statistics(named, step=sum(run.state == FINISHED for run in seeds))

    def training(self, request: StabilityRequest, slots: Slots) -> tuple[Plan, TrainSeed]:
        """What the process of one of its seeds has to know."""
        mirror = mirror_of(request.storage, self.folder)
        own, needs = self.configuration, needs_of(self.configuration.space)
        plan = Plan(
            self.folder,
            self.objective,
            uri=mirror.uri if mirror else None,
            resources=slots.resources(needs.workers),
            stage_resources={name: slots.stages[name].resources(of.workers) for name, of in needs.stages},
        )
        training = TrainSeed(
            own.space,
            request.storage,
            request.data,
            own.base_seed,
            own.seeds_from,
            own.smoke,
            keep_rows_of="stability" if request.keep_rows else "",
            requirements=self.requirements,
        )
        return plan, training.on(slots)


def make_folder(folder: Path, new: bool = False) -> Path:
    """The folder itself. Raises InputError where it cannot be made, or, `new`, is there already."""
    try:
        folder.mkdir(parents=True, exist_ok=not new)
    except FileExistsError as error:
        raise InputError(f"{folder} exists: another run began in the same second; start again") from error
    except OSError as error:
        raise unwritable_storage(folder, error) from error
    return folder


def seeds_missing(request: StabilityRequest, group: SeedGroup) -> list[int]:
    """The seeds that are to be run: at most these, since of an object store this is known when the group begins."""
    return list(group.seeds) if is_uri(request.storage) else group.missing
