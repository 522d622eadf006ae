"""What all commands share: options, the JSON line, exit codes."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from raymc import __version__
from raymc.errors import InputError, Interrupted, RaymcError, check_parent, storage_error, surroundings_error
from raymc.masking import masked
from raymc.program import SCRIPT, command_line, is_script

MODULE = f"python -m {SCRIPT}."
Run = Callable[[argparse.Namespace], Mapping[str, Any] | None]


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are `InputError`s: one line, exit code 2."""

    def error(self, message: str) -> Any:
        command, *action = self.prog.removeprefix(MODULE).removeprefix(f"{SCRIPT} ").split()
        ours = self.prog.startswith((MODULE, f"{SCRIPT} "))
        line = command_line(command, [*action, "--help"]) if ours else f"{self.prog} --help"
        raise InputError(f"{message} ({line} lists the options)")


COMMON: Mapping[str, Mapping[str, Any]] = {
    "storage": {"help": "studies and stages (default: RAYMC_STORAGE, else ./raymc-storage)"},
    "data": {"help": "datasets (default: RAYMC_DATA, else the user's cache folder)"},
    "smoke": {"action": "store_true", "help": "shorten every length: the whole path in two minutes"},
}
"""Options that several commands have; each has those that it reads."""


def make_parser(word: str, text: str, common: Iterable[str] = tuple(COMMON)) -> Parser:
    """The parser of one command, with the options of `COMMON` that it reads, `--json` and `--version`."""
    parser = Parser(prog=f"{SCRIPT} {word}" if is_script() else f"{MODULE}{word}", description=text)
    parser.add_argument("--version", action="version", version=f"raymc {__version__}")
    add_common(parser, common)
    return parser


def add_common(parser: argparse.ArgumentParser, names: Iterable[str], **more: Any) -> None:
    """Add options of `COMMON`, and `--json`; `more` is of all of them."""
    for name in names:
        parser.add_argument(f"--{name}", **COMMON[name], **more)
    words = "the last line of standard output is one JSON object"
    parser.add_argument("--json", action="store_true", help=words, **more)


def add_running(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands whose trainings run under Ray and are told to MLflow."""
    parser.add_argument("--concurrent", type=int, help="trainings at a time (default: what fits)")
    parser.add_argument("--address", help="a running Ray cluster, e.g. auto (default: Ray on this machine)")
    parser.add_argument("--tracking-uri", help="MLflow (default: MLFLOW_TRACKING_URI, else ./mlflow.db)")


def storage_root(args: argparse.Namespace) -> str:
    """Where studies and stages live, by `--storage`."""
    return storage_place(args.storage)


def storage_place(given: str | None) -> str:
    """Where studies and stages live, an absolute path or a URI: as given, else RAYMC_STORAGE, else ./raymc-storage.

    Raises InputError for a path of which nothing is there but the root.
    """
    place = (given or os.environ.get("RAYMC_STORAGE") or "raymc-storage").removeprefix("file://")
    if "://" in place:
        return place
    folder = Path(place).expanduser().resolve()
    check_parent(folder, f"{'--storage' if given else 'RAYMC_STORAGE'} {place}")
    return str(folder)


def results(args: argparse.Namespace) -> TextIO:
    """Where a command's results go in words: standard output, of which `--json` takes the place.

    Progress, remarks and complaints go to standard error.
    """
    return sys.stderr if args.json else sys.stdout


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends a command as orderly as Ctrl-C does."""


AGAIN_SECONDS = 0.1
"""After which a signal that was lost is sent again."""


@contextmanager
def on_sigterm() -> Iterator[list[int]]:
    """Raise Terminated where the process is asked to end; the list that is given has the signal then.

    A second one changes nothing: what is being put away is put away whole. Ctrl-C still ends that.
    Where either comes while Python runs a finalizer, which cannot raise, it comes again a moment later.
    """
    received: list[int] = []

    def again(lost: sys.UnraisableHookArgs) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            hook(lost)
            return
        number = signal.SIGTERM if issubclass(lost.exc_type, Terminated) else signal.SIGINT
        if number == signal.SIGTERM:
            received.clear()
        repeated = threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), number))
        repeated.daemon = True
        repeated.start()

    def end(number: int, frame: object) -> None:
        if not received:
            received.append(number)
            raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before, hook = signal.signal(signal.SIGTERM, end), sys.unraisablehook
    sys.unraisablehook = again
    try:
        yield received
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGTERM, before)


def execute(parser: argparse.ArgumentParser, run: Run, argv: list[str] | None = None) -> int:
    """Parse, run, print the JSON line if wanted; the exit code says how it ended (0, 1, 2, 3, 130, 143)."""
    with on_sigterm() as received:
        code = _execute(parser, run, argv)
    return 128 + received[0] if received and code == Interrupted.exit_code else code


def parse(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Parse; intermixed, since KEY=VALUE may stand before and after options, which argparse refuses with actions."""
    actions = any(isinstance(action, argparse._SubParsersAction) for action in parser._actions)
    return parser.parse_args(argv) if actions else parser.parse_intermixed_args(argv)


def _execute(parser: argparse.ArgumentParser, run: Run, argv: list[str] | None) -> int:
    os.environ.setdefault("DO_NOT_TRACK", "true")  # heeded by MLflow and huggingface_hub, whoever imports them
    try:
        args = parse(parser, argv)
        result = run(args)
    except RaymcError as error:
        print(masked(_line(error)), file=sys.stderr)
        if error.result is not None and args.json:
            _print_json(error.result)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return Interrupted.exit_code
    except Exception as error:
        if (refused := storage_error(error) or surroundings_error(error)) is not None:
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
