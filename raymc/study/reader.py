"""A study's folder as typed records, for reports, for runs of its winner and for going on with it.

A report of an older or a newer study, or of one that was killed in mid-air, can still be written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raymc.errors import InputError
from raymc.metrics.names import GROUP_METRICS, STUDY_METRICS
from raymc.metrics.ranking import rank_means
from raymc.study.files import FOLDERS, load_json
from raymc.study.objective import Objective
from raymc.study.records import FINISHED, Record, mapping, number


@dataclass(frozen=True)
class Study:
    """`study.json` (whole in `manifest`), the trials and the confirmations, each in the order of their numbers.

    `default` is the default configuration on fresh seeds, where it was not among the best trials; `stages` are those
    that were trained before the trials that need them.
    """

    folder: Path
    name: str
    manifest: Mapping[str, Any]
    objective: Objective
    searched: Mapping[str, Mapping[str, Any]]
    trials: tuple[Record, ...]
    confirmations: tuple[Record, ...]
    unreadable: tuple[str, ...]
    default: Record | None = None
    stages: tuple[Record, ...] = ()

    @property
    def by_seed(self) -> bool:
        """Whether the objective is a metric of single trainings, so that fresh seeds have statistics of it."""
        return self.objective.metric not in (*GROUP_METRICS, *STUDY_METRICS)

    def level(self, record: Record) -> float | None:
        """What a finished record reaches in the objective, over its seeds: their mean, or what the group has.

        Its `score` may be another aggregate, which depends on the number of seeds: not to be compared with a mean.
        """
        if record.state != FINISHED:
            return None
        return record.metrics.get(self.objective.metric, record.score)

    def get(self, *path: str) -> Any:
        """A value of the manifest by its path; None where any part is absent."""
        value: Any = self.manifest
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    @property
    def finished(self) -> tuple[Record, ...]:
        """Trials with a score to compare."""
        return tuple(r for r in self.trials if r.state == FINISHED and r.score is not None)

    def feasible(self, record: Record) -> bool:
        """Whether the record keeps to the constraint, if there is one."""
        return self.objective.feasible(record.metrics)

    @property
    def records(self) -> tuple[Record, ...]:
        """All configurations that were run."""
        return (*self.trials, *self.confirmations, *([self.default] if self.default else []))

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the stages in the order in which they ran; empty before any seed has ended."""
        runs = (run for record in self.records for run in record.seeds)
        return max((tuple(stage.name for stage in run.stages) for run in runs), key=len, default=())


def read_study(folder: Path) -> Study:
    """The study in `folder`.

    Raises InputError where there is no `study.json` or it is torn. Torn trial records are left out and named in
    `unreadable`.
    """
    manifest = load_json(folder / "study.json")
    if manifest is None:
        raise InputError(f"{folder}: no readable study.json here")
    objective = Objective.of(mapping(manifest.get("objective")))
    if manifest.get("smoke"):  # after two epochs nothing would keep to it
        objective = replace(objective, constraint=None)
    trials, torn = _records(folder, "search")
    confirmations, torn_too = _records(folder, "confirm")
    default, _ = _records(folder, "default")
    return Study(
        folder=folder,
        name=str(manifest.get("study") or folder.name),
        manifest=manifest,
        objective=objective,
        searched={str(key): mapping(spec) for key, spec in mapping(manifest.get("searched")).items()},
        trials=_ranked(objective, trials),
        confirmations=_ranked(objective, confirmations),
        unreadable=(*torn, *torn_too),
        default=next(iter(default), None),
        stages=stage_records(folder),
    )


def stage_records(folder: Path) -> tuple[Record, ...]:
    """The stages that were trained before what needs them, by a study's folder or that of a configuration on seeds."""
    return _records(folder, "stage")[0]


def winner(study: Study) -> Record | None:
    """The search record of the winning configuration.

    The best of the confirmed configurations by their score on fresh seeds; without a confirmation that finished, the
    trial with the best search score. None that breaks the constraint, in the search or on fresh seeds, and None where
    no trial finished.
    """
    trials = {record.trial: record for record in study.finished if study.feasible(record)}
    passed = [record for record in candidates(study) if record.state != FINISHED or study.feasible(record)]
    # Of equal ones, which ranks among few often are, the one that led the search.
    sign = 1.0 if study.objective.mode == "min" else -1.0
    by_search = sorted(
        (record for record in passed if record.trial in trials),
        key=lambda r: sign * (trials[r.trial].score or 0.0),
    )
    best = best_of(by_search, study.objective.mode)
    if best is not None:
        return trials[best.trial]
    failed = {record.trial for record in study.confirmations} - {record.trial for record in passed}
    return best_of((record for number, record in trials.items() if number not in failed), study.objective.mode)


def candidates(study: Study) -> tuple[Record, ...]:
    """The confirmations that may win.

    A study of before may also have the default there, which was run on fresh seeds whatever its search score was.
    """
    default, top = study.get("default"), study.get("confirm", "top")
    if not default or not top or study.objective.second is not None:
        return study.confirmations
    sign = 1.0 if study.objective.mode == "min" else -1.0
    may_win = (record for record in study.finished if study.feasible(record))
    led = [record.trial for record in sorted(may_win, key=lambda record: sign * (record.score or 0.0))[:top]]
    return tuple(r for r in study.confirmations if r.trial in led or dict(r.params) != dict(default))


def confirmation_of(study: Study, trial: int) -> Record | None:
    """The confirmation of a trial's configuration, if there is one."""
    return next((record for record in study.confirmations if record.trial == trial), None)


def default_of(study: Study) -> Record | None:
    """The default configuration on fresh seeds; None in studies of before, and as long as it has not been run."""
    values = study.get("default")
    same = (record for record in study.confirmations if values and dict(record.params) == dict(values))
    return study.default or next(same, None)


def best_of(records: Iterable[Record], mode: str) -> Record | None:
    """The finished record with the best score; of equal ones the first."""
    scored = [(r.score, r) for r in records if r.state == FINISHED and r.score is not None]
    if not scored:
        return None
    sign = 1.0 if mode == "max" else -1.0
    return max(scored, key=lambda pair: sign * pair[0])[1]


def _ranked(objective: Objective, found: tuple[Record, ...]) -> tuple[Record, ...]:
    """The records with their score among each other, where the objective is one that only a whole study has."""
    if not objective.ranks:
        return found
    done = [record for record in found if record.state == FINISHED]
    ranks = dict(zip((r.trial for r in done), rank_means([r.metrics for r in done]), strict=True))
    return tuple(
        replace(r, score=ranks[r.trial], metrics={**r.metrics, objective.metric: ranks[r.trial]})
        if r.trial in ranks
        else r
        for r in found
    )


def _records(study: Path, kind: str) -> tuple[tuple[Record, ...], list[str]]:
    records, torn = [], []
    for path in sorted((study / FOLDERS[kind]).glob("*/record.json")):
        content = load_json(path)
        if content is None or number(content.get("trial")) is None:
            torn.append(str(path.relative_to(study)))
        else:
            records.append(Record.of(content, path.parent, kind))
    return tuple(sorted(records, key=lambda record: record.trial)), torn
