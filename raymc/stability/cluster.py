"""`raymc cluster DATA`: several methods on a few seeds, one of them chosen without labels, its clusters by sample."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from raymc.bare_keys import cluster_range
from raymc.datasets import Dataset
from raymc.errors import InputError, TrainingError
from raymc.metrics.names import LABEL_METRICS
from raymc.metrics.seeds import summary
from raymc.space.space import Space
from raymc.stability.choice import Candidate, choose, make_candidates
from raymc.stability.configurations import Configuration
from raymc.stability.reader import ended_seeds, seed_statistics
from raymc.stability.request import StabilityRequest
from raymc.stability.runs import StabilityRun, run_configurations
from raymc.stability.side_by_side import Fitting, Source, fitting, space_of
from raymc.study.baseline import clusters_found
from raymc.study.manifest import load_data
from raymc.study.records import FINISHED, Row, SeedRun


@dataclass(frozen=True)
class Count:
    """How many clusters: `n`; where that was looked for, the seeds of MLC by which it was found."""

    n: int
    runs: tuple[SeedRun, ...] = ()


@dataclass(frozen=True)
class Clustering:
    """A run of `cluster` that has ended.

    Attributes:
        data: the datasets' folder.
        runs: the seeds of each method that have ended, by its name, in the order asked for.
        left_out: methods that do not take the data, each with the reason.
        candidates: the methods with a finished seed, `chosen` among them.
    """

    source: Source
    data: str
    space: Space
    dataset: Dataset
    count: Count
    run: StabilityRun
    runs: Mapping[str, tuple[SeedRun, ...]]
    left_out: Mapping[str, str]
    candidates: tuple[Candidate, ...]
    chosen: Candidate
    configurations: Mapping[str, Configuration] = field(default_factory=dict)

    @property
    def seed_run(self) -> SeedRun:
        """The chosen seed of the chosen method."""
        return next(run for run in self.runs[self.chosen.name] if run.seed == self.chosen.seed)

    @property
    def smoke(self) -> bool:
        """Whether every length was shortened."""
        return self.run.groups[0].configuration.smoke

    @property
    def labelled(self) -> bool:
        return self.dataset.train.y is not None

    def rows(self) -> list[Row]:
        """A row for each method: what `--json` prints under `arms`."""
        scores = {one.name: dict(one.scores) for one in self.candidates}
        return [_row(name, runs, scores.get(name, {})) for name, runs in self.runs.items()]


def cluster(request: StabilityRequest, source: Source, methods: Sequence[str], clusters: int | str) -> Clustering:
    """Run `methods` on the data with `clusters`, `auto` or a range.

    What an earlier run of the same words has is not run again. Raises InputError for what is wrong before anything is
    run, and TrainingError where no method came to an end.
    """
    among = cluster_range(clusters)
    first = among[0] if among else int(clusters)
    space = space_of(source, first)
    dataset = load_data(space, request.data, request.storage, request.smoke)
    fits = fitting(methods, source, dataset, first, request.smoke)
    count = _count(request, source, dataset, clusters)
    able = fitting(_names(fits), source, dataset, count.n, request.smoke)
    by = ", ".join(_names(able))
    print(f"clustering {len(dataset.train):,} samples in {count.n} clusters by {by}", file=sys.stderr)
    run = _run(request, f"cluster-{source.name}", able.configurations)
    runs = {group.configuration.name: ended_seeds(group.folder) for group in run.groups}
    found = make_candidates({name: [one for one in some if one.state == FINISHED] for name, some in runs.items()})
    if not found:
        error = next(one.error for some in runs.values() for one in some if one.error)
        raise TrainingError(f"no method came to an end; the first error: {str(error).splitlines()[-1]}")
    left_out = {**fits.left_out, **able.left_out}
    configurations = {one.name: one for one in able.configurations}
    return Clustering(
        source, request.data, space, dataset, count, run, runs, left_out, tuple(found), choose(found), configurations
    )


def _names(fits: Fitting) -> list[str]:
    return [one.name for one in fits.configurations]


def _run(request: StabilityRequest, title: str, configurations: Sequence[Configuration]) -> StabilityRun:
    names = [one.name for one in configurations]
    asked = replace(request, target=names[0], vs=tuple(names[1:]), keep_rows=True)
    return run_configurations(asked, configurations, title)


def _count(request: StabilityRequest, source: Source, dataset: Dataset, clusters: int | str) -> Count:
    """The number of clusters as given, else the median of those that MLC's seeds find by coding length.

    Raises InputError where MLC cannot say it.
    """
    if isinstance(clusters, int):
        return Count(clusters)
    print("looking for the number of clusters: MLC's coding length", file=sys.stderr)
    try:
        fits = fitting(["mlc"], source, dataset, clusters, request.smoke)
    except InputError as error:
        raise InputError(f"--clusters {clusters}: MLC, which finds how many, cannot take the data ({error})") from error
    run = _run(request, f"clusters-of-{source.name}", fits.configurations)
    ended = ended_seeds(run.groups[0].folder)
    n = clusters_found(ended)
    if n is None:
        raise InputError(f"--clusters {clusters}: no seed of MLC came to an end; say how many clusters by --clusters K")
    return Count(n, tuple(one for one in ended if one.state == FINISHED))


def _row(name: str, runs: Sequence[SeedRun], scores: Mapping[str, float]) -> Row:
    finished = [run for run in runs if run.state == FINISHED]
    over_seeds = seed_statistics(runs)
    labelled: Row = {metric: over_seeds[metric]["mean"] for metric in LABEL_METRICS if metric in over_seeds}
    error = next((str(run.error).splitlines()[-1] for run in runs if run.error), None)
    return {
        "name": name,
        "seeds": [run.seed for run in finished],
        "seconds": summary([run.seconds for run in finished])["mean"] if finished else None,
        "stability": scores.get("stability"),
        "agreement": scores.get("agreement"),
        "probe": scores.get("probe"),
        "silhouette": scores.get("silhouette"),
        **labelled,
        **({"error": error} if error else {}),
    }
