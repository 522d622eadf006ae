"""Samplers and pruners at equal cost on NMCE and the digits: best confirmed ACC, and trainings that pruners save.

    python -m benchmarks.samplers OUT --trials 2 --repeats 1 --seeds 1 --fresh 1 --searches tpe gp cmaes random asha
    python -m benchmarks.samplers OUT        # all: some 5,600 trainings of 5 s of one core's time, 8 core-hours

The first line is a rehearsal of two minutes, in a folder of its own.

Each sampler and pruner searches `nmce_digits` in each repeat, without Ray, one training after the other. What is best
after 10, 20 and 40 trials by the search is trained on fresh seeds. OUT keeps every training: the same command goes on
where it stopped, and started several times at once the processes share the work. The seeds are used nowhere else; the
searches of a repeat share their seeds and one pretraining. `OUT/samplers.json` and the table have what is complete.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from optuna.pruners import BasePruner

from benchmarks import machine
from raymc.atomic import write_json
from raymc.datasets import data_root
from raymc.errors import InputError
from raymc.execution.train_seed import TrainSeed
from raymc.execution.trial import Plan, run_task
from raymc.metrics.seeds import summary
from raymc.space import pruner, sampler
from raymc.space.objective import Objective as Asked
from raymc.space.seeds import seeds_from
from raymc.space.settled import settled_pruner, settled_sampler
from raymc.space.space import Space, load_space
from raymc.study import database, files
from raymc.study.distributions import compile_space, enqueue
from raymc.study.folder import Busy, locked
from raymc.study.objective import Objective
from raymc.study.pruner import make_pruner
from raymc.study.queue import TrialQueue
from raymc.study.records import FINISHED, Record
from raymc.study.seed_queue import SeedQueue, Work

FIRST_SEED, APART, FRESH = 20_000, 2_000, 1_000
STEPS = (10, 20, 40)
PAIRED = 6  # seeds of a trial where pruners are compared: Wilcoxon's test says nothing before four pairs
SAMPLERS: dict[str, sampler.Options] = {
    **{"tpe": sampler.TPE(), "gp": sampler.GP(), "cmaes": sampler.CMAES(), "random": sampler.Random()}
}
PRUNERS: dict[str, pruner.Options] = {
    **{"unpruned": pruner.Unpruned(), "asha": pruner.ASHA(), "wilcoxon": pruner.Wilcoxon()}
}
ACC = Objective("acc")


@dataclass(frozen=True)
class Search:
    """One search of a repeat; `steps` are the numbers of trials after which the best so far is confirmed."""

    out: Path
    name: str
    repeat: int
    trials: int
    seeds: int
    fresh: int
    data: str

    @property
    def folder(self) -> Path:
        return self.out / "searches" / f"{self.name}-{self.repeat}"

    @property
    def seed(self) -> int:
        return FIRST_SEED + APART * self.repeat

    @property
    def steps(self) -> list[int]:
        return sorted({*(step for step in STEPS if step < self.trials), self.trials})

    @property
    def fresh_seeds(self) -> range:
        return range(self.seed + FRESH, self.seed + FRESH + self.fresh)


def run(search: Search) -> dict[str, Any]:
    """Run what is missing of a search and its confirmations: `{"name", "trainings", "steps": {trials: acc}, …}`."""
    space = load_space("nmce_digits")
    varied = seeds_from(space, space.config())
    training = TrainSeed(space, str(search.out / "storage"), search.data, search.seed, varied)
    study = optuna.create_study(
        storage=database.connect(database.file_url(search.folder / "optuna.db")),
        study_name="search",
        direction="maximize",
        load_if_exists=True,
    )
    if not study.get_trials(deepcopy=False):
        enqueue(study, space.first, compile_space(space.params))
    options, stops = settings(search, space)
    queue = TrialQueue(
        search.folder,
        study,
        compile_space(space.params),
        objective=ACC,
        trials=search.trials,
        seeds=range(search.seed, search.seed + search.seeds),
        seed=search.seed,
        top=0,
        fresh=(),
        sampler=options,
        pruner=stops,
    )
    work(search, queue, training, "none" if stops is None else "seeds")
    best = {step: best_of(search, step) for step in search.steps}
    wanted = {record.trial: record.params for record in best.values() if record is not None}
    work(search, SeedQueue(search.folder, "confirm", ACC, wanted, search.fresh_seeds), training)
    trained = [record for record in records(search) if record is not None]
    confirmed = {
        step: files.read_record(search.folder, "confirm", record.trial)
        for step, record in best.items()
        if record is not None
    }
    return {
        "name": search.name,
        "repeat": search.repeat,
        "trainings": sum(len(record.seeds) for record in trained),
        "seconds": sum(record.seconds for record in trained),
        "pruned": sum(record.state == "pruned" for record in trained),
        "steps": {step: record.score for step, record in confirmed.items() if record is not None},
    }


def settings(search: Search, space: Space) -> tuple[sampler.Options, BasePruner | None]:
    """The sampler of a search, TPE where pruners are compared, and its pruner."""
    options = SAMPLERS.get(search.name, sampler.TPE())
    asked = PRUNERS.get(search.name, pruner.Unpruned())
    fidelity = "none" if isinstance(asked, pruner.Unpruned) else "seeds"
    settled = settled_pruner(asked, fidelity, Asked(metric="acc"), search.seeds, 1)
    return settled_sampler(options, space.params, space.objective), make_pruner(settled, search.seeds)


def work(search: Search, queue: Work, training: TrainSeed, fidelity: str = "none") -> None:
    """Run all tasks here. Of the stages only the pretraining stays in the store: the others serve one training."""
    plan = Plan(search.folder, ACC, fidelity)
    while (task := queue.next()) is not None:
        begun = time.monotonic()
        run_task(plan, task, training, lambda row, task=task: queue.on_report(task, row))  # type: ignore[misc]
        record = queue.ended(task)
        for stage in (stage for run in record.seeds for stage in run.stages if stage.name != "pretrain"):
            shutil.rmtree(search.out / "storage" / "stages" / stage.key, ignore_errors=True)
        took = time.monotonic() - begun
        print(f"{search.name} {search.repeat}: {task.name} {record.state} {record.score} {took:.1f} s", file=sys.stderr)


def records(search: Search) -> list[Record | None]:
    return [files.read_record(search.folder, "search", number) for number in range(search.trials)]


def best_of(search: Search, trials: int) -> Record | None:
    """The best of the first trials by its search score."""
    done = [record for record in records(search)[:trials] if record is not None and record.state == FINISHED]
    return max(done, key=lambda record: record.score or 0.0, default=None)


def tables(found: Sequence[dict[str, Any]]) -> str:
    """Markdown: mean and 95 % interval over the repeats of the confirmed ACC after so many trials; trainings run."""
    steps = sorted({int(step) for one in found for step in one["steps"]})
    lines = ["| search | repeats | " + " | ".join(f"ACC after {step}" for step in steps) + " | trainings | pruned |"]
    lines.append("|---|" + "---:|" * (len(steps) + 3))
    for name in dict.fromkeys(one["name"] for one in found):
        rows = [one for one in found if one["name"] == name]
        cells = [shown([one["steps"][step] for one in rows if one["steps"].get(step) is not None]) for step in steps]
        trainings, stopped = (f"{fmean(one[key] for one in rows):.1f}" for key in ("trainings", "pruned"))
        lines.append(f"| {name} | {len(rows)} | {' | '.join(cells)} | {trainings} | {stopped} |")
    return "\n".join(lines)


def shown(values: Sequence[float], within: tuple[float, float] | None = None) -> str:
    """Mean and its 95 % interval, which lies `within` where a figure can only be there."""
    if len(values) < 2:
        return f"{values[0]:.4f}" if values else "–"
    found = summary(values, within)
    return f"{found['mean']:.4f} ({found['ci95'][0]:.4f} to {found['ci95'][1]:.4f})"


def searches(args: argparse.Namespace) -> list[Search]:
    """Repeat by repeat, so that what is complete early compares all."""
    data = str(data_root(None))
    return [
        Search(args.out, name, repeat, args.trials, args.seeds if name in SAMPLERS else PAIRED, args.fresh, data)
        for repeat in range(args.repeats)
        for name in args.searches
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--searches", nargs="+", choices=[*SAMPLERS, *PRUNERS], default=[*SAMPLERS, *PRUNERS])
    parser.add_argument("--trials", type=int, default=STEPS[-1])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3, help=f"seeds of a trial; {PAIRED} where pruners are compared")
    parser.add_argument("--fresh", type=int, default=5, help="fresh seeds of what is best")
    args = parser.parse_args()
    for search in searches(args):
        try:
            with locked(search.folder):
                write_json(search.folder / "result.json", run(search))
        except Busy:
            continue  # another process is at it
        except InputError as error:
            parser.error(str(error))
    found = [json.loads(path.read_text()) for path in sorted(args.out.glob("searches/*/result.json"))]
    found = [one | {"steps": {int(step): value for step, value in one["steps"].items()}} for one in found]
    write_json(args.out / "samplers.json", {"machine": machine.facts("cpu", 1), "searches": found})
    print(tables(found))


if __name__ == "__main__":
    main()
