"""One configuration on many seeds: `raymc.stability`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path

from raymc import provenance
from raymc.config import parts_of
from raymc.datasets import Dataset, data_facts
from raymc.errors import InputError, TrainingError
from raymc.execution.driver import Place, Slots, run_on_ray
from raymc.execution.remote import Mirrored
from raymc.execution.session import needs_of
from raymc.execution.train_seed import TrainSeed
from raymc.execution.trial import Plan
from raymc.metrics.names import LABEL_FREE_METRICS, LABEL_METRICS
from raymc.reporting.stability.page import write_stability
from raymc.reporting.steady import DATED, FACTS, SEEDS, read_stability, seed_statistics
from raymc.search import records
from raymc.search.judge import Judge, judge_of
from raymc.search.records import FINISHED, Row, Unit
from raymc.search.steady_request import Configuration, StabilityRequest, check_numbers, configuration, seeds_to_run
from raymc.storage.mirror import mirror_of
from raymc.storage.objects import home
from raymc.study.manifest import check_data, load_data
from raymc.study.queue import SeedQueue, Work
from raymc.study.request import check_storage, report_folder
from raymc.tracking import uri
from raymc.tracking.study import StudyTracker
from raymc.training import clusters
from raymc.training.outputs import write_json

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
    out = report_folder(name)
    folder = make_folder(request.storage, name)
    facts = arm_facts(request, chosen, dataset, name, seeds) | run_facts(request, dataset, tracking_uri)
    facts |= {"overrides": dict(request.overrides)}
    begun = time.monotonic()
    write_json(folder / FACTS, facts)
    with running(request, chosen, dataset, folder, name, seeds, tracking_uri) as tracker:
        write_json(folder / FACTS, ended(facts, begun))
        found = read_stability(folder)
        result, record = found.result, found.arms[0].record
        result["report"] = str(write_stability(folder, out))
        keep(tracker, out)
        give(request.storage, folder)
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
) -> Iterator[StudyTracker]:
    """Run the seeds of a configuration, as `name` in MLflow; its tracker, which has the statistics by then.

    MLflow is waited for after the block: whatever it does, the report is written by then.
    """
    flat = chosen.space.config(params=chosen.params).flat()
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
        tracker.log_statistics(_tracked(folder, record["per_seed"]), step=len(seeds))
        yield tracker
        tracker.flush(FLUSH_SECONDS)


def arm_facts(
    request: StabilityRequest, chosen: Configuration, dataset: Dataset, name: str, seeds: tuple[int, ...]
) -> Row:
    """What a report says of a configuration beside what its seeds say."""
    config = chosen.space.config(params=chosen.params)
    flat, goal = config.flat(), chosen.space.objective
    return {
        "name": name,
        "space": chosen.space.name,
        "method": chosen.space.method,
        "dataset": chosen.space.dataset,
        "split": dataset.split,
        "n": len(dataset.train),
        "clusters_by": clusters.told(config, len(dataset.train)),
        "params": dict(chosen.params),
        "seeds": list(seeds),
        "seeds_from": chosen.seeds_from,
        "varies": ",".join(parts_of(config.varies)) if config.varies != "all" else "all",
        **({"chosen_by": {"metric": goal.metric, "uses_labels": goal.uses_labels}} if chosen.used else {}),
        "config": {key: value for key, value in flat.items() if key != "seed"},
        "smoke": request.smoke,
    }


def run_facts(request: StabilityRequest, dataset: Dataset, tracking_uri: str) -> Row:
    """By what a run was run, and where it is tracked."""
    return {
        "smoke": request.smoke,
        "storage": uri.masked(request.storage),
        "tracking_uri": uri.masked(tracking_uri),
        "manifest": {
            "created": records.now(),
            "command": provenance.command("stability"),
            "versions": provenance.versions(),
            "git": provenance.revision(),
            "hardware": provenance.hardware(),
            "data": data_facts(dataset),
        },
    }


def ended(facts: Row, begun: float) -> Row:
    """The facts of a run that ends now, with the seconds since `begun` on the clock that nobody sets."""
    return facts | {"manifest": facts["manifest"] | {"wall_seconds": time.monotonic() - begun}}


def keep(tracker: StudyTracker, out: Path) -> None:
    """Have MLflow keep the report of the folder `out` with the run."""
    for suffix in (".html", ".json", ".csv"):
        tracker.artifact((out / FACTS).with_suffix(suffix), folder="report")


def give(storage: str, folder: Path) -> None:
    """Put what this process knows of a run into the storage, where that is an object store."""
    if mirror := mirror_of(storage, folder):
        mirror.push()


def dated(name: str) -> str:
    """The name of a run of `stability` that begins now."""
    return f"{name}{DATED}{datetime.now():%Y%m%d-%H%M%S}"


def has_finished(record: Row) -> bool:
    """Whether any seed finished."""
    return any(row["state"] == FINISHED for row in record["per_seed"])


def first_error(record: Row) -> str:
    """Its last line."""
    return str(record["error"]).splitlines()[-1]


def make_folder(storage: str, name: str) -> Path:
    """The new folder of a run of `stability`. Raises InputError where it exists or cannot be made."""
    check_storage(storage)
    folder = home(storage) / "stability" / name
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
    gates = judge_of(space.objective.model_dump(), request.smoke).gates
    # What every seed must have; scores of a group are of no use here.
    known = (*LABEL_FREE_METRICS, *(LABEL_METRICS if dataset.train.y is not None else ()))
    metric = space.objective.metric if space.objective.metric in known else LABEL_FREE_METRICS[0]
    judge = Judge(metric, gates=gates)

    def body(slots: Slots) -> TrainSeed:
        return TrainSeed(
            space=space,
            storage=request.storage,
            data=request.data,
            base_seed=chosen.base_seed,
            seeds_from=chosen.seeds_from,
            smoke=request.smoke,
            workers=needs.workers,
            min_workers=needs.min_workers,
            gpus=slots.gpus_per_worker,
            cpus=slots.cpus_per_worker,
        )

    queue: Work = SeedQueue(folder, "stability", judge, {0: chosen.params}, seeds)
    place, mirror = Place(needs, request.concurrent, request.address), mirror_of(request.storage, folder)
    with mirror.pulling("spool/") if mirror else nullcontext():
        work = Mirrored(queue, mirror) if mirror else queue
        plan = Plan(folder, judge, uri=mirror.uri if mirror else None)
        run_on_ray(work, plan, body, place, f"stability {folder.name}", lambda: None, lambda body: None)
    return records.make_record(folder, Unit("stability", 0, chosen.params, seeds, seeds), judge)


def _tracked(folder: Path, rows: list[Row]) -> dict[str, Row]:
    """The statistics as MLflow's metrics are named after: `acc_mean`, `pairwise_ari_min`, `collapsed_share`."""
    found = seed_statistics(folder / SEEDS, rows)
    return {name: of for name, of in found.items() if isinstance(of, dict)} | {
        "collapsed": {"share": found["collapsed_share"]}
    }
