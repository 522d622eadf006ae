"""The space and the data of a study that is run from Python, as a space file and its `dataset` section."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from raymc.atomic import write_bytes
from raymc.errors import InputError
from raymc.space.space import load_space
from raymc.stability.side_by_side import Source
from raymc.storage.objects import is_uri

PATHS = ("path", "test", "weights")
"""The keys of the section that name files."""


def data_section(data: Any, labels: Any, storage: str) -> str | dict[str, Any]:
    """The section, or a known dataset's name, of a path, a section, an array, a tensor or a DataFrame.

    What is in memory is written to `data/` of the storage, under a name by its content. Raises InputError.
    """
    if isinstance(data, str | Path | Mapping):
        if labels is not None:
            raise InputError("labels: only beside data in memory; of a file they are its array y, or a column by label")
        return from_here(data) if isinstance(data, Mapping) else _section(Source.of(str(data)).dataset)
    if is_uri(storage):
        raise InputError(
            f"data: an array or a DataFrame cannot go to {storage}; write it to a file that every machine has, and "
            "give its path"
        )
    frame = hasattr(data, "to_parquet")
    content = _parquet(data, labels) if frame else _npz(data, labels)
    digest = hashlib.sha256(content).hexdigest()[:12]
    path = Path(storage) / "data" / (f"table-{digest}.parquet" if frame else f"array-{digest}.npz")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content)
    return {"path": str(path)} | ({"label": LABEL} if frame and labels is not None else {})


LABEL = "raymc_label"
"""The column of the labels in the file of a DataFrame."""


def from_here(section: Mapping[str, Any]) -> dict[str, Any]:
    """A `dataset` section that stands in no file: its paths are from the working folder."""
    files = {key: str(Path(section[key]).expanduser().resolve()) for key in PATHS if section.get(key)}
    return {**section, **files}


def _section(dataset: str | Mapping[str, Any]) -> str | dict[str, Any]:
    return dataset if isinstance(dataset, str) else dict(dataset)


def _npz(x: Any, y: Any) -> bytes:
    arrays = {"x": np.asarray(x)} | ({} if y is None else {"y": np.asarray(y)})
    for name, array in arrays.items():
        if array.dtype == object:
            raise InputError(f"data: {'labels' if name == 'y' else 'the array'} holds objects; expected: numbers")
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, **arrays)
    return out.getvalue()


def _parquet(frame: Any, y: Any) -> bytes:
    if LABEL in frame.columns:
        raise InputError(f"data: a column is called {LABEL}, the name that raymc gives the labels; rename it")
    if y is not None and len(y) != len(frame):
        raise InputError(f"labels: {len(y)} for {len(frame)} rows")
    frame = frame if y is None else frame.assign(**{LABEL: np.asarray(y)})
    return bytes(frame.rename(columns=str).to_parquet(None, index=False))


def space_file(space: str | Path | Mapping[str, Any], data: Any, labels: Any, storage: str, scratch: Path) -> str:
    """A name or path that `tune` takes: a file of its own where the space or the data are given in Python."""
    if data is None and not isinstance(space, Mapping):
        return str(space)
    content, stem = _content(space)
    if data is not None:
        content["dataset"] = data_section(data, labels, storage)
    elif isinstance(content.get("dataset"), Mapping):
        content["dataset"] = from_here(content["dataset"])
    path = scratch / f"{stem}.yaml"
    try:
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    except yaml.YAMLError as error:
        raise InputError(f"space: it holds what a space file cannot ({' '.join(str(error).split())})") from error
    return str(path)


def _content(space: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The sections, and what the space is called."""
    if not isinstance(space, Mapping):
        found = load_space(space)
        return dict(found.content), found.name
    words = [str(space[key]) for key in ("method", "dataset") if str(space.get(key, "-")).isidentifier()]
    return dict(space), "_".join(words) or "space"
