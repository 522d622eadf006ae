"""What `raymc train` does once its target is known to be there: torch and all the rest are imported here."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from raymc.atomic import folder_name
from raymc.cli import results, storage_root
from raymc.config import Config, Value, parse_overrides
from raymc.datasets import data_root
from raymc.errors import InputError, Interrupted, RaymcError, unwritable
from raymc.masking import masked
from raymc.methods import METHODS
from raymc.metrics.names import LABEL_FREE_METRICS, LABEL_METRICS
from raymc.program import same_command
from raymc.space.again import CONFIG, as_trained, write_config
from raymc.space.sized import sized
from raymc.space.space import Space, load_space
from raymc.storage.objects import is_uri
from raymc.study.names import check_target
from raymc.study.words import about_the_data, configured
from raymc.training.features.data import Setting
from raymc.training.model_files import check_names
from raymc.training.progress import progress
from raymc.training.run import run as train
from raymc.training.stages import seeds_of
from raymc.training.training import pick_device

if TYPE_CHECKING:
    from raymc.study.target import Winner


SHOWN = ("name", "epochs", "cached", "seconds", "trained")
"""Of a stage's record, what `--json` has; `trained` are its seconds over all sittings."""


def train_one(args: argparse.Namespace) -> dict[str, Any]:
    """Train, print where the results are, and return what `--json` prints."""
    space, won = _target(args)
    _check_workers(args, space)
    tracking_uri = _tracking(args)
    out = (
        (args.out or Path("runs") / f"{folder_name(space.name)}-{datetime.now():%Y%m%d-%H%M%S}").expanduser().resolve()
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(out, error, args.out is not None) from error
    try:
        with progress() as report:
            setting = Setting(storage_root(args), device=pick_device(None), report=report)
            space = sized(space, str(data_root(args.data)), setting, args.smoke)
        given: dict[str, Value] = {"seed": args.seed, "workers": args.workers}
        if won is not None:
            given |= {"seed": won.seed if args.seed is None else args.seed, "seeds_from": won.target.seeds_from}
        config = space.config({key: value for key, value in given.items() if value is not None})
        stages = tuple(space.stage_settings)
        trained = [s.name for s in METHODS[space.method].stages(config) if config.stages[s.name].epochs]
        if args.start_from is not None and args.start_from not in trained:
            raise InputError(f"--from: {args.start_from} is not one of the stages that train: {', '.join(trained)}")
        _check_registered(args.register, config)
        base = won.target.base_seed if won else 0
        result = _train(config, stages, args, out, base)
        again, but = as_trained(space, config, config.seeds_from, base)
        write_config(out / CONFIG, space, again, but, args.smoke)
        logged = {} if tracking_uri is None else _logged(out, tracking_uri, space.name, config, result, args.register)
    except KeyboardInterrupt as error:  # epochs are checkpointed: the same command goes on from there
        raise Interrupted(same_command("train", *([] if args.out else ["--out", str(out)]))) from error
    except RaymcError:
        with contextlib.suppress(OSError):  # an empty folder says nothing; one with files stays
            out.rmdir()
        raise
    _tell(result, logged, results(args))
    return {
        "method": result["method"],
        "dataset": result["dataset"],
        "seed": result["seed"],
        "metrics": result["metrics"],
        "stages": [{k: stage[k] for k in SHOWN if k in stage} for stage in result["stages"]],
        "n": result["n"],
        "split": result["split"],
        "clusters_by": result["clusters_by"],
        "remarks": result.get("remarks", []),
        "smoke": result["smoke"],
        "out": str(out),
        **logged,
    }


def _target(args: argparse.Namespace) -> tuple[Space, Winner | None]:
    """The space to train by, with what is given pinned; of a study with its winner's parameters, and that winner."""
    overrides, storage = parse_overrides(args.overrides), storage_root(args)
    if not check_target(args.space, storage):
        return load_space(args.space).pinned(overrides), None
    from raymc.study.target import find_winner

    won = find_winner(storage, args.space, overrides)
    target, trial, seed = won
    words = f"trial {trial} of study {target.name}: {configured(target.params)}, seed {seed}"
    print(words if args.seed is None else f"{words} there, {args.seed} here", file=sys.stderr)
    return target.space.pinned(target.params), won


def _check_workers(args: argparse.Namespace, space: Space) -> None:
    from raymc.execution.room import check_workers

    if args.address is None:
        check_workers(space.config().workers if args.workers is None else args.workers)


def _tracking(args: argparse.Namespace) -> str | None:
    """The MLflow in which the training is recorded; None: in none. Raises InputError."""
    if args.tracking_uri is None and args.register is None:
        return None
    from raymc.tracking import uri

    return uri.resolve(args.tracking_uri)


def _check_registered(name: str | None, config: Config) -> None:
    """Raises InputError where the model will be none that is registered under `name`."""
    own = config.own
    if name is not None:
        try:
            check_names(config.backbone, own.encoder if own else None)
        except InputError as error:
            raise InputError(f"--register {name}: such a model is not registered: {error}") from error


def _logged(
    out: Path, tracking_uri: str, experiment: str, config: Config, result: Mapping[str, Any], register: str | None
) -> dict[str, Any]:
    """Record the training and its model; what `--json` says of that."""
    from raymc.tracking.model import log_training

    try:
        logged = log_training(out, tracking_uri, experiment, config, result, register)
    except InputError as error:  # the training is done: what it left is told all the same
        asked = "" if register is None else f"--register {register}: "
        print(f"{asked}the model is not in MLflow: {error}", file=sys.stderr)
        return {"tracking_uri": masked(tracking_uri)}
    named = {} if register is None else {"registered": {"name": register, "version": logged.version}}
    return {"tracking_uri": masked(tracking_uri), "run_id": logged.run_id, "model_id": logged.model_id, **named}


def _train(
    config: Config, stages: tuple[str, ...], args: argparse.Namespace, out: Path, base_seed: int
) -> dict[str, Any]:
    common: dict[str, Any] = {
        "storage": storage_root(args),
        "data": str(data_root(args.data)),
        "out": out,
        "start_from": args.start_from,
        "smoke": args.smoke,
        "keep_model": True,
        "keep_rows": True,
        # Alone, a seed means every stage, unless seeds_from is asked for: then earlier stages keep seed 0 (a study's).
        "stage_seeds": seeds_of(stages, config.seed, base_seed, config.seeds_from, config.varies),
    }
    if config.workers == 1 and args.address is None:
        with progress() as report:
            return train(config, report=report, **common)
    from raymc.execution.cluster import ray_session
    from raymc.execution.driver import node_resources, plan_slots, quiet_environment
    from raymc.execution.needs import Needs
    from raymc.execution.nodes import check_shared, machines
    from raymc.execution.relay import run_and_report
    from raymc.execution.room import check_room
    from raymc.execution.worker import Job

    print(f"{config.workers} worker{'s' * (config.workers > 1)} under Ray Train", file=sys.stderr)
    quiet_environment()
    with ray_session(args.address, dashboard=True), progress() as report:
        if args.address is not None and not is_uri(storage_root(args)):
            check_shared(out)
        nodes = node_resources()
        gpus = float(any(node.get("GPU") for node in nodes))
        needs = Needs(config.workers, gpus, 1.0)
        if args.address is not None:
            check_room(needs, machines())
        slots = plan_slots(needs, nodes, 1, fixed=args.address is None)
        job = Job(config=config, **common)
        return run_and_report(job, Needs(config.workers, slots.gpus_per_worker, slots.cpus_per_worker), report)


def _tell(result: Mapping[str, Any], logged: Mapping[str, Any], out: TextIO) -> None:
    shown = (*LABEL_METRICS, "clustered_acc", "test_acc", *LABEL_FREE_METRICS)
    metrics = "  ".join(f"{name} {result['metrics'][name]:.4f}" for name in shown if name in result["metrics"])
    mark = "smoke run, every length shortened, the figures mean nothing: " if result["smoke"] else ""
    print(f"{mark}{result['method']} on {result['dataset']} ({result['split']}): {metrics}", file=out)
    if said := about_the_data(result):
        print(said, file=out)
    print(f"clusters: {result['clusters_by']}{_empty(result)}", file=out)
    print(f"minutes: {_minutes(result['stages'])}", file=out)
    for name in dict.fromkeys(stage["checkpoint"] for stage in result["stages"] if "checkpoint" in stage):
        print(f"started from the float16 weights of checkpoint {name}", file=out)
    if "model_id" in logged:
        named = logged.get("registered")
        words = f", registered as {named['name']} version {named['version']}" if named else ""
        print(f"model in MLflow at {logged['tracking_uri']}{words}", file=out)
    print(f"labels.csv, embedding, model, metrics and configuration: {result['out']}", file=out)


def _empty(result: Mapping[str, Any]) -> str:
    used, asked = int(result["metrics"]["clusters_used"]), result["n_clusters"]
    return f"; {used} of {asked} have samples, the others are empty" if used < asked else ""


def _minutes(stages: Sequence[Mapping[str, Any]]) -> str:
    """Of each stage and of all, as in MLC's Table 3: over all sittings, and how much of it was now."""
    took = [one.get("trained", one["seconds"]) for one in stages]
    marks = [" (from the store)" if one["cached"] else "" for one in stages]
    each = [f"{one['name']} {t / 60:.2f}{mark}" for one, t, mark in zip(stages, took, marks, strict=True)]
    whole, now = sum(took), sum(one["seconds"] for one in stages if not one["cached"])
    return f"{', '.join(each)}, trained {whole / 60:.2f}" + (f", {now / 60:.2f} of it now" if whole > now else "")
