"""One training: the stages of a method from the store or computed, then evaluation and output files."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from raymc import provenance
from raymc.config import Config
from raymc.datasets import Dataset
from raymc.distributed import Workers
from raymc.errors import CollapsedError, DeviceMemoryError
from raymc.methods.base import Stage
from raymc.rng import Seed
from raymc.training.features.data import Setting, load_data
from raymc.training.finish import finish
from raymc.training.loop import Report, Row
from raymc.training.obtain import obtain
from raymc.training.precision import as_computed, exact_float32, is_out_of_memory
from raymc.training.smoke import limited, shorten
from raymc.training.stages import Weights, stage_key, weights_of
from raymc.training.training import ALONE, EndOfEpoch, Training, pick_device


def run(
    config: Config,
    *,
    storage: str,
    out: Path,
    stage_seeds: Mapping[str, Seed],
    data: str | None = None,
    dataset: Dataset | None = None,
    workers: Workers = ALONE,
    device: str | torch.device | None = None,
    report: Report = lambda row: None,
    start_from: str | None = None,
    smoke: bool = False,
    keep_model: bool = False,
    keep_rows: bool = False,
    keep_interrupted: bool = False,
    until: str | None = None,
) -> Row:
    """Train `config`, leave the results in `out` and return the content of `metrics.json`.

    Args:
        storage: folder or URI of the stage store.
        stage_seeds: the seed of each stage, see `stages.seeds_of`.
        data: the datasets' folder; None: RAYMC_DATA or the user's cache folder.
        dataset: the samples, where they are in memory: nothing is read then.
        report: called with rows `{"event": …}` on every worker: `plan` (first of the stages', with the `epochs` of
            each and the type of `machine`), `stage_begin`, `resumed`, `features`, `epoch`, `stage`, `done`.
        start_from: take the stages before this one from the store and compute this and later ones anew.
        smoke: shorten every length and mark the results.
        keep_model: also leave `model/`, which labels new samples, see `raymc.training.model_files`.
        keep_rows: also leave what `raymc.training.rows` writes: labels and embedding of every sample.
        keep_interrupted: where a KeyboardInterrupt comes while a stage trains, evaluate the model as it stood after the
            last whole epoch; the record of the last stage has that epoch as `interrupted`. Raises KeyboardInterrupt all
            the same before there are clusters.
        until: train no further than this stage, which leaves nothing but its result in the store; returned are
            `stages` and `precision`, and `metrics` that are empty.

    Raises InputError, DivergedError, CollapsedError, DeviceMemoryError.
    """
    # Ray wants as many reports of every worker, and their shares differ.
    reported = report if workers.size == 1 else lambda row: None
    setting = Setting(storage, workers=workers, device=pick_device(device), report=reported)
    try:
        with exact_float32():
            dataset = limited(load_data(config, data, setting, smoke) if dataset is None else dataset, config)
            if smoke:
                config, dataset = shorten(config, dataset)
            training = Training(config, dataset, storage, dict(stage_seeds), workers, device, report, smoke)
            training.keep_interrupted = keep_interrupted
            if until is not None:
                _, records, _ = _stages(training, start_from, until)
                return {"metrics": {}, "stages": records, "precision": as_computed(training.config).precision}
            return _run(training, out, start_from, keep_model, keep_rows)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceMemoryError(f"the device ran out of memory: {error}") from error


def _run(training: Training, out: Path, start_from: str | None, keep_model: bool, keep_rows: bool) -> Row:
    started = time.monotonic()
    model, records, curve = _stages(training, start_from, None)
    result = finish(training, model, out, records, curve, keep_model, keep_rows)
    result = training.workers.broadcast(result)
    assert result is not None
    if result["metrics"]["clusters_used"] < 2 and not training.smoke:
        raise CollapsedError("all points fell into one cluster")
    training.report({"event": "done", "metrics": result["metrics"], "seconds": time.monotonic() - started})
    return result


def _stages(
    training: Training, start_from: str | None, until: str | None
) -> tuple[nn.ModuleDict, list[Row], list[Row]]:
    """The model after all stages, or those `until` one, or where an interrupt stopped it, a record of each, and their
    curve.
    """
    weights: Weights = {}
    clustered: nn.ModuleDict | None = None  # the model after the stage before, where it assigns clusters
    key: str | None = None
    records: list[Row] = []
    curve: list[Row] = []
    anew = start_from is None
    stages = training.method.stages(training.config)
    epochs = {one.name: training.config.stages[one.name].epochs for one in stages}
    training.report({"event": "plan", "epochs": epochs, "machine": provenance.machine(training.device)})
    for stage in stages:
        anew = anew or stage.name == start_from
        model, ended = training.enter(stage, weights), None
        training.begin(stage, model)
        seed = training.seeds[stage.name]
        key = stage_key(stage, training.config, model, training.dataset.fingerprint, seed, key)
        training.report({"event": "stage_begin", "stage": stage.name, "key": key, "reads": " ".join(training.inputs)})
        begun, training.waited = time.monotonic(), 0.0
        try:
            rows, cached = obtain(training, stage, model, key, anew=start_from is not None and anew, needed=not anew)
        except KeyboardInterrupt:
            if not training.keep_interrupted:
                raise
            model, ended = _as_it_stood(training, stage, model, clustered)
            rows, cached = ended.curve, False
        weights, clustered = weights_of(model), model if stage.clusters else None
        record = {
            "name": stage.name,
            "epochs": training.config.stages[stage.name].epochs,
            "cached": cached,
            "seconds": time.monotonic() - begun,
            "key": key,
            "waited": training.waited,
            **({"trained": training.trained} if training.trained is not None else {}),
            **({"checkpoint": training.checkpoint} if training.checkpoint else {}),
            **({"interrupted": ended.epoch} if ended else {}),
        }
        records.append(record)
        curve += [row | {"cached": cached} for row in rows]
        training.report({"event": "stage", **record})
        if ended or stage.name == until:
            break
    return model, records, curve


def _as_it_stood(
    training: Training, stage: Stage, model: nn.ModuleDict, clustered: nn.ModuleDict | None
) -> tuple[nn.ModuleDict, EndOfEpoch]:
    """The model at the end of the last epoch, if the interrupted stage has clusters, else the one of the stage before.

    Raises KeyboardInterrupt again where neither has.
    """
    last = training.last_epoch
    if last is not None and stage.clusters:
        for name, weights in last.weights.items():
            model[name].load_state_dict(weights, strict=True)
        return model, last
    if clustered is None:
        raise KeyboardInterrupt
    training.banked = None  # it is of the stage that is given up
    return clustered, EndOfEpoch(0, {}, [])
