"""What all commands share: options, the JSON line, exit codes."""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from raymc.errors import InputError, Interrupted, RaymcError, storage_error
from raymc.masking import masked

Run = Callable[[argparse.Namespace], Mapping[str, Any] | None]


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are `InputError`s: one line, exit code 2."""

    def error(self, message: str) -> Any:
        raise InputError(f"{message} ({self.prog} --help lists the options)")


def make_parser(word: str, text: str) -> Parser:
    """The parser of one command with the options that all commands have."""
    parser = Parser(prog=f"python -m raymc.{word}", description=text)
    parser.add_argument("--storage", help="studies and stages (default: RAYMC_STORAGE, else ./raymc-storage)")
    parser.add_argument("--data", help="datasets (default: RAYMC_DATA, else the user's cache folder)")
    parser.add_argument("--smoke", action="store_true", help="shorten every length: the whole path in two minutes")
    parser.add_argument("--json", action="store_true", help="the last line of standard output is one JSON object")
    return parser


def storage_root(args: argparse.Namespace) -> str:
    """Where studies and stages live, by `--storage`."""
    return storage_place(args.storage)


def storage_place(given: str | None) -> str:
    """Where studies and stages live, an absolute path or a URI: as given, else RAYMC_STORAGE, else ./raymc-storage."""
    place = (given or os.environ.get("RAYMC_STORAGE") or "raymc-storage").removeprefix("file://")
    return place if "://" in place else str(Path(place).expanduser().resolve())


def execute(parser: argparse.ArgumentParser, run: Run, argv: list[str] | None = None) -> int:
    """Parse, run, print the JSON line if wanted; the exit code says how it ended (design: 0, 1, 2, 3, 130)."""
    os.environ.setdefault("DO_NOT_TRACK", "true")  # heeded by MLflow and huggingface_hub, whoever imports them
    try:
        # Intermixed: KEY=VALUE may stand before and after options.
        args = parser.parse_intermixed_args(argv)
        result = run(args)
    except RaymcError as error:
        print(masked(_line(error)), file=sys.stderr)
        if error.result is not None and args.json:
            _print_json(error.result)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if (refused := storage_error(error)) is not None:
            print(masked(_line(refused)), file=sys.stderr)
            return refused.exit_code
        print(masked(traceback.format_exc()), end="", file=sys.stderr)
        return 1
    if args.json and result is not None:
        _print_json(result)
    return 0


def _print_json(result: Mapping[str, Any]) -> None:
    sys.stderr.flush()
    print(json.dumps(result, allow_nan=False), flush=True)


def _line(error: RaymcError) -> str:
    if isinstance(error, Interrupted):
        return f"interrupted; go on with: {error}"
    return f"raymc: {' '.join(str(error).split())}"
