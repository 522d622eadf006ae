"""`python -m raymc.data [list | check NAME | get NAME]`: what is known, what is there, how its files must be."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymc.cli import make_parser, results
from raymc.errors import InputError, check_parent
from raymc.program import command_line

if TYPE_CHECKING:
    from raymc.datasets.source import Source

HEAD = ("name", "samples", "classes", "shape", "present", "files belong in")


def parser() -> argparse.ArgumentParser:
    """The options of `raymc data`."""
    parser = make_parser("data", "List the known datasets, verify one, or download one.", ("data",))
    parser.add_argument("action", nargs="?", default="list", choices=("list", "check", "get"))
    parser.add_argument("name", nargs="?", help="of the dataset that is checked or downloaded")
    return parser


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Do what `args` say; the answer in words goes to standard error where `--json` has standard output."""
    if args.action == "list" and args.name is not None:
        raise InputError(f"list takes no name; to look at one dataset: check {args.name}")
    if args.action != "list" and args.name is None:
        raise InputError(f"{args.action}: which dataset? ({command_line('data', ['list'])} lists them)")
    from raymc.datasets.base import data_root
    from raymc.datasets.catalogue import SOURCES, source_of

    root = data_root(args.data)
    out = results(args)
    if args.action == "list":
        rows = [_row(source, root) for source in SOURCES.values()]
        print(_table(rows, root), file=out)
        return {"root": str(root), "datasets": rows}
    source = source_of(args.name)
    if args.action == "get" and (given := args.data or os.environ.get("RAYMC_DATA")):
        check_parent(root, f"{'--data' if args.data else 'RAYMC_DATA'} {given}")
    result = _check(source, root) if args.action == "check" else _get(source, root)
    print(result.pop("words"), file=out)
    return result


def _line(root: Path, *words: str) -> str:
    return command_line("data", [*words, "--data", str(root)])


def _row(source: Source, root: Path) -> dict[str, Any]:
    return {
        "name": source.name,
        "samples": list(source.samples),
        "classes": source.classes,
        "shape": list(source.shape),
        "present": not source.folders or source.found(root) is not None,
        "folders": list(source.folders),
    }


def _table(rows: list[dict[str, Any]], root: Path) -> str:
    from raymc.reporting.aligned import aligned

    cells = [HEAD]
    for row in rows:
        size = " + ".join(map(str, row["samples"]))
        shape = "x".join(map(str, row["shape"]))
        place = " or ".join(row["folders"]) or "no files needed"
        cells.append((row["name"], size, str(row["classes"]), shape, "yes" if row["present"] else "no", place))
    return "\n".join(
        [aligned(cells), f"folders are below {root} (--data, else RAYMC_DATA, else the user's cache folder)"]
    )


def _check(source: Source, root: Path) -> dict[str, Any]:
    result = source.check(root)
    place = root / result["folder"] if result["folder"] else "no files needed"
    low, high = result["per_class"]
    parts = [f"{source.name} ({place}): {result['train']} samples"]
    parts[0] += f" and {result['test']} held out" if result["test"] else ""
    parts.append(f"{result['classes']} classes of {low}" + (f" to {high}" if high > low else ""))
    if result["files_verified"]:
        parts.append(f"checksums of {len(result['files_verified'])} files right")
    if result["samples_verified"]:
        parts.append("checksum of the decoded samples right")
    if source.folders and not result["files_verified"] and not result["samples_verified"]:
        parts.append("no checksum is known for these files")
    return {**result, "words": "; ".join(parts)}


def _get(source: Source, root: Path) -> dict[str, Any]:
    from raymc.datasets.fetch import fetch

    before = source.found(root)
    place = fetch(source, root)
    if place is None:
        words = f"{source.name} needs no files"
    elif before is not None:
        words = f"{place} is there already and stays as it is ({_line(root, 'check', source.name)} verifies it)"
    else:
        words = f"{place} is there now"
    return {
        "name": source.name,
        "folder": None if place is None else str(place),
        "fetched": place is not None and before is None,
        "words": words,
    }
