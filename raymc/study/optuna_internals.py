"""The names of Optuna's that are not its public interface: here and nowhere else.

Optuna hands out a trial once, by `ask`. A trial that another process was at work on is taken up again by its number in
the storage, for which there is no public way. Seen in Optuna 5.0.
"""

from __future__ import annotations

from typing import Any

from optuna import Study
from optuna.trial import FrozenTrial, Trial


def reopened(study: Study, trial: FrozenTrial) -> Trial:
    """A trial that is running, to suggest, report and note by."""
    return Trial(study, trial._trial_id)


def set_system_attr(study: Study, trial: FrozenTrial, key: str, value: Any) -> None:
    """What a sampler of Optuna's notes of a trial."""
    study._storage.set_trial_system_attr(trial._trial_id, key, value)


def set_intermediate_value(study: Study, trial: FrozenTrial, step: int, value: float) -> None:
    """In place of the one reported at that step, which `Trial.report` would keep."""
    study._storage.set_trial_intermediate_value(trial._trial_id, step, value)
