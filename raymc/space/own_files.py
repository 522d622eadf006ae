"""The user's own data as a space file names them."""

from __future__ import annotations

from pathlib import Path

from raymc.config import OwnData
from raymc.datasets import NAMES
from raymc.space.format import OwnFiles


def own_data(dataset: str | OwnFiles, path: Path) -> OwnData | None:
    """The user's own data, with paths taken from where the space file `path` is; None for a known dataset."""
    if isinstance(dataset, str):
        return None

    def absolute(name: str) -> Path:
        return (path.parent / Path(name).expanduser()).resolve()

    place = absolute(dataset.path)
    known = dataset.encoder is not None and dataset.path in NAMES and not place.exists()
    return OwnData(
        name=dataset.called if dataset.encoder and place.stem in NAMES else dataset.name or place.stem,
        path=dataset.path if known else str(place),
        label=dataset.label,
        side=dataset.side,
        test=None if dataset.test is None else str(absolute(dataset.test)),
        id=dataset.id,
        text=dataset.text,
        encoder=dataset.encoder,
        weights=None if dataset.weights is None else str(absolute(dataset.weights)),
        features=dataset.features,
    )
