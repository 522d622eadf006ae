"""The data that a training sees: as `raymc.datasets` reads them, or an encoder's features in their place."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from raymc import datasets, encoders
from raymc.bare_keys import cluster_range
from raymc.config import Config, OwnData
from raymc.datasets import Dataset, Split, fingerprint
from raymc.datasets.own import as_dataset, read_found, read_held_out, stamp
from raymc.datasets.own_found import Found
from raymc.datasets.own_photos import Photos
from raymc.datasets.scaling import WORDS, fit
from raymc.distributed import Workers
from raymc.encoders import Encoder
from raymc.errors import InputError
from raymc.storage.stage_store import Store
from raymc.training.features.inputs import Inputs
from raymc.training.features.stage import Features, Report
from raymc.training.smoke import HEAVY_ROWS, limit
from raymc.training.stages import digest_of

ALONE = Workers()
_loaded: dict[Hashable, Dataset] = {}
LOADED = 2  # datasets that are kept


class Setting(NamedTuple):
    """Where features are computed and stored."""

    storage: str
    precision: str = "float32"
    workers: Workers = ALONE
    device: torch.device = torch.device("cpu")
    report: Report = lambda row: None


def load_data(config: Config, root: str | None, setting: Setting, smoke: bool = False, keep: bool = True) -> Dataset:
    """What `config` is trained on, see `datasets.load_for`; where it names an encoder, that one's features.

    They come from the store, or are computed and stored. With `smoke` only a few samples are embedded; with `keep` the
    last two datasets are kept while their files are the same. Raises InputError.
    """
    own = config.own
    if own is None or own.encoder is None:
        return datasets.load_once(config, root) if keep else datasets.load_for(config, root)
    setting = setting._replace(precision="bfloat16" if config.precision == "bfloat16" else "float32")
    most = max(HEAVY_ROWS, 2 * (0 if cluster_range(config.n_clusters) else config.n_clusters or 0)) if smoke else None
    key = (own, config.scaling, root, setting.storage, setting.precision, most, stamp(own))
    if key in _loaded and setting.workers.size == 1:  # else one worker might wait for another that has them
        return _loaded[key]
    raw = read_raw(own, root, most)
    dataset = _embedded(own, raw, encoders.load(own.encoder, own.weights, own.side), config.scaling, setting)
    if keep:
        for former in list(_loaded)[: len(_loaded) + 1 - LOADED]:
            del _loaded[former]
        _loaded[key] = dataset
    return dataset


class Raw(NamedTuple):
    """Samples for an encoder as they are read: a known dataset, or the user's own files and their held-out part."""

    train: Inputs
    test: Inputs | None
    known: Dataset | None
    found: Found | None
    held_out: Found | None


def read_raw(own: OwnData, root: str | None, most: int | None = None, least: int = 2) -> Raw:
    """The samples that `own` names, without its encoder; `most` of them, or two for each class.

    Raises InputError, also for fewer than `least`.
    """
    if own.known:
        given = {key: getattr(own, key) for key in ("label", "id", "text", "test")}
        for key, value in given.items():
            if value is not None:
                raise InputError(f"{key}: {value} is for files of your own, and {own.path} is a known dataset")
        known = datasets.load(own.path, root)
        if known.stream is not None:
            raise InputError(f"encoder {own.encoder} takes images, and the samples of {own.path} are vectors")
        known = known if most is None else limit(known, max(most, 2 * (known.n_classes or 0)))
        return Raw(known.train.x, None if known.test is None else known.test.x, known, None, None)
    found = read_found(own, least)
    held = read_held_out(own, found)
    if most is not None:
        rows = max(most, 0 if found.y is None else 2 * len(np.unique(found.y)))
        found, held = few(found, rows), None if held is None else few(held, rows)
    return Raw(_inputs(found.x), None if held is None else _inputs(held.x), None, found, held)


def _inputs(x: Any) -> Inputs:
    """What a reader found, as an encoder is given it."""
    if isinstance(x, Photos):
        return x
    return x.tolist() if x.dtype == object else torch.from_numpy(np.ascontiguousarray(x))


def few(found: Found, most: int) -> Found:
    """At most `most` of the samples, drawn without labels."""
    order = torch.randperm(len(found.x), generator=torch.Generator().manual_seed(0))[:most].tolist()
    return found._replace(
        x=found.x.take(order) if isinstance(found.x, Photos) else found.x[order],
        y=None if found.y is None else found.y[order],
        samples=[str(row) if found.samples is None else found.samples[row] for row in order],
    )


def _embedded(own: OwnData, raw: Raw, encoder: Encoder, scaling: str | None, setting: Setting) -> Dataset:
    keys: list[str] = []

    def features(x: Inputs) -> NDArray[np.float32]:
        stage = Features(encoder, x, Store(setting.storage, wait=True), setting.precision, setting.device)
        stage.obtain(setting.workers, setting.report)
        keys.append(stage.key)
        return stage.array()

    train = features(raw.train)
    test = None if raw.test is None else features(raw.test)
    words = words_of(encoder, train.shape[1])
    facts = encoder_facts(encoder) | {"precision": setting.precision}
    if raw.known is not None:
        known = _as_known(own, raw.known, train, test, scaling or "unit", words)
        return dataclasses.replace(known, encoder=facts, stored=tuple(keys))
    assert raw.found is not None
    found = raw.found._replace(x=train, columns=(), left_out=f"; {words}{raw.found.left_out}")
    held = None if raw.held_out is None or test is None else raw.held_out._replace(x=test, columns=())
    return dataclasses.replace(as_dataset(own, found, held, scaling), encoder=facts, stored=tuple(keys))


def encoder_facts(encoder: Encoder) -> dict[str, Any]:
    """By what an encoder is known again: its name, a hash of its weights, and what it takes, of which size."""
    how = encoder.preprocessing
    weights = digest_of({"encoder": encoder.module})
    return {"name": encoder.name, "sha256": weights, "takes": encoder.takes, "side": how and how.side}


def words_of(encoder: Encoder, width: int) -> str:
    """What features are, for results."""
    how = encoder.preprocessing
    given = "texts" if how is None else f"images of {how.side}x{how.side}"
    return f"{width} features of {encoder.name} ({given})"


def _as_known(
    own: OwnData, known: Dataset, train: NDArray[np.float32], test: NDArray[np.float32] | None, how: str, words: str
) -> Dataset:
    scaling = fit(train, how)
    x = scaling(train, train)
    held = None
    if test is not None and known.test is not None:
        held = Split(scaling(test, test), known.test.y)
    return dataclasses.replace(
        known,
        name=own.name,
        train=Split(x, known.train.y),
        test=held,
        split=f"{known.split}; {words}; {WORDS[how]}",
        source=f"{known.source}; {words}",
        fingerprint=fingerprint(x),
        scaling=scaling,
    )
