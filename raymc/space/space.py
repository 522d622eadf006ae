"""Search spaces: find, load and validate a file, and turn a point of the space into a configuration.

Rules that the structure (`raymc.space.format`) does not show: every key is one that the method reads; values
have their key's type and range; the preset's value of a searched key lies in its range, so that the default
is a point of the search; an entry of `first` names every searched key; no key is both fixed and searched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymc.config import Config, OwnData, Stages, known_keys, resolve
from raymc.datasets import NAMES
from raymc.errors import InputError
from raymc.former_keys import with_names_of_now, without_retired
from raymc.methods import METHODS, Method
from raymc.methods.base import UNKNOWN, Facts, Sized, preset_values
from raymc.metrics.names import STUDY_METRICS
from raymc.space import pruner, sampler
from raymc.space.conditions import active, existing, resolved
from raymc.space.format import SpaceFile, parse_space
from raymc.space.names import find_space, known_name, names_data
from raymc.space.names import space_names as space_names
from raymc.space.objective import Budget, Objective
from raymc.space.own_files import own_data
from raymc.space.parameter import Parameter, parameter_of
from raymc.space.presets import facts_of, preset_name, presets_of
from raymc.space.resources import Resources, check_stages
from raymc.space.yaml_text import read_yaml
from raymc.validation import Key, Value
from raymc.values import written

Params = Mapping[str, Value]


@dataclass(frozen=True)
class Space:
    """A validated search space.

    Attributes:
        content: the file as it was read, without defaults; the path of the user's own data made absolute.
        dataset: the name of a known dataset, or what the user's own data are called.
        stage_settings: the method's stages in order, each with the class of its settings.
        preset_values: dotted keys of the preset, as it is for the data (see `sized`).
        fixed: dotted keys that differ from the preset and are not searched.
        params: what is searched, by dotted key.
        first: points of the space that are tried first.
        own: the user's own data, None where the dataset is a known one.
        sizing: what makes the preset for the data, None where it is the same for all.
        facts: of the user's own data, once they have been read.
    """

    name: str
    path: Path
    content: Mapping[str, Any]
    method: str
    dataset: str
    preset: str
    question: str
    stage_settings: Stages
    preset_values: Params
    fixed: Params
    params: Mapping[str, Parameter]
    first: tuple[Params, ...]
    objective: Objective
    budget: Budget
    resources: Resources
    sampler: sampler.Options = sampler.TPE()
    pruner: pruner.Options | None = None
    own: OwnData | None = None
    sizing: Sized | None = None
    facts: Facts | None = None

    def sized(self, facts: Facts, ranges: bool = True) -> Space:
        """This space with the preset that is made for the user's own data; the space itself where none is.

        Raises InputError where, with `ranges`, a searched key no longer has the preset's value in its range.
        """
        if self.own is None or self.sizing is None:
            return self
        return _resized(dataclasses.replace(self, facts=facts), ranges)

    def config(self, overrides: Params | None = None, params: Params | None = None) -> Config:
        """The configuration of preset, `fixed`, a point `params` of the space and `overrides`; the last wins.

        Without the last two it is what `train` runs. Raises InputError for an unknown key or a bad value.
        """
        workers = {"workers": self.resources.workers}
        layers = (self.preset_values, workers, self.fixed, params or {}, overrides or {})
        return resolve(self.method, self.dataset, self.preset, self.stage_settings, *layers, own=self.own)

    def default_point(self) -> dict[str, Value]:
        """The values of the searched keys in the default configuration; in place of null what it stands for."""
        config = self.config()
        values = config.flat()
        for stage, settings in config.stages.items():
            for name, other in settings.NULL_MEANS.items():
                if values[f"{stage}.{name}"] is None:
                    values[f"{stage}.{name}"] = values[f"{stage}.{other}"]
        return active(self.params, {key: values[key] for key in self.params})

    def of_preset(self) -> Config:
        """The configuration of the preset alone."""
        return resolve(self.method, self.dataset, self.preset, self.stage_settings, self.preset_values, own=self.own)

    def pinned(self, overrides: Params) -> Space:
        """This space with the keys of `overrides` fixed, and no longer searched where they were."""
        overrides = with_names_of_now(without_retired(overrides), known_keys(self.stage_settings))
        self.config(overrides)
        params = {key: parameter for key, parameter in self.params.items() if key not in overrides}
        fixed = dict(self.fixed) | overrides
        space = dataclasses.replace(self, fixed=fixed, params=params)
        params = resolved(params, space.config().flat(), dropped=overrides)
        first = [{key: point[key] for key in params if key in point} for point in self.first] if params else []
        # A point without a key that exists now, since its condition is fixed, says nothing of it.
        whole = [point for point in first if active(params, point).keys() == existing(params, point)]
        space = dataclasses.replace(space, params=params, first=tuple(_unique(whole)))
        return space if self.sizing is None else _resized(space, ranges=self.own is None or self.facts is not None)

    def corners(self) -> dict[str, Params]:
        """The points that a check tries: the preset, all parameters low, all high, and those of `first`."""
        points: dict[str, Params] = {"preset": {}}
        if self.params:
            ends = {key: parameter.ends() for key, parameter in self.params.items()}
            points["low"] = active(self.params, {key: low for key, (low, _) in ends.items()})
            points["high"] = active(self.params, {key: high for key, (_, high) in ends.items()})
        return points | {f"first {i}": point for i, point in enumerate(self.first, start=1)}


def load_space(name_or_path: str | Path, methods: Mapping[str, Method] = METHODS) -> Space:
    """The space of a name in `search_spaces/` or of a file of the user's own.

    Raises InputError, in one line that begins with the file, where it is unknown or invalid.
    """
    path = find_space(name_or_path)
    content = read_yaml(path)
    try:
        return _build(path, content, parse_space(content), methods)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def make_space(
    path: Path, content: Mapping[str, Any], methods: Mapping[str, Method] = METHODS, own: OwnData | None = None
) -> Space:
    """The space of a content that stands in no file of its own, such as a cell of the table in `path`.

    `own` are data in memory, whose name is the content's `dataset`. Raises InputError where it is invalid.
    """
    return _build(path, content, parse_space(dict(content)), methods, own)


def _build(
    path: Path, content: Any, file: SpaceFile, methods: Mapping[str, Method], in_memory: OwnData | None = None
) -> Space:
    if file.method not in methods and file.method in METHODS["plain"].presets["own"]:
        raise InputError(f"unknown method {file.method}; write method: plain and preset: {file.method}")
    method = methods[known_name("method", file.method, methods)]
    own = in_memory or own_data(file.dataset, path)
    if not own and (str(file.dataset) not in NAMES and names_data(str(path.parent / str(file.dataset)))):
        raise InputError(f"dataset: a file of your own is named by its path: {{path: {file.dataset}}}")
    dataset = own.name if own else known_name("dataset", str(file.dataset), NAMES)
    if own and own is not in_memory:
        places = {key: value for key in ("path", "test", "weights") if (value := getattr(own, key)) is not None}
        content = dict(content) | {"dataset": dict(content["dataset"]) | places}
    presets = presets_of(method, dataset, own, methods)
    preset = preset_name(method, file.preset, presets, own, known=own is None and dataset in method.presets)
    values = presets[preset]
    known = known_keys(method.stage_settings)
    fixed = with_names_of_now(without_retired(file.fixed), known)
    searched = with_names_of_now(file.space, known)
    first = None if file.first is None else [with_names_of_now(point, known) for point in file.first]
    sections = [
        ("fixed", fixed),
        ("space", searched),
        *(("first", point) for point in first or ()),
    ]
    for section, keys in sections:
        for key in keys:
            known_name(f"key in {section}:", key, known)
    space = Space(
        name=path.stem,
        path=path,
        content=content,
        method=file.method,
        dataset=dataset,
        preset=preset,
        question=file.question,
        stage_settings=method.stage_settings,
        preset_values=preset_values(values),
        fixed={key: known[key].check(f"fixed.{key}", value) for key, value in fixed.items()},
        params={key: parameter_of(key, spec, known) for key, spec in searched.items()},
        first=(),
        objective=file.objective,
        budget=file.budget,
        resources=file.resources,
        sampler=file.sampler,
        pruner=file.pruner,
        own=own,
        sizing=values if callable(values) else None,
    )
    if "workers" in fixed:
        raise InputError("fixed.workers: belongs under resources, as workers")
    space = _with_preset(space)
    space = dataclasses.replace(space, params=resolved(space.params, space.config().flat()))
    _check_keys(space, ranges=own is None or space.sizing is None)
    check_stages(space.resources, method, space.config())
    return dataclasses.replace(space, first=_first(space, first, known))


def _resized(space: Space, ranges: bool) -> Space:
    """The space with its preset made anew, and what is tried first where that is the preset. Raises InputError."""
    space = _with_preset(space)
    _check_keys(space, ranges)
    if "first" in space.content or not space.params:
        return space
    return dataclasses.replace(space, first=_first(space, None, {}))


def _with_preset(space: Space) -> Space:
    """The space with its preset made for what is known of its data."""
    if space.sizing is None:
        return space
    facts = (space.facts or UNKNOWN) if space.own else facts_of(space.dataset, space.fixed)
    given = space.fixed.get("n_clusters")
    if given is not None or "n_clusters" in space.params:
        # One that is looked for or searched is not known: that of the labels would be read from them.
        facts = dataclasses.replace(facts, clusters=given if isinstance(given, int) else None)
    return dataclasses.replace(space, preset_values=space.sizing(facts))


def _check_keys(space: Space, ranges: bool) -> None:
    """The rules that tie sections together, with `ranges` also that of the preset's values. Raises InputError."""
    defaults = space.config().flat()
    for key, parameter in space.params.items():
        if key in space.fixed:
            raise InputError(f"{key}: is both fixed and searched; leave one of them out")
        default = defaults[key]
        if ranges and default is not None and not parameter.contains(default):  # null: taken from another key
            raise InputError(
                f"space.{key}: the preset's {written(default)} is outside {parameter}; widen it, so that the default "
                f"configuration is a point of the search"
            )
    goal = space.objective
    scaled = {goal.metric, goal.second} & {"probe", "silhouette", *STUDY_METRICS}
    if "scaling" in space.params and scaled:
        why = f"{scaled.pop()} compares trials among the samples as they are scaled"
        raise InputError(f"space.scaling: {why}; fix the scaling, or search by stability")


def _first(space: Space, points: list[dict[str, Any]] | None, known: Mapping[str, Key]) -> tuple[Params, ...]:
    if points is None:
        default = space.default_point()
        inside = all(space.params[key].contains(value) for key, value in default.items())
        return (default,) if default and inside else ()
    checked = []
    for i, point in enumerate(points, start=1):
        place = f"first, entry {i}"
        values = {key: _first_value(space, place, key, value, known) for key, value in point.items()}
        _check_whole(space, place, values)
        checked.append(values)
    return tuple(_unique(checked))


def _check_whole(space: Space, place: str, point: Params) -> None:
    """Raises InputError where a point lacks a key that exists at it, or has one that does not."""
    there = existing(space.params, point)
    for key, parameter in space.params.items():
        if key in there and key not in point:
            raise InputError(f"{place}: {key} is missing (an entry names every searched key)")
        if key in point and key not in there:
            when = " and ".join(f"{name} is {written(value)}" for name, value in parameter.when)
            raise InputError(f"{place}: {key} exists only where {when}; leave it out")


def _first_value(space: Space, place: str, key: str, value: Value, known: Mapping[str, Key]) -> Value:
    if key not in space.params:
        raise InputError(f"{place}: {key} is not searched")
    checked = known[key].check(f"{place}: {key}", value)
    if not space.params[key].contains(checked):
        raise InputError(f"{place}: {key} {written(checked)} is outside {space.params[key]}")
    return checked


def _unique(points: Iterable[Params]) -> list[Params]:
    """The points without repetitions, in their order: a second trial of the same point says nothing new."""
    unique: list[Params] = []
    for point in points:
        if point not in unique:
            unique.append(point)
    return unique
