"""Writing a checkpoint: a stage's result in the store as float16 shards, its card and the card to read."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from raymc import datasets, provenance
from raymc.config import Config
from raymc.datasets import Dataset
from raymc.errors import InputError
from raymc.methods import METHODS
from raymc.rng import Seed, seed_facts
from raymc.storage.stage_store import Entry, Store
from raymc.training import shards
from raymc.training.checkpoint import CARD, FORMAT
from raymc.training.model_card import model_card
from raymc.training.outputs import write_bytes, write_json
from raymc.training.smoke import limited
from raymc.training.stages import Weights, clusters_of, digest_of, enter, key_of, stage_facts, weights_of

Card = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """A stage's result in the store.

    `chain` has name and key of the stages up to it, `facts` what its key is of, `reads` the modules that it only reads.
    """

    entry: Entry
    facts: Mapping[str, Any]
    chain: list[dict[str, str]]
    reads: Weights


def export(
    config: Config,
    stage: str,
    stage_seeds: Mapping[str, Seed],
    out: Path,
    *,
    storage: str,
    data: str | None,
    made_by: Mapping[str, str],
    limit: int = shards.SHARD_BYTES,
) -> Card:
    """Write the result of a stage that trained to the folder `out`, whose last part is the checkpoint's name.

    `made_by` says `space` and `command` for the card; no file is larger than `limit` bytes. Returns the card.
    Raises InputError where the store has no such result, `out` is there already, or float16 cannot hold a weight.
    """
    if out.exists():
        raise InputError(f"--out {out} is there already: choose another name, or move it away")
    dataset = limited(datasets.load_once(config, data), config)
    found = in_store(config, stage, stage_seeds, dataset, Store(storage))
    card = _card(config, stage, dataset, found, stage_seeds[stage]) | dict(made_by)
    aside = out.with_name(f".{out.name}.{uuid.uuid4().hex}.tmp")
    try:
        card["files"] = [
            _written(aside / f"weights-{at:02}.safetensors", content)
            for at, content in enumerate(shards.written(found.entry.state["weights"], limit))
        ]
        write_json(aside / CARD, card)
        write_bytes(aside / "README.md", model_card(out.name, card).encode())
        os.replace(aside, out)
    except OSError as error:
        raise InputError(f"--out {out} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return card


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
        entry = store.load(key) if config.stages[one.name].epochs else None
        reads = {name: model[name] for name in one.reads}
        if config.stages[one.name].epochs and (entry is None or entry.meta.get("read") not in (None, digest_of(reads))):
            raise InputError(f"stage {one.name} of this configuration is not in the store: train it first")
        if one.name == stage and entry is not None:
            return Found(entry, facts, chain, weights_of(nn.ModuleDict(reads)))
        for name, state in entry.state["weights"].items() if entry is not None else ():
            model[name].load_state_dict(state, strict=True)  # those that the stage changed, see `Training.publish`
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
        "read": shards.weights_digest(found.reads) if found.reads else None,
        "data": datasets.data_facts(dataset),
        "curve": meta["curve"],
        "scored": meta.get("scored"),
        "made": meta.get("made"),
        "exported": provenance.made(),
        # Of weights that were float16 once already.
        **({"checkpoint": meta["checkpoint"]} if meta.get("checkpoint") else {}),
    }


def _written(path: Path, content: bytes) -> dict[str, Any]:
    write_bytes(path, content)
    return {"name": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
