"""A run of `stability` in the storage: one configuration on seeds, or several on the same ones (`--vs`)."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from raymc import clusterers
from raymc.atomic import write_json
from raymc.bare_keys import cluster_range
from raymc.config import parts_of
from raymc.datasets import Dataset, data_facts
from raymc.errors import InputError
from raymc.execution.needs import needs_of
from raymc.execution.requirements import Requirements
from raymc.execution.room import check_room
from raymc.masking import masked
from raymc.methods import METHODS
from raymc.stability.configurations import Configuration, configurations, on_common_data, run_by
from raymc.stability.queue import run_groups
from raymc.stability.reader import DATED, FACTS, ended_seeds
from raymc.stability.request import StabilityRequest, seeds_to_run
from raymc.stability.seed_group import SeedGroup, make_folder, seeds_missing
from raymc.storage.objects import filesystem, folders, home, is_uri, patiently
from raymc.study import files
from raymc.study.baseline import FILE as BASELINE
from raymc.study.baseline import clusters_found, keep_baseline
from raymc.study.counts import check_numbers
from raymc.study.records import Row
from raymc.study.request import check_storage, report_folder
from raymc.tracking import uri

SAME = ("arms", "space", "method", "dataset", "params", "seeds", "seeds_from", "varies", "smoke", "overrides")
"""What the same words say again; a run of before has not all of them."""


@dataclass(frozen=True)
class StabilityRun:
    """A run whose seeds have ended, for its report."""

    folder: Path
    out: Path
    groups: tuple[SeedGroup, ...]
    tracking_uri: str


def run_stability(request: StabilityRequest) -> StabilityRun:
    """Run the seeds that have no result yet, of a new run or of the newest one of the same words.

    Raises InputError for what is wrong before anything is made.
    """
    check_numbers(request.overrides, seeds=request.seeds, seed=request.first_seed, concurrent=request.concurrent)
    return run_configurations(request, _with_clusters_found(request, configurations(request)))


def _with_clusters_found(request: StabilityRequest, asked: list[Configuration]) -> list[Configuration]:
    """Those that look for a number of clusters and cannot find it get the one that MLC finds on the same samples.

    For that MLC runs alone first; its stages are then in the store. Raises InputError where no seed of it ends.
    """
    looking = [one for one in asked if cluster_range(one.config.n_clusters)]
    able = [one for one in looking if one.config.clustering == "membership"]
    if not able or len(able) == len(looking):
        return asked
    finder = able[0]
    first = seeds_to_run(request, [seed for one in asked for seed in one.used])[0]
    print(f"looking for the number of clusters: coding length, by {finder.name}", file=sys.stderr)
    alone = run_configurations(replace(request, target=finder.name, vs=(), first_seed=first), [finder])
    n = clusters_found(ended_seeds(alone.groups[0].folder))
    if n is None:
        raise InputError(f"no seed of {finder.name} found a number of clusters; give one by n_clusters=K")
    pinned = {
        one.name: replace(one, space=one.space.pinned({"n_clusters": n}), n_clusters_by=finder.name)
        for one in looking
        if one not in able
    }
    print(f"{', '.join(pinned)}: {n} clusters, as {finder.name} found", file=sys.stderr)
    return [pinned.get(one.name, one) for one in asked]


def run_configurations(
    request: StabilityRequest, asked: Sequence[Configuration], title: str | None = None
) -> StabilityRun:
    """As `run_stability`, of configurations that are there already; `title` None: their own names."""
    dataset, found = on_common_data(request, asked)
    for one in found:
        if request.address is None or request.machines is not None:
            check_room(needs_of(one.space), request.machines)
    tracking_uri = uri.resolve(request.tracking_uri)
    seeds = seeds_to_run(request, [seed for one in found for seed in one.used])
    title = title or _title([one.name for one in found])
    facts = _facts(request, found, dataset, seeds, tracking_uri)
    report_folder(title)
    check_storage(request.storage)
    before = _begun_before(request.storage, title, found, facts)
    if before is None and request.resume:
        raise InputError(f"--resume: no run of {title} with these words in {request.storage.rstrip('/')}/stability")
    name = before["name"] if before else f"{title}{DATED}{datetime.now():%Y%m%d-%H%M%S}"
    whole = before or facts[""] | {"name": name}
    folder = make_folder(home(request.storage) / "stability" / name, new=before is None)
    _write(request.storage, folder, whole)
    read, fingerprint = (request.storage, request.data), dataset.fingerprint
    requirements = Requirements(found[0].config, *read, fingerprint, request.smoke)
    labelled = dataset.train.y is not None
    groups = tuple(_group(request, one, folder, facts.get(one.name, whole), labelled, requirements) for one in found)
    if before:
        print(f"stability: going on with {name}", file=sys.stderr)
    if any(seeds_missing(request, group) for group in groups):
        begun, manifest = time.monotonic(), whole.setdefault("manifest", {})
        elsewhere: object = None
        try:
            elsewhere = run_groups(request, tracking_uri, groups, f"stability {name}")
        finally:
            if not elsewhere and folder.is_dir():  # else the other process writes it, or it was removed
                manifest["wall_seconds"] = manifest.get("wall_seconds", 0.0) + time.monotonic() - begun
                _write(request.storage, folder, whole)
        if elsewhere:
            raise InputError(f"{name} is being run by another process")
    if not request.vs:
        keep_baseline(folder, found[0].config, dataset, whole["seeds"], request.smoke, ended_seeds(groups[0].folder))
        _push(request.storage, folder, BASELINE)
    return StabilityRun(folder, report_folder(name), groups, tracking_uri)


def keep_report(run: StabilityRun) -> None:
    """Go on with each configuration's run in MLflow, to keep the report of all of them with it.

    The runs have ended when their last seed did, so that one that is interrupted leaves those before it as they are.
    Where MLflow does not answer, the others' runs are not waited for.
    """
    for group in run.groups:
        tracker = group.tracker(run.tracking_uri)
        tracker.start()
        group.log_statistics(tracker)
        for suffix in (".html", ".json", ".csv"):
            tracker.artifact((run.out / FACTS).with_suffix(suffix), folder="report")
        if not tracker.close():
            break


def _title(names: list[str]) -> str:
    more = f"-and-{len(names) - 2}-more" if len(names) > 2 else ""
    return "-vs-".join(names[:2]) + more


def _group(
    request: StabilityRequest,
    configuration: Configuration,
    folder: Path,
    facts: Row,
    labelled: bool,
    requirements: Requirements,
) -> SeedGroup:
    name = configuration.name if request.vs else ""
    seeds, place = tuple(facts["seeds"]), folder / name

    def begin() -> tuple[int, ...]:
        if not (place / FACTS).exists():
            write_json(place / FACTS, facts)
        return seeds

    title = "-".join(filter(None, (folder.name, name)))
    return SeedGroup(name, title, configuration, place, seeds, labelled, requirements, begin)


def _facts(
    request: StabilityRequest,
    found: list[Configuration],
    dataset: Dataset,
    seeds: tuple[int, ...],
    tracking_uri: str,
) -> dict[str, Row]:
    """The content of each `stability.json` of a run, by its place in the run's folder; one has the same of its own."""
    place = {"tracking_uri": masked(tracking_uri)}
    shared = place | {
        "smoke": request.smoke,
        "storage": masked(request.storage),
        "manifest": {"created": files.now(), **run_by(), "data": data_facts(dataset)},
    }
    each = {one.name: _facts_of(one, dataset, seeds) for one in found}
    if len(found) == 1:
        return {"": each[found[0].name] | shared}
    together = {"arms": list(each), "seeds": list(seeds)}
    return {"": together | shared} | {name: own | place for name, own in each.items()}


def _facts_of(configuration: Configuration, dataset: Dataset, seeds: tuple[int, ...]) -> Row:
    """What a report says of a configuration beside what its seeds say."""
    config, goal = configuration.config, configuration.space.objective
    return {
        "name": configuration.name,
        "space": configuration.space.name,
        "method": configuration.space.method,
        "dataset": configuration.space.dataset,
        "split": dataset.split,
        "n": len(dataset.train),
        "clusters_by": clusterers.described(config, len(dataset.train), METHODS[config.method].unit_rows),
        "params": dict(configuration.params),
        "seeds": list(seeds),
        "seeds_from": configuration.seeds_from,
        "varies": ",".join(parts_of(config.varies)) if config.varies != "all" else "all",
        **({"chosen_by": {"metric": goal.metric, "uses_labels": goal.uses_labels}} if configuration.used else {}),
        **({"n_clusters_by": configuration.n_clusters_by} if configuration.n_clusters_by else {}),
        "config": configuration.settings,
        "numerics": configuration.numerics,
        "overrides": dict(configuration.overrides),
        "smoke": configuration.smoke,
    }


def _begun_before(storage: str, title: str, found: list[Configuration], facts: Mapping[str, Row]) -> Row | None:
    """The `stability.json` of the newest run of the same words on the same samples."""
    fs, root = filesystem(storage)
    named = re.compile(f"{re.escape(title)}{DATED}[0-9-]+")
    runs, alone = [name for name in folders(fs, f"{root}/stability") if named.fullmatch(name)], len(found) == 1

    def stored(*parts: str) -> Row | None:
        try:
            path = "/".join((root, "stability", *filter(None, parts), FACTS))
            return dict(json.loads(patiently(lambda: fs.cat_file(path), fs, storage)))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None

    for name in reversed(runs):
        before = {part: stored(name, part) for part in facts}
        alike = [(one, before["" if alone else one.name], facts["" if alone else one.name]) for one in found]
        whole = before[""]
        if whole is not None and _same(whole, facts[""]) and all(_configured(*each) for each in alike):
            return whole | {"name": name}
    return None


def _same(before: Row, now: Row) -> bool:
    samples = [facts.get("manifest", {}).get("data", {}).get("fingerprint") for facts in (before, now)]
    alike = all(before[key] == now[key] for key in SAME if key in before and key in now)
    return alike and samples[0] == samples[1] and ("arms" in before) == ("arms" in now)


def _configured(configuration: Configuration, before: Row | None, now: Row) -> bool:
    """Whether it is the configuration of before; one that an interrupted run did not come to has nothing there yet."""
    return before is None or (
        configuration.has(before.get("config", {}))
        and before.get("numerics", now["numerics"]) == now["numerics"]
        and all(before[key] == now[key] for key in SAME if key in before and key in now)
    )


def _write(storage: str, folder: Path, facts: Row) -> None:
    """A run's own `stability.json`, here and in the storage, where that is an object store."""
    write_json(folder / FACTS, facts)
    _push(storage, folder, FACTS)


def _push(storage: str, folder: Path, name: str) -> None:
    """A file of a run's folder into the storage, where that is an object store."""
    if is_uri(storage) and (folder / name).is_file():
        fs, root = filesystem(storage)
        content = (folder / name).read_bytes()
        patiently(lambda: fs.pipe_file(f"{root}/stability/{folder.name}/{name}", content), fs, storage)
