"""Several configurations on the same seeds: `raymc.stability --vs`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raymc.config import Value, known_keys, nearest
from raymc.datasets import Dataset
from raymc.errors import InputError, TrainingError
from raymc.execution.cluster import ray_session
from raymc.execution.driver import quiet_environment
from raymc.execution.session import needs_of
from raymc.reporting.stability.page import write_stability
from raymc.reporting.steady import FACTS, read_stability
from raymc.search.records import Row
from raymc.search.steadiness import (
    arm_facts,
    dated,
    ended,
    first_error,
    give,
    has_finished,
    keep,
    make_folder,
    run_facts,
    running,
)
from raymc.search.steady_request import Configuration, StabilityRequest, check_numbers, configuration, seeds_to_run
from raymc.space.space import Space
from raymc.study.manifest import check_data, load_data
from raymc.study.request import report_folder
from raymc.tracking import uri
from raymc.tracking.study import StudyTracker
from raymc.training.outputs import write_json


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
    out = report_folder(name)
    folder = make_folder(request.storage, name)
    facts = {"name": name, "arms": [arm.name for arm in arms], "seeds": list(seeds)}
    facts |= run_facts(request, dataset, tracking_uri)
    begun = time.monotonic()
    write_json(folder / FACTS, facts)
    give(request.storage, folder)
    quiet_environment()
    with ray_session(request.address, dashboard=any(needs_of(arm.chosen.space).workers > 1 for arm in arms)):
        for arm in arms:
            place = folder / arm.name
            place.mkdir()
            own = {"overrides": arm.overrides, "tracking_uri": facts["tracking_uri"]}
            write_json(place / FACTS, arm_facts(request, arm.chosen, dataset, arm.name, seeds) | own)
            with running(request, arm.chosen, dataset, place, f"{name}-{arm.name}", seeds, tracking_uri):
                pass
    write_json(folder / FACTS, ended(facts, begun))
    give(request.storage, folder)
    page = str(write_stability(folder, out))
    _keep_with_all(arms, folder, out, tracking_uri)
    found = read_stability(folder)
    result = found.result | {"report": page, "arms": [arm.result | {"report": page} for arm in found.arms]}
    return result, found.records


def _keep_with_all(arms: Sequence[Arm], folder: Path, out: Path, tracking_uri: str) -> None:
    """Go on with each arm's run in MLflow, to keep the report of all of them with it.

    The runs have ended when their arm did, so that one that is interrupted leaves those before it as they are. Where
    MLflow does not answer, the others' runs are not waited for.
    """
    for arm in arms:
        title, space = f"{folder.name}-{arm.name}", arm.chosen.space.name
        tracker = StudyTracker(folder / arm.name, study=title, space=space, tracking_uri=tracking_uri)
        tracker.start()
        keep(tracker, out)
        if not tracker.close():
            break


def make_arms(request: StabilityRequest) -> list[Arm]:
    """The arms in their order, each with the overrides that its method knows.

    Raises InputError for an unknown target, a key that no arm's method knows, and a bad value.
    """
    asked = [dataclasses.replace(request, target=word) for word in (request.target, *request.vs)]
    plain = [configuration(dataclasses.replace(one, overrides={})) for one in asked]
    keys = [known_keys(chosen.space.stage_settings) for chosen in plain]
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


def check_finished(result: Row, found: Sequence[Row]) -> None:
    """Raises TrainingError, with `result`, where an arm has no finished seed."""
    failed = [i for i, record in enumerate(found) if not has_finished(record)]
    if failed:
        names = " and ".join(result["arms"][i]["name"] for i in failed)
        why = f"no seed of {names} finished; the first error: {first_error(found[failed[0]])}"
        error = TrainingError(f"{why}; report: {result['report']}")
        error.result = result
        raise error
