"""`tune --from STUDY`: the finished trials of an earlier study that the sampler of a new one may learn from.

Only what the new study would have found itself is taken: the same samples, seeds and objective, and for each trial the
same stages by their keys, which hold settings, samples, seed and numerics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from optuna.trial import FrozenTrial, TrialState, create_trial
from torch import nn

from raymc.config import Value
from raymc.datasets import Dataset
from raymc.errors import InputError
from raymc.methods import METHODS
from raymc.space import pruner
from raymc.space.conditions import active
from raymc.space.space import Space
from raymc.study.distributions import Distributions, check_point
from raymc.study.manifest import StudyBudget
from raymc.study.objective import Objective
from raymc.study.reader import Study
from raymc.study.records import FINISHED, Record, Row
from raymc.training.precision import as_recorded
from raymc.training.smoke import shorten
from raymc.training.stages import clusters_of, module_names, seeds_of, stage_key

TAKEN = "taken_from"
"""The attribute of a trial in the database that another study ran: that study's name."""

AGREE = {"seeds": "seeds", "seeds_from": "seeded stages", "varies": "parts that seeds vary", "smoke": "lengths"}


def earlier_trials(
    source: Study, manifest: Row, space: Space, dataset: Dataset, distributions: Distributions, budget: StudyBudget
) -> tuple[list[FrozenTrial], Counter[str]]:
    """The trials to take, as Optuna has them, and how many were not taken by why not.

    Raises InputError where the studies as a whole do not agree, so that none can be taken.
    """
    for why in _apart(source, manifest):
        raise InputError(f"--from {source.name}: it has other {why}, so none of its trials can be taken over")
    taken, left = [], Counter[str]()
    for record in source.trials:
        why, params = _refused(record, source, manifest, space, dataset, distributions)
        if why:
            left[why] += 1
        else:
            taken.append(_trial(record, params, source, distributions, budget))
    return taken, left


def _apart(source: Study, manifest: Row) -> Iterator[str]:
    if source.get("data", "fingerprint") != manifest["data"]["fingerprint"]:
        yield "samples"
    now = Objective.of(manifest["objective"])
    if manifest["smoke"]:
        now = replace(now, constraint=None)  # as the reader does
    if now != source.objective:
        yield "objective" if now.metric == source.objective.metric else f"objective ({source.objective.metric})"
    if now.uses_labels and source.get("data", "labels") != manifest["data"]["labels"]:
        yield "labels"
    for key, words in AGREE.items():
        if source.get(key) != manifest[key]:
            yield words


def _refused(
    record: Record, source: Study, manifest: Row, space: Space, dataset: Dataset, distributions: Distributions
) -> tuple[str, dict[str, Value]]:
    """Why a trial is not taken, and, where it is, its values of the keys that are searched now."""
    if record.state != FINISHED or record.score is None:
        return "not finished", {}
    theirs = {**(source.get("fixed") or {}), **record.params}
    asked = active(space.params, {key: theirs[key] for key in space.params if key in theirs})
    try:
        params = check_point(asked, distributions, space.params)
    except InputError:
        return "outside of what is searched", {}
    config = space.config({"seed": record.seeds[0].seed}, params)
    ours = config.flat()
    other = next((key for key in theirs if key in ours and key != "seed" and ours[key] != theirs[key]), None)
    if other is not None:
        return f"with another {other}", {}
    first = record.seeds[0]
    keys = stage_keys(space, manifest, params, first.seed, dataset, first.precision)
    if any(stage.key != keys.get(stage.name) for stage in first.stages if stage.epochs):
        return "with stages of another key", {}
    return "", params


def stage_keys(
    space: Space, manifest: Row, params: Mapping[str, Value], seed: int, dataset: Dataset, precision: str = ""
) -> dict[str, str]:
    """The keys of the stages of one training, by their names; `precision` is what its record says."""
    config = as_recorded(space.config({"seed": seed}, params), precision)
    if manifest["smoke"]:
        config, _ = shorten(config, dataset)
    names = tuple(space.stage_settings)
    seeds = seeds_of(names, seed, manifest["seed"], manifest["seeds_from"], config.varies)
    method, shape, clusters = METHODS[space.method], tuple(dataset.train.x.shape[1:]), clusters_of(config, dataset)
    found: dict[str, str] = {}
    previous = None
    for stage in method.stages(config):
        with torch.device("meta"):
            model = nn.ModuleDict({m: method.build(m, config, shape, clusters) for m in module_names(stage)})
        previous = stage_key(stage, config, model, dataset.fingerprint, seeds[stage.name], previous)
        found[stage.name] = previous
    return found


def _trial(
    record: Record, params: Mapping[str, Value], source: Study, distributions: Distributions, budget: StudyBudget
) -> FrozenTrial:
    objective = source.objective
    values = list(record.values(objective.metric).values())
    paired = isinstance(budget.pruner, pruner.Wilcoxon)
    trial = create_trial(
        state=TrialState.COMPLETE,
        values=list(record.scores or (record.score or 0.0,)),
        params=dict(params),
        distributions={key: distributions[key] for key in params},
        user_attrs={TAKEN: source.name, "state": record.state, "metrics": dict(record.metrics)},
        intermediate_values=_reports(objective, values, paired) if budget.fidelity == "seeds" else {},
    )
    if objective.constraint is not None:
        trial.set_constraint(objective.constraint.metric, objective.constraint.violation(record.metrics))
    return trial


def _reports(objective: Objective, values: Sequence[float], paired: bool) -> dict[int, float]:
    """What a pruner would have heard of a trial whose seeds have these values."""
    if paired:
        return dict(enumerate(values, start=1))
    scores = {count: objective.scores({objective.metric: values[:count]}, {}) for count in range(1, len(values))}
    return {count: found[0] for count, found in scores.items() if found}


def taken_words(taken: Row) -> str:
    """`14 trials of STUDY taken over; left out: 2 not finished, 1 outside of what is searched`."""
    left = ", ".join(f"{count} {why}" for why, count in taken["left"].items())
    count = taken["trials"]
    return f"{count} {'trial' if count == 1 else 'trials'} of {taken['study']} taken over" + (
        f"; left out: {left}" if left else ""
    )
