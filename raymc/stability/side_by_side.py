"""Methods side by side on one set of data, each with its own preset: what `raymc cluster` runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raymc.config import Value, nearest
from raymc.datasets import NAMES, Dataset
from raymc.errors import InputError
from raymc.methods import METHODS
from raymc.methods.base import Facts
from raymc.space.space import Space, make_space
from raymc.stability.configurations import Configuration
from raymc.study.manifest import check_data

PLAIN = tuple(METHODS["plain"].presets["own"])
"""Presets of the method `plain`, by whose names they are asked for."""

DEFAULT_METHODS = ("kmeans", "gmm", "spectral", "turtle", "nmce", "mlc", "gcml")
"""What is run where no methods are asked for, as far as it takes the data."""


@dataclass(frozen=True)
class Source:
    """The data of all of them: the section `dataset` of a space file, and what they are called."""

    name: str
    dataset: str | Mapping[str, Any]

    @staticmethod
    def of(data: str, **keys: object) -> Source:
        """Of a known dataset's name, else of a path; `keys` are those of the section that are not None or False.

        Raises InputError for no name at all, and for keys of a file where a known dataset is named.
        """
        if not data.strip():
            raise InputError("DATA is empty; expected: a folder, a file, or the name of a known dataset")
        given = {key: value for key, value in keys.items() if value not in (None, False)}
        place = Path(data).expanduser()
        known = data in NAMES and not place.exists()
        if known and "encoder" not in given:
            _check_known(data, given)
            return Source(data, data)
        path = data if known else str(place.resolve())
        stem = data if known else place.resolve().stem
        name = f"{stem}-{given['encoder'].partition(':')[0]}" if "encoder" in given else stem  # type: ignore[attr-defined]
        name = f"{name}-data" if name in NAMES else name
        return Source(name, {"path": path, "name": name, **given})

    @property
    def origin(self) -> dict[str, str | None]:
        """Whose results they are: `data`, a path or a known dataset's name, and `encoder`."""
        if isinstance(self.dataset, str):
            return {"data": self.dataset, "encoder": None}
        return {"data": self.dataset["path"], "encoder": self.dataset.get("encoder")}


def _check_known(data: str, given: Mapping[str, object]) -> None:
    """Raises InputError for any of the keys that are `given` beside a known dataset's name without an encoder."""
    key = next(iter(given), None)
    if key in ("weights", "text"):
        raise InputError(f"--{key} is for an encoder, and none is named")
    if key is not None:
        raise InputError(f"--{key} is for files of your own, and {data} is a known dataset")


def check_names(names: Sequence[str]) -> None:
    """Raises InputError for a name that is missing or no method's, with the nearest, and for one that stands twice."""
    able = (*PLAIN, *(name for name in METHODS if name != "plain"))
    for at, name in enumerate(names):
        if not name:
            raise InputError(f"--methods: a name is missing (known: {', '.join(able)})")
        if name not in able:
            raise InputError(f"--methods: unknown method {name}{nearest(name, able)} (known: {', '.join(able)})")
        if name in names[:at]:
            raise InputError(f"--methods: {name} stands twice")


def configuration_of(name: str, source: Source, n_clusters: Value, smoke: bool) -> Configuration:
    """The method `name` with its preset for the data. Raises InputError where it has none."""
    plain = name in PLAIN
    content = {"method": "plain" if plain else name, "dataset": source.dataset}
    content |= {"preset": name} if plain else {}
    content |= {"fixed": {"n_clusters": n_clusters}} if n_clusters is not None else {}
    return Configuration.of(make_space(Path.cwd() / f"{name}.yaml", content), {}, name, smoke)


@dataclass(frozen=True)
class Fitting:
    """Those that take the data, and why others do not."""

    configurations: tuple[Configuration, ...]
    left_out: Mapping[str, str]


def fitting(names: Sequence[str], source: Source, dataset: Dataset, n_clusters: Value, smoke: bool) -> Fitting:
    """Those of `names` that take the data. Raises InputError where none does."""
    able: list[Configuration] = []
    left_out: dict[str, str] = {}
    for name in names:
        try:
            one = configuration_of(name, source, n_clusters, smoke)
            sized = replace(one, space=one.space.sized(Facts.of(dataset), ranges=False))
            check_data(sized.space, sized.config, dataset, objective=False)
            able.append(sized)
        except InputError as error:
            left_out[name] = str(error)
    if not able:
        raise InputError(f"no method takes these data: {'; '.join(f'{name}: {why}' for name, why in left_out.items())}")
    return Fitting(tuple(able), left_out)


def space_of(source: Source, n_clusters: int) -> Space:
    """A space on the data, by which they are loaded. Raises InputError for data that cannot be."""
    return configuration_of("kmeans", source, n_clusters, False).space
