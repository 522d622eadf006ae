"""`python -m raymc.check [SPACE ...]`: validate search spaces and take one step of each stage on real data."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any, TextIO

from raymc.cli import Parser, make_parser, results, storage_root
from raymc.errors import InputError, TrainingError
from raymc.space.names import checked_space, space_names
from raymc.study.words import configured

if TYPE_CHECKING:
    from raymc.datasets import Dataset
    from raymc.space.space import Space


def parser() -> Parser:
    """The options of `check`."""
    parser = make_parser(
        "check", "Validate search spaces; where the data are here, run one step of each stage.", ("storage", "data")
    )
    parser.add_argument(
        "spaces",
        nargs="*",
        metavar="SPACE",
        help="names or files (default: all that come with raymc, then one step of every method on every dataset here)",
    )
    parser.add_argument("--matrix", action="store_true", help="only one step of every method on every dataset here")
    return parser


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Check every space and print a line on each, or the matrix of methods and datasets, or both.

    Raises InputError when a space is invalid.
    """
    out = results(args)
    if args.matrix:
        if args.spaces:
            raise InputError("--matrix is of all methods and datasets; leave out the names of spaces")
        return {"spaces": [], "matrix": _matrix(args.data, out)}
    names = args.spaces or space_names()
    width = max(map(len, names))
    found = []
    for name in names:
        begun = time.monotonic()
        verdict = examine(name, args.data, storage_root(args))
        found.append(verdict)
        word = "ok" if verdict["valid"] else "INVALID"
        words = verdict["why"] or f"one step of each stage at {', '.join(verdict['points'])}"
        print(f"{name:{width}}  {word:7}  {words} ({time.monotonic() - begun:.1f} s)", file=out, flush=True)
        for remark in verdict["remarks"]:
            print(f"{'':{width}}  note     {remark}", file=out, flush=True)
    result: dict[str, Any] = {"spaces": found} | ({} if args.spaces else {"matrix": _matrix(args.data, out)})
    wrong = [verdict["name"] for verdict in found if not verdict["valid"]]
    if wrong:
        error = InputError(f"{len(wrong)} of {len(found)} spaces are invalid: {', '.join(wrong)}")
        error.result = result
        raise error
    return result


def _matrix(data: str | None, out: TextIO) -> list[dict[str, Any]]:
    from raymc.commands.matrix import matrix

    return matrix(data, out)


def examine(name: str, data: str | None, storage: str) -> dict[str, Any]:
    """What there is to say of one space: `valid`, `stepped`, at which `points`, and `why` not."""
    verdict: dict[str, Any] = {"name": name, "valid": False, "stepped": False, "why": None, "points": [], "remarks": []}
    try:
        checked_space(name)  # what is wrong here is said before torch is imported
        from raymc.space.space import load_space

        space = load_space(name)
    except InputError as error:
        return verdict | {"why": str(error)}
    from raymc.methods.base import Facts
    from raymc.space.seeds import remarks
    from raymc.training.features.data import Setting, load_data

    verdict |= {"name": space.name, "remarks": remarks(space)}
    try:
        # Of an encoder's features a few are enough for one step.
        dataset = load_data(space.config(), data, Setting(storage), smoke=True)
    except InputError as error:
        if space.own:  # a known dataset may be elsewhere, but the space says where these are
            return verdict | {"why": str(error)}
        return verdict | {"valid": True, "why": f"no step: {error}"}
    if space.objective.uses_labels and dataset.train.y is None:
        verdict["remarks"] = [*verdict["remarks"], f"tune: {space.objective.metric} needs labels, which are not there"]
    try:
        few = space.own is not None and space.own.encoder is not None
        points = take_steps(space.sized(Facts.of(dataset), ranges=not few), dataset)
        return verdict | {"valid": True, "stepped": True, "points": points}
    except (InputError, TrainingError) as error:
        return verdict | {"why": str(error)}


def take_steps(space: Space, dataset: Dataset) -> list[str]:
    """One step of each stage at the preset, the low and the high end and the first points; their names.

    Raises InputError or TrainingError that names the point.
    """
    from raymc.training.smoke import one_step

    tried = []
    done = []
    for title, point in space.corners().items():
        config = space.config(params=point)
        if config in done:
            continue
        try:
            one_step(config, dataset)
        except (InputError, TrainingError) as error:
            where = f"{title} ({configured(point)})" if point else f"the {title}"
            raise type(error)(f"at {where}: {error}") from error
        tried.append(title)
        done.append(config)
    return tried
