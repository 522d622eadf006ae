"""kill -9 of the driver of a search on the digits at random moments, resumed each time: nothing lost, nothing twice.

    python -m tests.chaos.driver_kills --kills 50 --trials 20 --out reports/DATE-survival

Every third kill comes while the command is starting, the others while it trains. In turns the driver dies alone, and
the next command starts at once while the processes of its Ray may still be there, or all of them die with it. What
came out is compared with a search that nobody disturbed.
"""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raymc.study.events import EVENTS, read_events
from tests.chaos.command import PATIENCE, Command, short_folder, tell
from tests.mlflow_database import metrics

SPACE = """
method: nmce
dataset: digits
fixed: {pretrain.epochs: 8, heads.epochs: 5, finetune.epochs: 3}
space:
  heads.weight_decay: {low: 1.0e-4, high: 0.1, log: true}
  heads.learning_rate: {low: 0.1, high: 0.6}
budget: {trials: 5, seeds: 2, confirm: {top: 1, seeds: 2}}
"""
START_SECONDS, WORK_SECONDS = 12.0, 5.0
"""The longest time from the command's start, or from its first epoch, to a kill."""

AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Ray's own helpers, which look for the others for more than a minute before they go; they touch nothing of ours."""


@dataclass
class Kill:
    """One kill -9: when it came, and what of the sitting's work was not on disk yet."""

    sitting: int
    moment: str
    alone: bool
    after: float
    trained: float
    lost: float
    finished_seeds: int


class Search:
    """A study in `work`, run by one command after the other."""

    def __init__(self, work: Path, name: str, trials: int, temporary: Path) -> None:
        self.work, self.name, self.trials = work, name, trials
        self.storage = work / name
        self.study = self.storage / "studies" / name
        self.database = work / f"{name}.db"
        self._temporary = temporary
        (work / "small.yaml").write_text(SPACE)

    def words(self) -> list[str]:
        """What follows `raymc tune`, in the folder `work`."""
        words = ["small.yaml", "--name", self.name, "--storage", str(self.storage), "--concurrent", "1", "--json"]
        words += ["--tracking-uri", f"sqlite:///{self.database}", "--trials", str(self.trials)]
        return words + (["--resume"] if self.study.exists() else [])

    def command(self, before: Sequence[str] = (), log: Path | None = None, **settings: str) -> Command:
        settings |= {"TMPDIR": str(self._temporary), "RAY_TMPDIR": str(self._temporary)}
        return Command(self.work, self.words(), settings, before, log)

    def to_its_end(self) -> dict[str, Any]:
        """What a command that nobody disturbs ends with."""
        command = self.command()
        assert command.wait() == 0, command.said
        return command.result()

    def finished(self) -> dict[str, tuple[int, str, int]]:
        """The seeds with a result: when it was written, its content, and how often a training of the seed began."""
        found = {}
        for path in sorted(self.study.glob("*/*/seed-*/result.json")):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            name = str(path.relative_to(self.study).parent)
            found[name] = (path.stat().st_mtime_ns, digest, _count(path.with_name(EVENTS), "begin"))
        return found

    def starts(self) -> int:
        return sum(_count(path, "begin") for path in self._events())

    def epochs(self) -> int:
        return sum(_count(path, "epoch") for path in self._events())

    def durable(self) -> float:
        """When the last thing was written that a resume goes on from."""
        paths = [*self.study.glob("*/*/seed-*/result.json"), *self.storage.glob("stages/*/*.json")]
        return max([0.0, *(path.stat().st_mtime for path in paths)])

    def table(self) -> list[Any]:
        """What the study has found: every trial's parameters, scores, and the metrics of every seed.

        A stage that trials share has a number of its own each time that it is begun: it is left out.
        """
        rows = []
        for path in sorted(self.study.glob("*/*/record.json")):
            record = json.loads(path.read_text())
            if record["kind"] == "stage":
                continue
            row = {key: record[key] for key in ("trial", "kind", "state", "params", "scores", "metrics")}
            rows.append(row | {"seeds": [{k: s[k] for k in ("seed", "state", "metrics")} for s in record["per_seed"]]})
        return rows

    def optuna_trials(self) -> list[tuple[int, str]]:
        with closing(sqlite3.connect(self.study / "optuna.db")) as database:
            return database.execute("select number, state from trials order by number").fetchall()

    def points(self) -> dict[tuple[str, str, int], float]:
        """The metrics in MLflow, all of them there once; without those that tell of times and of the store."""
        found = metrics(self.database)
        assert set(found.values()) == {1}, "a metric is in MLflow twice"
        rows = {(run, key, step): value for run, key, step, value in found}
        assert len(rows) == len(found), "a metric has two values at one step"
        rows = {at: value for at, value in rows.items() if not at[0].startswith("stage-")}
        kept = {at: value for at, value in rows.items() if not at[1].endswith((".seconds", ".cached"))}
        return {(run.replace(self.name, "study"), key, step): value for (run, key, step), value in kept.items()}

    def _events(self) -> list[Path]:
        return sorted(self.study.glob(f"*/*/seed-*/{EVENTS}"))


def _count(path: Path, kind: str) -> int:
    """The whole events of a kind."""
    return sum(event["event"] == kind for event in read_events(path))


class Orphans:
    """What drivers that were killed alone have left: how long it is there by itself."""

    def __init__(self) -> None:
        self._of: list[tuple[Command, float]] = []
        self.others: dict[int, float] = {}
        self.agents: dict[int, float] = {}

    def add(self, command: Command) -> None:
        self._of.append((command, time.monotonic()))

    def look(self) -> None:
        """Note for each driver when nothing of it but Ray's agents is there, and when nothing at all."""
        for number, (command, begun) in enumerate(self._of):
            for gone, besides in ((self.others, AGENTS), (self.agents, ())):
                if number not in gone and not command.left(besides):
                    gone[number] = round(time.monotonic() - begun, 1)

    def end(self) -> None:
        for command, _ in self._of:
            command.end_all()
        assert len(self.others) == len(self._of), "a worker outlives its driver"


def kill_once(
    search: Search, sitting: int, dice: random.Random, alone: bool, orphans: Orphans
) -> tuple[Kill | None, Command]:
    """Start the command and kill it; no kill where the search ended before its moment."""
    at_start = dice.random() < 1 / 3
    seconds = dice.uniform(0.2, START_SECONDS if at_start else WORK_SECONDS)
    command, before, first = search.command(), search.epochs(), None
    while not command.ended:
        now = time.monotonic()
        assert now - command.begun < PATIENCE, command.said
        if first is None and search.epochs() > before:
            first = now
        since = command.begun if at_start else first
        if since is not None and now - since >= seconds:
            return _killed(search, command, Kill(
                sitting, "start" if at_start else "work", alone, round(now - command.begun, 2),
                0.0 if first is None else round(now - first, 2), 0.0, 0,
            )), command  # fmt: skip
        orphans.look()
        time.sleep(0.1)
    return None, command


def _killed(search: Search, command: Command, kill: Kill) -> Kill:
    if kill.alone:
        command.kill()
    else:
        command.end_all()
    last = time.time() - search.durable() if search.study.exists() else 0.0
    kill.lost = round(min(last, kill.trained), 2)
    kill.finished_seeds = len(search.finished())
    return kill


def run(
    work: Path, kills: int, trials: int, seed: int, unbroken: Callable[[Search], dict[str, Any]] = Search.to_its_end
) -> dict[str, Any]:
    """The killed search and the unbroken one, compared; what is to be reported. AssertionError where one is wrong.

    `unbroken` runs a search to its end; its result.
    """
    dice, told, held, orphans = random.Random(seed), [], {}, Orphans()
    begun = time.monotonic()
    with short_folder() as temporary:
        search, whole = Search(work, "killed", trials, temporary), Search(work, "whole", trials, temporary)
        while len(told) < kills:
            kill, command = kill_once(search, len(told), dice, len(told) % 2 == 0, orphans)
            if kill is None:
                assert command.process.returncode == 0, command.said
                break
            told.append(kill)
            if kill.alone:
                orphans.add(command)
            held = check_kept(held, search.finished())
        last = search.to_its_end()
        took = time.monotonic() - begun
        orphans.look()
        expected = unbroken(whole)
        orphans.look()
        orphans.end()
        check_kept(held, search.finished())
        check_same(search, whole, len(told), last, expected)
        took = {"killed": round(took, 1), "unbroken": round(time.monotonic() - begun - took, 1)}
        default_won = last["confirm"]["trial"] == 0
        return report(search, told, orphans) | {"default_won": default_won, "seed": seed, "seconds": took}


def check_kept(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """A seed that had a result has the same one, written at the same time, and no training of it began since."""
    changed = [name for name, facts in before.items() if now.get(name) != facts]
    assert not changed, f"run again or lost: {changed}"
    return now


def check_same(search: Search, whole: Search, kills: int, result: dict[str, Any], expected: dict[str, Any]) -> None:
    seeds = len(whole.finished())
    assert result["trials"] == expected["trials"] == {"finished": search.trials, "pruned": 0, "failed": 0}
    assert search.optuna_trials() == [(number, "COMPLETE") for number in range(search.trials)]
    assert search.table() == whole.table(), "the table differs from the unbroken search's"
    assert [result[key] for key in ("best", "confirm")] == [expected[key] for key in ("best", "confirm")]
    assert whole.starts() == seeds and search.starts() <= seeds + kills, "a training began twice without a kill"
    found, wanted = search.points(), whole.points()
    different = sorted(at for at in found.keys() | wanted.keys() if found.get(at) != wanted.get(at))
    assert not different, f"MLflow's metrics differ from the unbroken search's: {different[:20]}"


def report(search: Search, told: list[Kill], orphans: Orphans) -> dict[str, Any]:
    lost = [kill.lost for kill in told]
    return {
        "kills": len(told),
        "while_starting": sum(kill.moment == "start" for kill in told),
        "trials": search.trials,
        "trainings": len(search.finished()),
        "trainings_begun": search.starts(),
        "workers_outlive_their_driver_s": max(orphans.others.values(), default=None),
        "rays_agents_outlive_it_s": max(orphans.agents.values(), default=None),
        "lost_seconds": {"sum": round(sum(lost), 1), "median": statistics.median(lost), "max": max(lost)},
        "moments": [asdict(kill) for kill in told],
    }


def main() -> None:
    tell("driver_kills", __doc__, {"kills": 50, "trials": 20, "seed": 0}, run, rows="moments")


if __name__ == "__main__":
    main()
