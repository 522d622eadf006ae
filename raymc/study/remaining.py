"""What a study has still to do, by its files: the trials of its search, and trainings on fresh seeds."""

from __future__ import annotations

from raymc.study.front import direction, pareto_front
from raymc.study.reader import Study, confirmation_of
from raymc.study.records import FINAL, Record, mapping

AGAIN = "run again as trial "
"""How the error of a trial begins that another one has taken the place of (`tune --retry failed`)."""


def own_trials(study: Study) -> tuple[Record, ...]:
    """The trials that count: of those that were run again the last ones."""
    return tuple(trial for trial in study.trials if not (trial.error or "").startswith(AGAIN))


def trials_left(study: Study) -> int:
    """Trials that have not ended; none that a limit of the budget kept from beginning."""
    trials = own_trials(study)
    ended = sum(trial.state in FINAL for trial in trials)
    early = study.get("budget", "ended_early")
    return max(0, (len(trials) if early else int(study.get("budget", "trials") or 0)) - ended)


def fresh_left(study: Study) -> int:
    """Trainings on fresh seeds that have not ended, at most: of the best trials and of the default configuration.

    While the search goes on it is not known which those are, nor whether the default is one of them.
    """
    confirm = mapping(study.get("confirm"))
    top, fresh = int(confirm.get("top") or 0), len(confirm.get("seeds") or ())
    default = study.get("default")
    if trials_left(study):
        begun = [*study.confirmations, *([study.default] if study.default else [])]
        wanted = min(top, int(study.get("budget", "trials") or 0)) + (bool(default) and top > 0)
        return max(0, wanted * fresh - sum(len(record.seeds) for record in begun))
    best = _best(study)[:top]
    records = {trial.trial: confirmation_of(study, trial.trial) for trial in best}
    if best and default:
        same = next((trial for trial in study.finished if dict(trial.params) == dict(default)), None)
        records[-1 if same is None else same.trial] = (
            study.default if same is None else confirmation_of(study, same.trial)
        )
    return sum(_left(record, fresh) for record in records.values())


def _left(record: Record | None, fresh: int) -> int:
    """Of the fresh seeds of one configuration; one that has ended is not run on more of them."""
    if record is None:
        return fresh
    return 0 if record.state in FINAL else max(1, fresh - len(record.seeds))


def _best(study: Study) -> list[Record]:
    """Trials that may win, the best first, as the search orders them for the confirmation."""
    sign = direction(study)
    front = {trial.trial for trial in pareto_front(study)} if study.objective.second else set()
    done = [trial for trial in study.finished if study.feasible(trial)]
    return sorted(done, key=lambda trial: (trial.trial not in front, -sign * (trial.score or 0.0), trial.trial))
