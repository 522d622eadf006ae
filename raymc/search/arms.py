"""Several configurations on the same seeds: `raymc.stability --vs`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from raymc.config import Value, known_keys, nearest
from raymc.datasets import Dataset
from raymc.errors import InputError, TrainingError
from raymc.scale.local import ray_session
from raymc.search.arms_report import write_arms
from raymc.search.comparison import common_seeds, compare_arms, shared_stages
from raymc.search.driver import quiet_environment
from raymc.search.manifest import check_data, load_data
from raymc.search.records import Row
from raymc.search.request import report_folder
from raymc.search.sitting import needs_of
from raymc.search.steadiness import dated, first_error, has_finished, make_folder, running
from raymc.search.steady_request import Configuration, StabilityRequest, check_numbers, configuration, seeds_to_run
from raymc.space import Space
from raymc.tracking import uri


@dataclass(frozen=True)
class Arm:
    """One of the configurations that are compared; `overrides` are those of the command line that its method knows."""

    name: str
    chosen: Configuration
    overrides: dict[str, Value]


def compare(request: StabilityRequest) -> tuple[Row, list[Row]]:
    """Run all arms on the same seeds; what `stability --vs --json` prints, and each arm's record of the seeds.

    The arms run one after the other, so that a later one finds the stages that it shares in the store.

    Raises InputError for what is wrong before anything is made. Whether every arm has a finished seed tells
    `check_finished`, so that the others' figures can be shown first.
    """
    check_numbers(request)
    arms = make_arms(request)
    dataset = _common_data(request, arms)
    tracking_uri = uri.resolve(request.tracking_uri)
    seeds = seeds_to_run(request, [seed for arm in arms for seed in arm.chosen.used])
    name = dated(_title(arms))
    report_folder(name)
    folder = make_folder(request.storage, name)
    results, found = [], []
    quiet_environment()
    with ray_session(request.address, dashboard=any(needs_of(arm.chosen.space).workers > 1 for arm in arms)):
        for arm in arms:
            place, title = folder / arm.name, f"{name}-{arm.name}"
            place.mkdir()
            with running(request, arm.chosen, dataset, place, title, seeds, tracking_uri) as (one, record):
                results.append(one | {"overrides": arm.overrides})
                found.append(record)
    result = _result(name, results, found) | {
        "seeds": list(seeds),
        "smoke": request.smoke,
        "folder": str(folder),
        "tracking_uri": uri.masked(tracking_uri),
    }
    result["report"] = str(write_arms(report_folder(name), result, found))
    return result, found


def make_arms(request: StabilityRequest) -> list[Arm]:
    """The arms in their order, each with the overrides that its method knows.

    Raises InputError for an unknown target, a key that no arm's method knows, and a bad value.
    """
    asked = [dataclasses.replace(request, target=word) for word in (request.target, *request.vs)]
    plain = [configuration(dataclasses.replace(one, overrides={})) for one in asked]
    keys = [known_keys(chosen.space.stage_keys) for chosen in plain]
    known = {key for one in keys for key in one}
    for key in request.overrides:
        if key not in known:
            methods = " and ".join(dict.fromkeys(chosen.space.method for chosen in plain))
            raise InputError(f"unknown key {key} of {methods}{nearest(key, sorted(known))}")
    arms = []
    for name, one, own in zip(_names(asked, plain), asked, keys, strict=True):
        overrides = {key: value for key, value in request.overrides.items() if key in own}
        arms.append(Arm(name, configuration(dataclasses.replace(one, overrides=overrides)), overrides))
    return arms


def _names(asked: Sequence[StabilityRequest], chosen: Sequence[Configuration]) -> list[str]:
    """The words of the command line, of a file its stem; with `-2`, `-3`, … where there was one before."""
    taken: list[str] = []
    for one, found in zip(asked, chosen, strict=True):
        # Seeds were used: it is a study, whose name is its own though it may end like a file's.
        word = one.target if found.used else found.space.name
        number, name = 1, word
        while name in taken:
            number += 1
            name = f"{word}-{number}"
        taken.append(name)
    return taken


def _common_data(request: StabilityRequest, arms: Sequence[Arm]) -> Dataset:
    """The samples that all arms train on. Raises InputError where there is no such thing."""
    first = arms[0]
    for arm in arms[1:]:
        if (arm.chosen.space.dataset, arm.chosen.space.own) != (first.chosen.space.dataset, first.chosen.space.own):
            raise InputError(
                f"{first.name} is on {_place(first.chosen.space)}, {arm.name} on {_place(arm.chosen.space)}: two "
                "datasets cannot be compared by seed"
            )
        here, there = (one.chosen.space.config(params=one.chosen.params) for one in (first, arm))
        for key in ("n_samples", "scaling"):
            mine, theirs = getattr(here, key), getattr(there, key)
            if mine != theirs:
                raise InputError(
                    f"{first.name} and {arm.name} train on different samples: {key} is {mine} and {theirs}"
                )
    dataset = load_data(first.chosen.space, request.data, request.smoke, first.chosen.params)
    for arm in arms:
        space = arm.chosen.space
        check_data(space, space.config(params=arm.chosen.params), dataset, objective=False)
    return dataset


def _place(space: Space) -> str:
    return space.own.path if space.own else space.dataset


def _title(arms: Sequence[Arm]) -> str:
    more = f"-and-{len(arms) - 2}-more" if len(arms) > 2 else ""
    return f"{arms[0].name}-vs-{arms[1].name}{more}"


def _result(name: str, results: list[Row], found: Sequence[Row]) -> Row:
    """What the arms' results say together."""
    page = str(report_folder(name) / "stability.md")
    shared = shared_stages(found)
    return {
        "name": name,
        "arms": [one | {"report": page} for one in results],
        "comparisons": compare_arms([one["name"] for one in results], found),
        "common_seeds": common_seeds(found),
        "shared_stages": list(shared),
        "shared_keys": shared,
    }


def check_finished(result: Row, found: Sequence[Row]) -> None:
    """Raises TrainingError, with `result`, where an arm has no finished seed."""
    failed = [i for i, record in enumerate(found) if not has_finished(record)]
    if failed:
        names = " and ".join(result["arms"][i]["name"] for i in failed)
        why = f"no seed of {names} finished; the first error: {first_error(found[failed[0]])}"
        error = TrainingError(f"{why}; report: {result['report']}")
        error.result = result
        raise error
