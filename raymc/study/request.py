"""What the command line of `tune` asks for, checked and turned into a study's folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from optuna.trial import FrozenTrial

from raymc.atomic import folder_name
from raymc.config import NO_NUMBERS, Value
from raymc.datasets import data_facts
from raymc.errors import InputError
from raymc.masking import masked
from raymc.methods.base import Facts
from raymc.program import HEEDED, command_line, from_here
from raymc.space.sampler import Grid
from raymc.space.settled import grid_size
from raymc.space.space import Space, load_space
from raymc.storage.mirror import fetched
from raymc.storage.objects import is_uri
from raymc.storage.shared_folder import is_network
from raymc.storage.stage_store import Store
from raymc.study import folder as study
from raymc.study.counts import check_numbers
from raymc.study.database import check_url
from raymc.study.distributions import compile_space
from raymc.study.earlier import earlier_trials, taken_words
from raymc.study.limits import plan_limits
from raymc.study.manifest import budget_of, check_data, load_data, make_manifest, plan_budget, sampler_of, with_search
from raymc.study.reader import read_study
from raymc.study.records import Row
from raymc.study.resume import changed_since, check_words

SAID = ("RAYMC_STORAGE", "RAYMC_DATA")
"""Variables whose options every line that resumes has."""


@dataclass(frozen=True)
class Request:
    """What the command line of `tune` asks for; None stands for what the space or the study says."""

    space: str
    overrides: Mapping[str, Value]
    storage: str
    data: str
    name: str | None = None
    trials: int | None = None
    seeds: int | None = None
    seed: int | None = None
    concurrent: int | None = None
    address: str | None = None
    tracking_uri: str | None = None
    database: str | None = None
    hours: float | None = None
    gpu_hours: float | None = None
    source: str | None = None
    retry: str | None = None
    sampler: str | None = None
    pruner: str | None = None
    register: str | None = None
    resume: bool = False
    smoke: bool = False


def resume_line(request: Request, name: str) -> str:
    """The command that goes on with study `name` where this one stopped, with `***` for passwords."""
    space = Path(request.space).expanduser()
    place = str(space.resolve()) if space.is_file() else request.space
    words = [place, "--name", name, "--resume", "--storage", request.storage, "--data", request.data]
    asked = {
        "--trials": request.trials,
        "--hours": request.hours,
        "--gpu-hours": request.gpu_hours,
        "--concurrent": request.concurrent,
        "--address": request.address,
        "--tracking-uri": request.tracking_uri,
        "--database": request.database,
        "--register": request.register,
    }
    for option, value in asked.items():
        words += [option, str(value)] if value is not None else []
    return from_here(command_line("tune", words), [name for name in HEEDED if name not in SAID])


def _check(request: Request) -> None:
    counts = {"trials": request.trials, "seeds": request.seeds, "concurrent": request.concurrent}
    check_numbers(request.overrides, **counts, seed=request.seed)


def new_study(request: Request, tracking_uri: str) -> Path:
    """Make the study's folder, tracked at `tracking_uri`. Raises InputError before anything is made."""
    _check(request)
    if request.retry is not None:
        raise InputError("--retry: a new study has no failed trials; give --resume with it")
    space = load_space(request.space).pinned(request.overrides)
    space = with_search(space, request.sampler, request.pruner)
    seed = request.seed or 0
    budget = plan_budget(space, seed, request.trials, request.seeds, request.smoke)
    budget = replace(budget, limits=plan_limits(space, request.hours, request.gpu_hours))
    name = request.name or f"{folder_name(space.name)}-{datetime.now():%Y%m%d-%H%M%S}"
    check_storage(request.storage)
    folder = study.studies_root(request.storage) / study.check_name(name)
    study.check_new(request.storage, folder)
    url = database_of(request)
    report_folder(name)
    dataset = load_data(space, request.data, request.storage, request.smoke)
    space = space.sized(Facts.of(dataset), ranges=not request.smoke)
    check_data(space, space.config(), dataset)
    manifest = make_manifest(
        name, space, request.overrides, budget, dataset, seed=seed, smoke=request.smoke, tracking_uri=tracking_uri
    )
    manifest |= {"database": url and masked(url), "places": places(request)}
    distributions, earlier = compile_space(space.params), list[FrozenTrial]()
    if request.source is not None:
        if isinstance(space.sampler, Grid):
            raise InputError("--from: the sampler grid learns from no trial; leave it out, or take another")
        place = study.find_study(request.storage, request.source)
        with fetched(request.storage, f"studies/{place.name}") as there:
            source = read_study(there)
        earlier, left = earlier_trials(source, manifest, space, dataset, distributions, budget)
        manifest["taken"] = {"study": source.name, "trials": len(earlier), "left": dict(left)}
        print(taken_words(manifest["taken"]), file=sys.stderr)
    journal = not is_uri(request.storage) and (request.address is not None or is_network(Path(request.storage)))
    study.create_study(request.storage, folder, manifest, space, distributions, url, earlier, journal)
    return folder


def existing_study(request: Request) -> Path:
    """The study to resume: by its name, else the newest of the space. Raises InputError."""
    _check(request)
    name = Path(request.space).stem
    check_storage(request.storage)
    if request.name:
        folder = study.find_study(request.storage, request.name)
    else:
        folder = study.newest_study(request.storage, name)
    manifest = study.stored_manifest(request.storage, folder.name)
    before = manifest.get("space", {}).get("name")
    if before is None:
        raise InputError(f"study.json of {folder.name} cannot be read")
    if before != name:
        raise InputError(f"study {folder.name} searches {before}, not {name}")
    check_words(manifest, request.overrides, request.seed, request.seeds)
    taken = manifest.get("taken", {}).get("study")
    if request.source not in (None, taken):
        was = f"--from {taken}" if taken else "no --from"
        raise InputError(f"study {folder.name} was begun with {was}, not {request.source}; give another --name")
    if changed := changed_since(manifest, request.space):
        print(f"raymc: {changed}", file=sys.stderr)
    return folder


def places(request: Request) -> Row:
    """Where the study and the datasets are, for commands that begin with neither."""
    return {"storage": masked(request.storage), "data": request.data}


def check_storage(storage: str) -> None:
    """Raises InputError where an object store does not answer or cannot be written."""
    if is_uri(storage):
        Store(storage)


def database_of(request: Request) -> str | None:
    """The server that a new study keeps its trials on, from the command line or RAYMC_DATABASE; None: a file."""
    url = request.database or os.environ.get("RAYMC_DATABASE")
    return check_url(url) if url else None


def database_again(request: Request, manifest: Row) -> str | None:
    """The same for a study that exists, whose manifest has no password. Raises InputError where one is missing."""
    before = manifest.get("database")
    if before is None:
        if request.database:
            raise InputError(f"study {manifest['study']} keeps its trials in a file of its own; leave out --database")
        return None
    url = database_of(request) or (before if "***" not in before else None)
    if url is None:
        raise InputError(f"study {manifest['study']} keeps its trials at {before}; give --database with the password")
    return url


def take_up(request: Request, folder: Path, manifest: Row, space: Space) -> None:
    """Extend the study where more trials are asked for. Raises InputError where it cannot go on as it began."""
    _check_unchanged(manifest, space)
    if request.smoke and not manifest["smoke"]:
        raise InputError(f"study {folder.name} is no smoke run; leave out --smoke")
    if manifest["smoke"] and not request.smoke:
        print(f"raymc: study {folder.name} is a smoke run, and goes on as one", file=sys.stderr)
    now = {"sampler": sampler_of(manifest, space).name, "pruner": budget_of(manifest, space).pruner.name}
    for option, given in (("sampler", request.sampler), ("pruner", request.pruner)):
        before = manifest.get("asked", {}).get(option) or now[option]
        if given not in (None, before, now[option]):
            raise InputError(f"study {folder.name} began with --{option} {before}, and cannot go on with {given}")
    manifest["places"] = places(request)
    asked = manifest["budget"]["trials"]
    trials = request.trials or asked
    if trials < asked:
        raise InputError(f"study {folder.name} was asked for {asked} trials; --trials {trials} would take some away")
    if isinstance(sampler_of(manifest, space), Grid) and trials > (points := grid_size(space.params)):
        raise InputError(f"sampler grid: {space.name} has {points} points, fewer than --trials {trials}")
    if trials > asked and not space.params:
        raise InputError(f"{space.name} searches nothing: there is one trial, not {trials}")
    found, before = data_facts(load_data(space, request.data, request.storage, manifest["smoke"])), manifest["data"]
    for key, words in (("fingerprint", "samples"), ("labels", "labels"), ("held_out", "held-out samples")):
        if key in before and found[key] != before[key]:
            raise InputError(f"the {words} of {space.dataset} are not those that study {folder.name} began with")
    if trials > asked and manifest["budget"].get("patience"):
        study_now = read_study(folder)
        scored = sum(study_now.feasible(trial) for trial in study_now.finished)
        manifest["budget"]["patience_from"] = scored  # from here on it counts anew
    manifest["budget"] |= {"trials": trials} | _more(request, folder, manifest, space)


def _more(request: Request, folder: Path, manifest: Row, space: Space) -> Row:
    """The hours that are asked for, where that is not less than the study had. Raises InputError."""
    limits, found = plan_limits(space, request.hours, request.gpu_hours), {}
    for option, name in (("--hours", "hours"), ("--gpu-hours", "gpu_hours")):
        before, now = manifest["budget"].get(name), getattr(request, name)
        if now is not None and before is not None and now < before:
            raise InputError(f"study {folder.name} was given {option} {before:g}; {now:g} would take some away")
        if now is not None:
            found[name] = getattr(limits, name)
    return found


def _check_unchanged(manifest: Row, space: Space) -> None:
    """Raises InputError where a preset of now gives a key another value than the study's trials have.

    Keys of one version alone are left out: retired, renamed and later ones; and those on which no figure hangs.
    """
    now = space.config().flat()
    for key, before in manifest["fixed"].items():
        if key in now and key not in (*space.params, *NO_NUMBERS) and now[key] != before:
            raise InputError(
                f"{key}: study {manifest['study']} began with {before}, and preset {space.preset} has {now[key]} now; "
                "go on with the version that made it, or make a new study"
            )


def report_folder(name: str) -> Path:
    """Where the report of `name` goes. Raises InputError where the working folder does not take it."""
    folder = Path("reports").resolve() / name
    above = next(parent for parent in folder.parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"reports are written to the working folder, and {above} cannot be written")
    return folder
