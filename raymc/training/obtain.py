"""A stage's result: from the store, from a checkpoint, from another process that computes it, or by training."""

from __future__ import annotations

import contextlib
import math

from torch import nn

from raymc.distributed import barrier, broadcast_object
from raymc.errors import InputError, StageHeld
from raymc.methods.base import Stage
from raymc.storage.lease import Lease
from raymc.storage.stage_store import Entry
from raymc.training.checkpoints.find import unlike
from raymc.training.checkpoints.load import load
from raymc.training.loop import Row
from raymc.training.stages import place, stage_facts
from raymc.training.training import Training

HELD_SECONDS = 60.0
"""How long several workers wait for another process; a lease of their own, of before one was lost, is free sooner."""


def obtain(
    training: Training, stage: Stage, model: nn.ModuleDict, key: str, *, anew: bool, needed: bool
) -> tuple[list[Row], bool]:
    """Bring the model to the stage's end, from the store or by training; its curve, and whether it was stored.

    Raises StageHeld where several workers would wait long for another process.
    """
    if training.config.stages[stage.name].epochs == 0:
        place(model, training.config, training.device, training.dtype)
        return [], False
    lease = training.store.lease(key) if training.leads else None
    entry = _found(training, stage, model, key, lease, anew, needed) if lease is not None else None
    entry = broadcast_object(entry, training.workers.group)
    if isinstance(entry, InputError | StageHeld):
        raise entry
    if entry is not None:
        for name, state in entry.state["weights"].items():
            model[name].load_state_dict(state, strict=True)
        place(model, training.config, training.device, training.dtype)
        training.snapshots = dict(entry.state.get("snapshots", {}))
        training.checkpoint, training.trained = entry.meta.get("checkpoint"), entry.meta.get("seconds")
        return training.curve(entry.meta), True
    with lease or contextlib.nullcontext():
        curve = training.train(stage, model, key)
    barrier(training.workers.group)
    return curve, False


def _found(
    training: Training, stage: Stage, model: nn.ModuleDict, key: str, lease: Lease, anew: bool, needed: bool
) -> Entry | InputError | StageHeld | None:
    """The result, however it is had; None once the lease is ours; what every worker has to raise."""
    patience = math.inf if training.workers.size == 1 else HELD_SECONDS
    try:
        entry = None if anew else training.load(key) or _import(training, stage, model, key, needed)
        return entry or lease.acquire_unless(lambda: None if anew else training.load(key), patience)
    except InputError as error:
        return error
    except TimeoutError:
        return StageHeld(key)
    finally:
        training.waited = lease.waited


def _import(training: Training, stage: Stage, model: nn.ModuleDict, key: str, needed: bool) -> Entry | None:
    """A checkpoint's result, put into the store. Raises InputError where it is `needed` and none has it."""
    entry = load(key, training.changed(stage, model), {name: model[name] for name in stage.reads})
    if entry is not None:
        # From now on it belongs to the weights that it was put beside.
        entry = Entry(entry.state, entry.meta | training.reads)
        training.store.save(key, entry.state, entry.meta)
    elif needed:
        facts = stage_facts(
            stage, training.config, model, training.dataset.fingerprint, training.seeds[stage.name], None
        )
        near = unlike(stage.name, training.dataset.name, facts)
        raise InputError(
            f"stage {stage.name} of this configuration is not in the store: train without --from first{near}"
        )
    return entry
