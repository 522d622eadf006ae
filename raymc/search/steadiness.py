"""One configuration on many seeds: `raymc.stability`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from raymc.datasets import Dataset
from raymc.errors import InputError, TrainingError
from raymc.metrics.names import LABEL_FREE_METRICS
from raymc.metrics.seeds import pairwise_ari
from raymc.search import records, study
from raymc.search.body import TrainSeed
from raymc.search.driver import Place, Slots, run_on_ray
from raymc.search.judge import Judge
from raymc.search.ledger import SeedQueue
from raymc.search.manifest import check_data, load_data
from raymc.search.records import FINISHED, Row, Unit
from raymc.search.request import report_folder
from raymc.search.sitting import needs_of
from raymc.search.stability_report import write_stability
from raymc.search.steady_request import Configuration, StabilityRequest, check_numbers, configuration, seeds_to_run
from raymc.search.unit import Plan
from raymc.tracking import uri
from raymc.tracking.study import StudyTracker
from raymc.training import clusters

FLUSH_SECONDS = 30.0


def stability(request: StabilityRequest) -> tuple[Row, Row]:
    """Run the configuration on its seeds; what `stability --json` prints, and the record of the seeds.

    Raises InputError for what is wrong before anything is made; TrainingError when no seed finished.
    """
    check_numbers(request)
    chosen = configuration(request)
    dataset = load_data(chosen.space, request.data, request.smoke, chosen.params)
    check_data(chosen.space, chosen.space.config(params=chosen.params), dataset, objective=False)
    tracking_uri = uri.resolve(request.tracking_uri)
    seeds = seeds_to_run(request, chosen.used)
    name = dated(Path(request.target).stem)
    report_folder(name)
    folder = make_folder(request.storage, name)
    with running(request, chosen, dataset, folder, name, seeds, tracking_uri) as (result, record):
        result["report"] = str(write_stability(report_folder(name), result, record))
    if not has_finished(record):
        error = TrainingError(f"no seed finished; the first error: {first_error(record)}")
        error.result = result
        raise error
    return result, record


@contextmanager
def running(
    request: StabilityRequest,
    chosen: Configuration,
    dataset: Dataset,
    folder: Path,
    name: str,
    seeds: tuple[int, ...],
    tracking_uri: str,
) -> Iterator[tuple[Row, Row]]:
    """Run the seeds of a configuration, as `name` in MLflow; its JSON but for the report, and the record of the seeds.

    MLflow is waited for after the block: whatever it does, the report is written by then.
    """
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
        yield result, record
        tracker.flush(FLUSH_SECONDS)


def dated(name: str) -> str:
    """The name of a run of `stability` that begins now."""
    return f"{name}-stability-{datetime.now():%Y%m%d-%H%M%S}"


def has_finished(record: Row) -> bool:
    """Whether any seed finished."""
    return any(row["state"] == FINISHED for row in record["per_seed"])


def first_error(record: Row) -> str:
    """Its last line."""
    return str(record["error"]).splitlines()[-1]


def make_folder(storage: str, name: str) -> Path:
    """The new folder of a run of `stability`. Raises InputError where it exists or cannot be made."""
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
    judge = Judge(LABEL_FREE_METRICS[0]) if blind else Judge(space.objective.metric)

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

    queue = SeedQueue(folder, "stability", judge, {0: chosen.params}, seeds)
    place = Place(needs, request.concurrent, request.address)
    run_on_ray(queue, Plan(folder, judge), body, place, f"stability {folder.name}", lambda: None, lambda body: None)
    return records.make_record(folder, Unit("stability", 0, chosen.params, seeds, seeds), judge)


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
        "n": len(dataset.train),
        "clusters_by": clusters.told(chosen.space.config(params=chosen.params), len(dataset.train)),
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
