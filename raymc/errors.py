"""The errors that raymc raises on purpose, each with the exit code that a command ends with."""

from collections.abc import Mapping
from typing import Any


class RaymcError(Exception):
    """An error that is told in one line; `exit_code` is what a command returns for it.

    `result` is what `--json` prints all the same, where there is something to say.
    """

    exit_code = 1
    result: Mapping[str, Any] | None = None


class InputError(RaymcError):
    """What the user gave is wrong: an unknown name, a bad value, a missing or torn file."""

    exit_code = 2


class TrainingError(RaymcError):
    """A training that ended without a usable result; `state` names it in records and reports."""

    exit_code = 3
    state = "failed"


class DivergedError(TrainingError):
    """The loss or a gradient was not finite."""

    state = "diverged"


class CollapsedError(TrainingError):
    """All points fell into one cluster."""

    state = "collapsed"


class DeviceMemoryError(TrainingError):
    """The device ran out of memory."""

    state = "out_of_memory"


class Interrupted(RaymcError):
    """The user stopped a command; the message is the command line that goes on from there."""

    exit_code = 130
