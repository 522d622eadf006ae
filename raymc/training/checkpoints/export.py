"""Writing a checkpoint: a stage's result in the store as float16 shards with a card, small enough for git.

```
checkpoints/<name>/card.json           what it is of: the stage's key and all that is hashed into it, files, curve
checkpoints/<name>/README.md           the same to read
checkpoints/<name>/model.safetensors   or model-00001-of-00003.safetensors … and model.safetensors.index.json
```
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from torch import nn

from raymc import datasets, provenance
from raymc.atomic import write_bytes, write_json
from raymc.config import Config
from raymc.datasets import Dataset
from raymc.errors import InputError
from raymc.methods import METHODS
from raymc.rng import Seed, seed_facts
from raymc.storage.stage_store import Entry, Store
from raymc.training.checkpoints.find import CARD
from raymc.training.checkpoints.load import FORMAT
from raymc.training.checkpoints.model_card import model_card
from raymc.training.checkpoints.weights import read_digest, write
from raymc.training.features.data import Setting, load_data
from raymc.training.precision import as_recorded
from raymc.training.smoke import limited
from raymc.training.stages import Weights, clusters_of, digest_of, enter, key_of, stage_facts, weights_of

Card = dict[str, Any]


class Found(NamedTuple):
    """A stage's result in the store."""

    entry: Entry
    facts: Mapping[str, Any]  # what its key is of
    chain: list[dict[str, str]]  # name and key of the stages up to it
    reads: Mapping[str, nn.Module]  # the modules that it only reads


def export(
    config: Config,
    stage: str,
    stage_seeds: Mapping[str, Seed],
    out: Path,
    *,
    storage: str,
    data: str | None,
    origin: Mapping[str, str],
) -> Card:
    """Write the result of a stage that trained to the folder `out`, whose last part is the checkpoint's name.

    `origin` says `space` and `command` for the card, which is returned.
    Raises InputError where the store has no such result, `out` is there already, or a file cannot hold a tensor.
    """
    if out.exists():
        raise InputError(f"--out {out} is there already: choose another name, or move it away")
    dataset = limited(load_data(config, data, Setting(storage)), config)
    config, found = _computed(config, stage, stage_seeds, dataset, Store(storage))
    card = _card(config, stage, dataset, found, stage_seeds[stage]) | dict(origin)
    aside = out.with_name(f".{out.name}.{uuid.uuid4().hex}.tmp")
    try:
        card["files"] = write(found.entry.state["weights"], aside)
        write_json(aside / CARD, card)
        write_bytes(aside / "README.md", model_card(out.name, card).encode())
        os.replace(aside, out)
    except (OSError, SafetensorError) as error:
        raise InputError(f"--out {out} cannot be written: {getattr(error, 'strerror', error)}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return card


def _computed(
    config: Config, stage: str, seeds: Mapping[str, Seed], dataset: Dataset, store: Store
) -> tuple[Config, Found]:
    """See `in_store`; where `precision: auto` has no result of this machine, that of a GPU in bfloat16."""
    of_gpu = as_recorded(config, "bfloat16")
    try:
        return config, in_store(config, stage, seeds, dataset, store)
    except InputError:
        if of_gpu == config:
            raise
        with suppress(InputError):
            return of_gpu, in_store(of_gpu, stage, seeds, dataset, store)
        raise


def in_store(config: Config, stage: str, seeds: Mapping[str, Seed], dataset: Dataset, store: Store) -> Found:
    """The result of a stage that trains, and those before it. Raises InputError where the store lacks one.

    So it does where a result is of a stage that reads other weights than those in the store.
    """
    method = METHODS[config.method]
    clusters, shape = clusters_of(config, dataset), tuple(dataset.train.x.shape[1:])
    weights: Weights = {}
    key: str | None = None
    chain: list[dict[str, str]] = []
    for one in method.stages(config):
        model = enter(method, one, config, shape, clusters, weights, seeds[one.name])
        facts = stage_facts(one, config, model, dataset.fingerprint, seeds[one.name], key)
        key = key_of(facts)
        chain.append({"stage": one.name, "key": key})
        if config.stages[one.name].epochs:
            reads = {name: model[name] for name in one.reads}
            entry = store.load(key)
            if entry is None or entry.meta.get("read") not in (None, digest_of(reads)):
                raise InputError(f"stage {one.name} of this configuration is not in the store: train it first")
            if one.name == stage:
                return Found(entry, facts, chain, reads)
            for name, state in entry.state["weights"].items():
                model[name].load_state_dict(state, strict=True)  # those that the stage changed
        weights = weights_of(model)
    raise InputError(f"--stage: {stage} is not one of the stages that train")


def _card(config: Config, stage: str, dataset: Dataset, found: Found, seed: Seed) -> Card:
    method = METHODS[config.method]
    before = [one["stage"] for one in found.chain]
    after = method.stages(config)[len(before) :]
    meta = found.entry.meta
    return {
        "format": FORMAT,
        "stage": stage,
        "key": found.chain[-1]["key"],
        "chain": found.chain,
        "needs": [one for one in found.chain[:-1] if config.stages[one["stage"]].epochs],
        "method": config.method,
        "dataset": config.dataset,
        "preset": config.preset,
        "seed": seed_facts(seed),
        "epochs": config.stages[stage].epochs,
        "next": next((one.name for one in after if config.stages[one.name].epochs), None),
        "configuration": config.flat(before),
        "facts": dict(found.facts),
        "read": read_digest(found.reads),
        "data": datasets.data_facts(dataset),
        "curve": meta["curve"],
        "scored": meta.get("scored"),
        "made": meta.get("made"),
        "exported": provenance.record(),
        # Of weights that were float16 once already.
        **({"checkpoint": meta["checkpoint"]} if meta.get("checkpoint") else {}),
    }
