"""What a study's winner leaves in its folder: `winner/`, from the seed that agrees most with the others.

```
winner/labels.csv, embedding.npy, …   of the seed, as `raymc.training.rows` writes them
winner/model/                         of the seed, what `raymc predict` and `raymc.load_model` read
winner/consensus.csv                  what all its seeds say together
winner/config.yaml                    the space file that trains that seed again
```
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from raymc.atomic import copy_file
from raymc.config import Config, Value
from raymc.metrics.labellings import most_agreeing
from raymc.space.again import CONFIG, as_trained, write_config
from raymc.space.space import Space
from raymc.study.groups import consensus_of, labels_of
from raymc.study.manifest import StudyBudget
from raymc.study.names import WINNER as WINNER
from raymc.study.reader import Study, confirmation_of, winner
from raymc.study.records import FINISHED, Record, Row, SeedRun
from raymc.training import model_files, rows


def winner_kind(budget: StudyBudget) -> str:
    """The kind of tasks among whose seeds the winner's is chosen: fresh seeds, or, without any, those of the search."""
    return "confirm" if budget.top and budget.fresh else "search"


def write_winner(study: Study, space: Space) -> Row | None:
    """Write `winner/` and return `{"trial", "seed", "agreement", "consensus", "folder"}`; None where no trial finished.

    The seed is the one of the winning configuration whose clusters have the highest mean adjusted Rand index with those
    of its other seeds, `agreement`: fresh seeds, or, without any that finished, those of the search. No labels decide.
    `consensus` are the `raymc.study.groups.Consensus.scores` of those seeds; None of fewer than two.
    `space` is the study's own, with its overrides pinned.
    """
    found = chosen_run(study)
    if found is None:
        return None
    best, runs, run, agreement = found
    folder = study.folder / WINNER
    folder.mkdir(exist_ok=True)
    for name in rows.FILES:
        copy_file(run.folder / name, folder / name)
    model_files.copy(run.folder / model_files.FOLDER, folder / model_files.FOLDER)
    write_config(folder / CONFIG, space, *_config(study, space, best.params, run.seed), smoke=bool(study.get("smoke")))
    consensus = _write_consensus(runs, run, folder)
    return {
        "trial": best.trial,
        "seed": run.seed,
        "agreement": agreement,
        "consensus": consensus,
        "folder": str(folder),
    }


def _write_consensus(runs: tuple[SeedRun, ...], chosen: SeedRun, folder: Path) -> Row | None:
    """Write `consensus.csv` beside the chosen seed's `labels.csv`, with its numbers of clusters; the scores."""
    (folder / rows.CONSENSUS).unlink(missing_ok=True)
    found = consensus_of(sorted(runs, key=lambda run: run is not chosen))
    if found is None:
        return None
    if (folder / rows.LABELS).exists():
        samples, _ = rows.read_samples(folder / rows.LABELS)
        rows.write_consensus(folder / rows.CONSENSUS, samples, found.labels, found.agreement)
    return found.scores


class Chosen(NamedTuple):
    """The winning trial, its finished trainings (fresh ones where it has them), and the one that stands for them."""

    trial: Record
    runs: tuple[SeedRun, ...]
    run: SeedRun
    agreement: float | None


def chosen_run(study: Study) -> Chosen | None:
    """The winner's; None where no trial finished."""
    best = winner(study)
    if best is None:
        return None
    confirmed = confirmation_of(study, best.trial)
    record = confirmed if confirmed is not None and confirmed.finished else best
    return Chosen(best, record.finished, *_chosen(record.finished))


def export_winner(study: Study, space: Space, path: Path) -> Row | None:
    """Write the space file that trains the winner again; `{"trial", "seed", "params"}`, None where there is none."""
    found = chosen_run(study)
    if found is None:
        return None
    best, run = found.trial, found.run
    write_config(path, space, *_config(study, space, best.params, run.seed), smoke=bool(study.get("smoke")))
    return {"trial": best.trial, "seed": run.seed, "params": dict(best.params)}


def _chosen(runs: tuple[SeedRun, ...]) -> tuple[SeedRun, float | None]:
    found = labels_of(runs)
    if not found or len({len(labels) for labels in found.values()}) > 1:
        return runs[0], None
    at, agreement = most_agreeing(list(found.values()))
    seed = list(found)[at]
    return next(run for run in runs if run.seed == seed and run.state == FINISHED), agreement


def _config(study: Study, space: Space, params: Mapping[str, Value], seed: int) -> tuple[Config, str]:
    """As `train` must have it, and what cannot be the same.

    `train` gives the stages before `seeds_from` seed 0, so they are the study's where it began with seed 0.
    """
    return as_trained(space, space.config({"seed": seed}, params), study.get("seeds_from"), study.get("seed"))
