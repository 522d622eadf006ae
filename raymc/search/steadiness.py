"""One configuration on many seeds: `raymc.stability`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from raymc.config import Value
from raymc.datasets import Dataset
from raymc.errors import InputError, TrainingError
from raymc.metrics.names import LABEL_FREE_METRICS
from raymc.metrics.seeds import pairwise_ari
from raymc.reporting.records import winner
from raymc.reporting.study_reader import read_study
from raymc.search import records, study
from raymc.search.body import TrainSeed
from raymc.search.driver import Place, Slots, run_on_ray
from raymc.search.ledger import SeedQueue
from raymc.search.manifest import check_data, load_data
from raymc.search.records import FINISHED, Row, Unit
from raymc.search.request import report_folder
from raymc.search.sitting import needs_of
from raymc.search.stability_report import write_stability
from raymc.search.unit import Plan
from raymc.space import Space, load_space, seeds_from
from raymc.tracking import uri
from raymc.tracking.study import StudyTracker

FLUSH_SECONDS = 30.0


@dataclass(frozen=True)
class StabilityRequest:
    """What the command line of `stability` asks for; `first_seed` None: seeds that a study has not used, else 0."""

    target: str
    overrides: Mapping[str, Value]
    storage: str
    data: str
    seeds: int = 10
    first_seed: int | None = None
    concurrent: int | None = None
    address: str | None = None
    tracking_uri: str | None = None
    smoke: bool = False


@dataclass(frozen=True)
class Configuration:
    """A point of a space and how its seeds vary; `used` are the seeds by which it was chosen."""

    space: Space
    params: Mapping[str, Value]
    base_seed: int
    seeds_from: str
    used: tuple[int, ...]


def stability(request: StabilityRequest) -> tuple[Row, Row]:
    """Run the configuration on its seeds; what `stability --json` prints, and the record of the seeds.

    Raises InputError for what is wrong before anything is made; TrainingError when no seed finished.
    """
    _check_numbers(request)
    chosen = configuration(request)
    dataset = load_data(chosen.space, request.data, request.smoke)
    check_data(chosen.space, chosen.space.config(params=chosen.params), dataset, objective=False)
    tracking_uri = uri.resolve(request.tracking_uri)
    first = request.first_seed if request.first_seed is not None else max(chosen.used, default=-1) + 1
    seeds = tuple(range(first, first + request.seeds))
    name = f"{Path(request.target).stem}-stability-{datetime.now():%Y%m%d-%H%M%S}"
    report_folder(name)
    folder = _make_folder(request.storage, name)
    flat = chosen.space.config(params=chosen.params).flat(chosen.space.stage_keys)
    tracker = StudyTracker(
        folder,
        study=name,
        space=chosen.space.name,
        tracking_uri=tracking_uri,
        params={key: value for key, value in flat.items() if key != "seed"},
        tags={"raymc.kind": "stability", "raymc.smoke": request.smoke},
    )
    with tracker:
        record = _run(request, chosen, dataset, folder, seeds)
        result = _result(request, chosen, dataset, folder, record)
        tracker.log_statistics(records.statistics_of(record["per_seed"]), step=len(seeds))
        tracker.log_statistics({"pairwise_ari": result.get("pairwise_ari", {})}, step=len(seeds))
        result["tracking_uri"] = uri.masked(tracking_uri)
        result["report"] = str(write_stability(report_folder(name), result, record))
        tracker.flush(FLUSH_SECONDS)
    if not any(row["state"] == FINISHED for row in record["per_seed"]):
        error = TrainingError(f"no seed finished; the first error: {str(record['error']).splitlines()[-1]}")
        error.result = result
        raise error
    return result, record


def _check_numbers(request: StabilityRequest) -> None:
    for option, value, least in (
        ("seeds", request.seeds, 1),
        ("seed", request.first_seed, 0),
        ("concurrent", request.concurrent, 1),
    ):
        if value is not None and value < least:
            raise InputError(f"--{option} {value}: at least {least} is needed")
    if "seed" in request.overrides:
        raise InputError("seed: there are several; the first one is --seed")


def configuration(request: StabilityRequest) -> Configuration:
    """The winner of a study of that name in the storage, else the preset and `fixed` of a space. Raises InputError."""
    if "://" not in request.storage and request.target in study.study_names(request.storage):
        return _winner_of(study.find_study(request.storage, request.target), request.overrides)
    space = load_space(request.target).pinned(request.overrides)
    return Configuration(space, {}, 0, seeds_from(space, space.config()), ())


def _winner_of(folder: Path, overrides: Mapping[str, Value]) -> Configuration:
    manifest = study.read_manifest(folder)
    best = winner(read_study(folder))
    if best is None:
        raise InputError(f"study {folder.name} has no winner: no trial finished")
    space = study.read_space(folder, manifest).pinned(overrides)
    params = {key: value for key, value in best.params.items() if key in space.params}
    used = (*manifest["seeds"], *manifest["confirm"]["seeds"])
    varied = str(overrides.get("seeds_from") or manifest["seeds_from"])
    return Configuration(space, params, manifest["seed"], varied, used)


def _make_folder(storage: str, name: str) -> Path:
    folder = study.studies_root(storage).parent / "stability" / name
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise InputError(f"{folder} exists: another run began in the same second; start again") from error
    except OSError as error:
        raise InputError(f"--storage: {folder.parent} cannot be written: {error.strerror}") from error
    return folder


def _run(
    request: StabilityRequest, chosen: Configuration, dataset: Dataset, folder: Path, seeds: tuple[int, ...]
) -> Row:
    space, needs = chosen.space, needs_of(chosen.space)
    blind = space.objective.uses_labels and dataset.train.y is None
    metric = LABEL_FREE_METRICS[0] if blind else space.objective.metric

    def body(slots: Slots) -> TrainSeed:
        return TrainSeed(
            space=space,
            storage=request.storage,
            data=request.data,
            base_seed=chosen.base_seed,
            seeds_from=chosen.seeds_from,
            smoke=request.smoke,
            workers=needs.workers,
            gpus=slots.gpus_per_worker,
            cpus=slots.cpus_per_worker,
        )

    queue = SeedQueue(folder, "stability", metric, {0: chosen.params}, seeds)
    place = Place(needs, request.concurrent, request.address)
    run_on_ray(queue, Plan(folder, metric), body, place, f"stability {folder.name}", lambda: None, lambda body: None)
    return records.make_record(folder, Unit("stability", 0, chosen.params, seeds, seeds), metric)


def _result(request: StabilityRequest, chosen: Configuration, dataset: Dataset, folder: Path, record: Row) -> Row:
    done = [row for row in record["per_seed"] if row["state"] == FINISHED]
    statistics: dict[str, Any] = {
        name: found | {"values": [row["metrics"][name] for row in done]}
        for name, found in records.statistics_of(done).items()
    }
    agreement = _agreement(folder, [row["seed"] for row in done])
    return {
        "name": folder.name,
        "space": chosen.space.name,
        "method": chosen.space.method,
        "dataset": chosen.space.dataset,
        "split": dataset.split,
        "params": dict(chosen.params),
        "seeds": [row["seed"] for row in record["per_seed"]],
        "states": dict(Counter(row["state"] for row in record["per_seed"])),
        "seeds_from": chosen.seeds_from,
        **statistics,
        **({"pairwise_ari": agreement} if agreement else {}),
        "smoke": request.smoke,
        "folder": str(folder),
    }


def _agreement(folder: Path, seeds: list[int]) -> dict[str, float]:
    """Pairwise ARI between the seeds' labels; empty with fewer than two."""
    labels = []
    for seed in seeds:
        with np.load(records.seed_folder(folder, "stability", 0, seed) / "labels.npz") as arrays:
            labels.append(arrays["labels"])
    return pairwise_ari(labels) if len(labels) > 1 else {}
