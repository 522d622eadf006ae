"""What the commands of this folder share: a `raymc.tune` that one can kill and look into, and how they tell.

The search runs in a session of its own, so that all that it started can be killed with it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machine import facts
from raymc.provenance import versions

ROOT = Path(__file__).parents[2]
PATIENCE = 900.0  # seconds, on a machine that is busy with other things


class Command:
    """`python -m raymc.tune WORDS` in the folder `work`; what it says goes to `out.txt` and `err.txt` in `log`.

    Its session has all processes of its private Ray, also when they outlive it. `before` are words that start it,
    such as those of setpriv.
    """

    def __init__(
        self,
        work: Path,
        words: Sequence[str],
        settings: Mapping[str, str],
        before: Sequence[str] = (),
        log: Path | None = None,
    ) -> None:
        self.errors = (log or work) / "err.txt"
        self._out = (log or work) / "out.txt"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", **settings}
        with self._out.open("w") as out, self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-m", "raymc.tune", *words],
                cwd=work,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                start_new_session=True,
            )
        self.begun = time.monotonic()

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def said(self) -> str:
        """Standard error so far."""
        return self.errors.read_text()

    def wait(self, seconds: float = PATIENCE) -> int:
        """The exit code; nothing that it started is left when this returns."""
        code = self.process.wait(seconds)
        self.end_all()
        return code

    def result(self) -> dict[str, Any]:
        """The JSON of a command that has ended well."""
        return dict(json.loads(self._out.read_text().splitlines()[-1]))

    def kill(self) -> None:
        """SIGKILL to the driver alone."""
        self.process.kill()
        self.process.wait()

    def end_all(self) -> int:
        """SIGKILL to everything in its session; how many processes that were."""
        found = self.left()
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if not self.ended:
            self.process.wait()
        return len(found)

    def left(self, besides: Sequence[str] = ()) -> list[int]:
        """The processes of its session that are there, without those of the names `besides`."""
        return [pid for pid, session, name in processes() if session == self.process.pid and name not in besides]


def processes() -> Iterator[tuple[int, int, str]]:
    """Number, session and first word of all processes but zombies."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
            state, _, _, session = text[text.rindex(")") + 2 :].split()[:4]
            name = path.with_name("cmdline").read_text(errors="replace").split("\0")[0]
        except OSError:
            continue
        if state != "Z":
            yield int(path.parent.name), int(session), name.strip()


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder for temporary files whose name is short, since Ray has its sockets in it."""
    folder = Path(tempfile.mkdtemp(prefix="rc-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def tell(
    name: str, text: str | None, options: Mapping[str, int], run: Callable[..., dict[str, Any]], rows: str = ""
) -> None:
    """The command of a module: `run(folder, **options)`, what it returns into `OUT/NAME.json`, all but `rows` printed.

    `options` are whole numbers with their defaults; `--out` is the folder for the file. The machine is described as it
    was before the run.
    """
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, default in options.items():
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--out", type=Path, required=True)
    asked = vars(parser.parse_args())
    out: Path = asked.pop("out")
    machine = facts("cpu", 1)
    with tempfile.TemporaryDirectory() as place:
        found = run(Path(place), **asked)
    out.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine, "versions": versions(), **found}
    (out / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    print({key: value for key, value in found.items() if key != rows})
