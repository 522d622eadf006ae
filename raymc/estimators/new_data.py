"""New samples in files, or of a known dataset: read as the training's were, whose labels and names are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from raymc import datasets
from raymc.config import OwnData, nearest
from raymc.datasets.own import TABLES, read_found
from raymc.datasets.own_found import Found
from raymc.datasets.own_tables import column_names
from raymc.errors import InputError
from raymc.estimators.inputs import for_net
from raymc.training.features.data import few, read_raw
from raymc.training.features.inputs import Inputs
from raymc.training.model_files import TrainedModel


class NewSamples(NamedTuple):
    """What `Model.assign` takes, and what the samples are called; None: by the numbers of their rows."""

    x: Found | Inputs
    names: Sequence[str] | None


@dataclass(frozen=True, kw_only=True)
class Unlabelled(OwnData):
    """Files of which some columns are not read."""

    unread: tuple[str, ...] = ()


def read_new(trained: TrainedModel, data: str, root: str | None, most: int | None = None) -> NewSamples:
    """The samples of a file, a folder of images or a known dataset, for the model; `most` of them.

    Raises InputError, in one line that names the file: also the first difference of columns, sizes or kinds.
    """
    place = Path(data).expanduser()
    known = data in datasets.NAMES and not place.exists()
    if not known and not place.exists():
        close = nearest(data, datasets.NAMES)
        raise InputError(f"{place} is missing, and no known dataset is called so{close}")
    own = _own(trained, data if known else str(place.resolve()), place)
    if trained.record["encoder"] is not None:
        raw = read_raw(own, root, most, least=1)
        return NewSamples(raw.train, None if raw.found is None else raw.found.samples)
    found = Found(datasets.load(data, root).train.x.numpy(), None) if known else read_found(own, least=1)
    found = _in_order(trained.record["input"]["columns"] or (), found if most is None else few(found, most))
    for_net(trained, found, own.path)
    return NewSamples(found, found.samples)


def _in_order(columns: Sequence[str], found: Found) -> Found:
    """The same columns in the order of the training's, where the file has just these by name."""
    if list(found.columns) == list(columns) or sorted(found.columns) != sorted(columns):
        return found
    order = [list(found.columns).index(name) for name in columns]
    return found._replace(x=found.x[:, order], columns=columns)


def _own(trained: TrainedModel, path: str, place: Path) -> OwnData:
    """The data with the training's keys, as far as they are of such a file."""
    before = trained.config.own
    if before is None:
        before = OwnData(name=trained.config.dataset, path="")
    columns = column_names(place) if place.suffix.lower() in TABLES and place.is_file() else []
    side = before.side
    if before.encoder is None:
        side = trained.input_shape[1] if place.is_dir() and len(trained.input_shape) == 3 else None
    return Unlabelled(
        name=place.stem or "data",
        path=path,
        id=before.id if before.id in columns else None,
        text=before.text if columns else None,
        encoder=before.encoder,
        side=side,
        unread=(before.label,) if before.label in columns and before.label else (),
    )
