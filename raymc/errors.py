"""The errors that raymc raises on purpose, each with the exit code that a command ends with."""

import errno
import os
import re
import sqlite3
from collections.abc import Mapping
from pathlib import Path
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


class StorageError(InputError):
    """A file cannot be written or read: a full or read-only disk, no permission, too many open. What is there stays."""


class StorageLostError(RaymcError):
    """The folder that is worked in is no longer there: removed, or with its storage unmounted."""


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


class MachineError(RaymcError):
    """A machine cannot train: it has no data, other samples, no CUDA, another raymc, no space. Others may be able to.

    `node` is Ray's id of the machine, and `machine` its address, where it is told on another one.
    """

    exit_code = 3

    def __init__(self, message: str, node: str = "", machine: str = "") -> None:
        super().__init__(message, node, machine)
        self.message, self.node, self.machine = message, node, machine

    def __str__(self) -> str:
        return f"{self.machine}: {self.message}" if self.machine else self.message


class LostError(RaymcError):
    """Processes that a training needs were ended by no fault of its own: another try may come to an end."""


class StageHeld(RaymcError):
    """Another process is computing the stage `key`, which several workers would have to wait for."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class Interrupted(RaymcError):
    """The user stopped a command; the message is the command line that goes on from there."""

    exit_code = 130


def unwritable(out: object, error: OSError, given: bool = True) -> InputError:
    """What is said of an output that cannot be written; where `--out` was not `given` it is in the working folder."""
    if given:
        return InputError(f"--out {out} cannot be written: {error.strerror}")
    return InputError(f"{out} cannot be written: {error.strerror}; without --out results go to the working folder")


def unwritable_storage(folder: object, error: OSError) -> InputError:
    """The same of a folder of the storage, which is in the working folder by default."""
    return InputError(
        f"{folder} cannot be written: {error.strerror}; --storage or RAYMC_STORAGE says where studies are"
    )


class DataWarning(UserWarning):
    """What is odd about the data that `fit` was given, and no mistake: see `raymc.datasets.remarks`."""


def check_parent(path: Path, given: str) -> None:
    """Raises InputError, that begins with `given`, where the folder that `path` is to be made in is a typing mistake.

    Of its path nothing is there but the root; else folders are made, as `mkdir -p` does.
    """
    first = Path(*path.parts[:2])
    if not first.exists() and path != first:
        raise InputError(f"{given}: there is no folder {first}; make it, or name another")


REFUSALS = {getattr(errno, name) for name in "ENOSPC EDQUOT EFBIG EROFS EACCES EPERM EIO ESTALE EMFILE ENFILE".split()}
DATABASE_REFUSALS = ("disk is full", "readonly database", "unable to open database file", "disk I/O error")


def storage_error(error: BaseException, place: object = None) -> StorageError | None:
    """`error`, or what it came of, as a StorageError; None where no file was refused.

    `place` is named where the system does not say which file it was.
    """
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, StorageError):
            return found
        where = f"{place}: " if place else ""
        if isinstance(found, OSError) and found.errno in REFUSALS:
            where = f"{found.filename}: " if found.filename else where
            return StorageError(f"{where}{found.strerror}")
        if isinstance(found, sqlite3.OperationalError) and any(words in str(found) for words in DATABASE_REFUSALS):
            return StorageError(f"{where}{found}")
        found = found.__cause__ or found.__context__
    return None


def surroundings_error(error: BaseException) -> InputError | None:
    """`error` as an InputError where there is no home folder, of this user or of `~name`, or no working folder."""
    if isinstance(error, RuntimeError) and re.search("determine (the )?home directory", str(error)):
        return InputError("no home folder: set HOME to a folder, and write out paths that begin with ~")
    if isinstance(error, FileNotFoundError):
        try:
            os.getcwd()
        except FileNotFoundError:
            return InputError("the working folder is gone: go to one that exists")
    return None
